"""``multimodal encoders``: what is registered, with its parameters."""

from __future__ import annotations

import json
import warnings
from argparse import ArgumentTypeError
from textwrap import indent
from typing import TYPE_CHECKING, Any

from multimodal.cli.options import parser, yaml_settings

if TYPE_CHECKING:
    from multimodal.core.registry import Registration


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, "List the registered encoders with the parameters of their constructors and what they need.")
    p.add_argument("--modality", help="only those of one modality")
    p.add_argument("--name", help="only those of one name")
    p.add_argument(
        "--settings",
        help="the number of parameters and the width of one encoder with these settings (YAML), as '{arch: ViT-B-32}';"
        " published weights of an arch are not downloaded for it",
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)

    from multimodal.core.errors import UsageError, suggest
    from multimodal.core.registry import registrations

    all_registrations = registrations()
    found = registrations(options.modality)
    if not found:
        modalities = sorted({r.modality for r in all_registrations})
        raise UsageError(f"No encoder is registered for {options.modality!r}.{suggest(options.modality, modalities)}")
    if options.name:
        known = sorted({r.name for r in found})
        found = [r for r in found if r.name == options.name]
        if not found:
            raise UsageError(f"No encoder is registered as {options.name!r}.{suggest(options.name, known)}")
    settings = None if options.settings is None else _parse_settings(options.settings, found)
    descriptions = [_describe(r, settings) for r in found]
    if options.json:
        print(json.dumps(descriptions, indent=1))
        return
    for entry in descriptions:
        print(_format_line(entry))
        if options.name and entry["description"]:
            print(f"\n{indent(entry['description'], '    ')}\n")
        for name, default in entry["parameters"].items():
            print(f"    {name} = {json.dumps(default)}")


def _parse_settings(text: str, found: list[Registration]) -> dict[str, Any]:
    from multimodal.core.errors import UsageError

    if len(found) > 1:
        names = ", ".join(f"{r.modality} {r.name}" for r in found)
        raise UsageError(f"--settings describes one encoder; choose it with --modality and --name from: {names}.")
    try:
        return yaml_settings(text, "{arch: ViT-B-32}")
    except ArgumentTypeError as error:
        raise UsageError(f"--settings {error}.") from error


def _describe(registration: Registration, settings: dict[str, Any] | None) -> dict[str, Any]:
    from multimodal.core.extras import extra_of

    extra = extra_of(registration)
    return {
        "modality": registration.modality,
        "name": registration.name,
        "class": registration.class_path,
        "summary": registration.summary,
        "description": registration.description,
        "extra": registration.extra,
        "missing": [] if extra is None else list(extra.missing),
        "install": None if extra is None else extra.install,
        "parameters": registration.parameters(),
        **(_default_size(registration) if settings is None else _size_with_settings(registration, settings)),
    }


def _size_with_settings(registration: Registration, settings: dict[str, Any]) -> dict[str, int | None]:
    """The number of parameters and the width of the encoder with settings, built without published weights."""
    import torch

    from multimodal.core.registry import create

    parameters = registration.parameters()
    if "weights" in parameters and settings.get("arch", parameters.get("arch")) is not None:
        settings = settings | {"weights": None}
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # of weights that are copied nowhere
            encoder = create(registration.modality, registration.name, **settings)
    except Exception:  # settings are wrong, which the next line reports, or a constructor looks at numbers
        encoder = create(registration.modality, registration.name, **settings)
    return {"weights": sum(p.numel() for p in encoder.parameters()), "width": encoder.width}


def _default_size(registration: Registration) -> dict[str, int | None]:
    """The number of parameters and the width of the encoder with its defaults; None where they depend on settings.

    It is built on torch's meta device, where weights take no memory and no time.
    """
    import torch

    unknown: dict[str, int | None] = {"weights": None, "width": None}
    defaults = registration.parameters()
    if "required" in defaults.values() or defaults.get("weights") is not None:  # published weights are not fetched here
        return unknown
    try:
        with torch.device("meta"):
            encoder = registration.cls()
        return {"weights": sum(p.numel() for p in encoder.parameters()), "width": encoder.width}
    except Exception:  # a source is missing, an extra, or a constructor looks at numbers
        return unknown


def _format_line(entry: dict[str, Any]) -> str:
    size = "size and width depend on its settings: see --settings"
    if entry["weights"] is not None:
        size = f"{entry['weights']:,} parameters, {entry['width']} features"
    needs = ""
    if entry["missing"]:
        needs = f"; needs {', '.join(entry['missing'])}, not installed: {entry['install']}"
    elif entry["extra"]:
        needs = f"; needs [{entry['extra']}], installed"
    return f"{entry['modality']} {entry['name']}: {entry['summary']}\n    ({size}{needs})"
