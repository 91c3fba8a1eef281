"""Encoders by name.

An encoder class is registered for a modality under a short name. Packages announce the module that registers their
encoders in the entry-point group ``multimodal.encoders``; this package announces its own in the same way. A configuration
names an encoder by its registered name, prefixed with its modality to use it for another one (``text.transformer`` for
titles), or by a class path (``package.module.Class``).
"""

from __future__ import annotations

import importlib
import inspect
import re
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, TypeVar

from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.library_warnings import ignore_import_warnings

if TYPE_CHECKING:
    from multimodal.core.encoder import Encoder

E = TypeVar("E", bound="Encoder")

ENTRY_POINTS = "multimodal.encoders"


def class_path(cls: type) -> str:
    """Return the class path of a class, ``package.module.Class``."""
    return f"{cls.__module__}.{cls.__qualname__}"


@dataclass(frozen=True)
class Registration:
    """One registered encoder.

    Args:
        modality: the modality that it encodes.
        name: its registered name.
        cls: the class.
        extra: the extra of its package that it needs (``pip install package[extra]``); None: none.

    Examples:
        >>> from multimodal.core.registry import registrations
        >>> next(r for r in registrations("text") if r.name == "bag").cls.__name__
        'BagOfWords'
    """

    modality: str
    name: str
    cls: type[Encoder]
    extra: str | None = None

    @property
    def class_path(self) -> str:
        return class_path(self.cls)

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (self.cls.__doc__ or "").strip().partition("\n")[0]

    @property
    def description(self) -> str:
        """The docstring of the class after its first line, to its sections (Args, ...): what the encoder reads and does."""
        described = inspect.cleandoc(self.cls.__doc__ or "").partition("\n")[2]
        return re.split(r"^(?:Args|Attributes|Raises|Source|Examples):$", described, maxsplit=1, flags=re.MULTILINE)[
            0
        ].strip()

    def parameters(self) -> dict[str, Any]:
        """Return the constructor's parameters and their defaults; a parameter without a default has ``"required"``."""
        signature = inspect.signature(self.cls.__init__)
        return {
            name: "required" if p.default is p.empty else p.default
            for name, p in signature.parameters.items()
            if name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        }


_registered: dict[tuple[str, str], Registration] = {}
_loaded_entry_points: set[str] = set()


def register(modality: str, name: str, *, extra: str | None = None) -> Callable[[type[E]], type[E]]:
    """Register an encoder class (decorator).

    Args:
        modality: the modality that it encodes. A Python identifier, as it names keyword arguments and command-line options.
        name: its name in configurations, also an identifier.
        extra: the extra of its package that it needs; None: none.

    Raises:
        UsageError: a name is not an identifier, or is taken by another class.
    """
    for identifier in (modality, name):
        if not identifier.isidentifier() or iskeyword(identifier):
            raise UsageError(
                f"register({modality!r}, {name!r}): {identifier!r} must be a Python identifier, not a keyword."
            )

    def add(cls: type[E]) -> type[E]:
        new = Registration(modality, name, cls, extra)
        old = _registered.get((modality, name))
        if old is not None and old.class_path != new.class_path:  # the same path: the module was loaded again
            raise UsageError(f"{modality} encoder {name!r} is taken by {old.class_path}; choose another name.")
        _registered[modality, name] = new
        return cls

    return add


def _load_entry_points() -> None:
    for entry_point in entry_points(group=ENTRY_POINTS):
        if entry_point.value not in _loaded_entry_points:
            try:
                entry_point.load()
            except Exception as error:  # importing a package may raise anything
                raise MultimodalError(
                    f"The package that announces encoders in {entry_point.value!r} cannot be imported ({error!r});"
                    " fix or uninstall it."
                ) from error
            _loaded_entry_points.add(entry_point.value)


def registrations(modality: str | None = None) -> list[Registration]:
    """Return all registered encoders, or those of one modality, sorted by modality and name."""
    _load_entry_points()
    chosen = [r for r in _registered.values() if modality in (None, r.modality)]
    return sorted(chosen, key=lambda r: (r.modality, r.name))


def find_encoder(modality: str, name: str) -> type[Encoder]:
    """Return the encoder class that a configuration means by ``name`` for ``modality``.

    Args:
        modality: the modality to encode.
        name: the name registered for it, ``other_modality.name``, or a class path.

    Raises:
        UsageError: there is no such encoder; the message lists close matches and known names.
    """
    registered = _find_registered(modality, name)
    if registered is not None:
        return registered
    if "." in name:
        return _import_class(modality, name)
    known = [r.name for r in registrations(modality)]
    if not known:
        others = [f"{r.modality}.{r.name}" for r in registrations() if r.name == name]
        modalities = sorted({r.modality for r in registrations()})
        raise UsageError(
            f"No encoder is registered for modality {modality!r}, so {name!r} is unknown. Write"
            f" {' or '.join([*others, 'a class path'])}, or use a modality that has encoders.{suggest(modality, modalities)}"
        )
    raise UsageError(f"Unknown {modality} encoder {name!r}.{suggest(name, known)}")


def is_registered(modality: str, name: str) -> bool:
    """Whether a class is registered under a name, for ``modality`` or for the modality that the name begins with."""
    return _find_registered(modality, name) is not None


def _find_registered(modality: str, name: str) -> type[Encoder] | None:
    """Return the class registered under a name, for ``modality`` or for the modality that the name begins with."""
    known = {(r.modality, r.name): r.cls for r in registrations()}
    modality_part, _, name_part = name.partition(".")
    return known.get((modality, name)) or known.get((modality_part, name_part))


def _import_class(modality: str, path: str) -> type[Encoder]:
    from multimodal.core.encoder import Encoder

    module_name, _, class_name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        if (moved := _find_moved(path)) is not None:
            return moved
        names = [r.name for r in registrations(modality)]
        names += [f"{r.modality}.{r.name}" for r in registrations(module_name)]
        raise UsageError(
            f"Cannot import the {modality} encoder {path!r}: {error}."
            f" Give a registered name or an importable class path.{suggest(path, names)}"
        ) from error
    if not (inspect.isclass(cls) and issubclass(cls, Encoder)):
        raise UsageError(f"{path!r}, named as the {modality} encoder, is not a subclass of multimodal.Encoder.")
    return cls


def _find_moved(path: str) -> type[Encoder] | None:
    """Return the registered class that version 0.1 named by a path like ``encoders.image.CNN``."""
    package, class_name = path.partition(".")[0], path.rpartition(".")[2]
    classes = {r.cls.__name__: r.cls for r in registrations()}
    return classes.get(class_name) if package == "encoders" else None


def create(modality: str, name: str, /, **settings: Any) -> Encoder:
    """Build an encoder by its registered name or class path.

    Args:
        modality: the modality that it encodes.
        name: its registered name (``multimodal encoders`` lists them) or class path.
        **settings: arguments of its constructor.

    Returns:
        The encoder, with new weights.

    Raises:
        UsageError: the name is unknown, a setting is not a parameter of the class, or a required parameter is missing.
        MultimodalError: the constructor raises an error with these settings.
    """
    cls = find_encoder(modality, name)
    check_settings(modality, name, settings)
    if missing := [key for key in required_settings(modality, name) if key not in settings]:
        raise UsageError(f"The {modality} encoder {name!r} needs settings: {', '.join(missing)}.")
    try:
        with ignore_import_warnings():  # an encoder imports its library when it is built
            return cls(**settings)
    except (MultimodalError, ImportError, OSError, MemoryError):
        raise
    except Exception as error:  # libraries raise errors of all kinds for a wrong setting
        settings_text = ", ".join(f"{key}={reprlib.repr(value)}" for key, value in settings.items())
        raise MultimodalError(
            f"The {modality} encoder {name!r} cannot be built with {settings_text or 'its defaults'}:"
            f" {type(error).__name__}: {error}"
        ) from error


def check_settings(modality: str, name: str, settings: Iterable[str]) -> None:
    """Check that all settings are parameters of an encoder.

    Args:
        modality: the modality that it encodes.
        name: its registered name or class path.
        settings: the names of the settings.

    Raises:
        UsageError: a setting is not a parameter, or there is no such encoder.
    """
    cls = find_encoder(modality, name)
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls.__init__).parameters.values()):
        return
    known = Registration(modality, name, cls).parameters()
    for key in settings:
        if key not in known:
            raise UsageError(f"The {modality} encoder {name!r} has no parameter {key!r}.{suggest(key, list(known))}")


def required_settings(modality: str, name: str) -> list[str]:
    """Return the parameters of an encoder that have no default."""
    defaults = Registration(modality, name, find_encoder(modality, name)).parameters()
    return [key for key, default in defaults.items() if default == "required"]


def saved_names(modality: str, cls: type[Encoder]) -> tuple[str, str]:
    """Return the registered name of a class (its class path if it has none) and its class path, for a saved model.

    The registered name is the one for ``modality``, else one for another modality, written ``modality.name``.
    """
    names = [r.name for r in registrations(modality) if r.cls is cls]
    names += [f"{r.modality}.{r.name}" for r in registrations() if r.cls is cls]
    return next(iter(names), class_path(cls)), class_path(cls)


def saved_encoder_name(modality: str, name: str, path: str) -> str:
    """Return the name by which to find a saved model's encoder: the registered one, or if that is unknown, the class path.

    A registered name remains valid when the class moves. A class that a user's own module registers is known only after that
    module is imported.

    Args:
        modality: the modality that it encodes.
        name: the registered name that was saved.
        path: the class path that was saved.
    """
    if is_registered(modality, name):
        return name
    moved = _find_moved(path)
    return path if moved is None else class_path(moved)
