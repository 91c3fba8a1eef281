"""``multimodal encoders``: what is registered, with its parameters."""

from __future__ import annotations

import json

from multimodal.cli.main import parser


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, "List the registered encoders with the parameters of their constructors.")
    p.add_argument("--modality", help="only those of one modality")
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)

    from multimodal.core.errors import UsageError, suggest
    from multimodal.core.registry import registrations

    found = registrations(options.modality)
    if not found:
        modalities = sorted({r.modality for r in registrations()})
        raise UsageError(f"No encoder is registered for {options.modality!r}.{suggest(options.modality, modalities)}")
    if options.json:
        print(json.dumps([
            {"modality": r.modality, "name": r.name, "class": r.class_path, "extra": r.extra, "parameters": r.parameters()}
            for r in found
        ], indent=1))  # fmt: skip
        return
    for r in found:
        needs = f"  (needs multimodal[{r.extra}])" if r.extra else ""
        print(f"{r.modality} {r.name}: {r.summary}{needs}")
        for name, default in r.parameters().items():
            print(f"    {name} = {json.dumps(default)}")
