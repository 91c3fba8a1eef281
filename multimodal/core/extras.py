"""Extras: the optional dependencies of this package and of packages that announce encoders, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from multimodal.core.errors import UsageError
from multimodal.core.registry import ENTRY_POINTS, Registration


def require(extra: str, task: str, *libraries: str) -> None:
    """Check that the libraries of one of our extras can be imported, before work begins that needs them.

    Args:
        extra: the extra of ``multimodal`` that installs them, such as ``"prepare"``.
        task: what needs them, as the error message's subject: ``"Preparing a table"``.
        libraries: the names to import.

    Raises:
        UsageError: one cannot be imported; the message names it and the command that installs it.
    """
    for library in libraries:
        try:
            import_module(library)
        except ImportError as error:
            raise UsageError(
                f"{task} needs the library {library} ({error}): pip install 'multimodal[{extra}]'."
            ) from error


@dataclass(frozen=True)
class Extra:
    """The optional dependencies of an encoder.

    Attributes:
        install: the command that installs them.
        missing: the distributions that are not installed.
    """

    install: str
    missing: tuple[str, ...]


def extra_of(registration: Registration) -> Extra | None:
    """Return the extra of an encoder. None: it needs none, or its package does not announce encoders."""
    package = _package_of(registration)
    if registration.extra is None or package is None:
        return None
    requirements = _requirements(package, registration.extra)
    missing = tuple(requirement.name for requirement in requirements if not _installed(requirement))
    return Extra(f"pip install '{package.name}[{registration.extra}]'", missing)


def _package_of(registration: Registration) -> Distribution | None:
    top = registration.cls.__module__.partition(".")[0]
    return next((p.dist for p in entry_points(group=ENTRY_POINTS) if p.value.partition(".")[0] == top), None)


def _requirements(package: Distribution, extra: str) -> Iterator[Requirement]:
    """Yield the requirements of an extra, and of the extras of the same package that it names."""
    for requirement in map(Requirement, package.requires or ()):
        if not _belongs_to_extra(requirement, extra):
            continue
        if canonicalize_name(requirement.name) != canonicalize_name(package.name):
            yield requirement
            continue
        for inner in sorted(requirement.extras):
            yield from _requirements(package, inner)


def _belongs_to_extra(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return (
        marker is not None
        and marker.evaluate({"extra": canonicalize_name(extra)})
        and not marker.evaluate({"extra": ""})
    )


def _installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(distribution(requirement.name).version, prereleases=True)
    except PackageNotFoundError:
        return False
