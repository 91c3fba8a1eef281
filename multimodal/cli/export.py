"""``multimodal export``: the encoders for other programs."""

from __future__ import annotations

import json
from pathlib import Path

from multimodal.cli.options import folder, model, parser

FORMATS = ("onnx", "torch-export", "open_clip", "sentence-transformers")
DESCRIPTION = """\
Write the encoders, with their heads, for other programs. What was written is loaded again and must make the same vectors
to 1e-4; export.json in the folder says what the inputs are and how raw values become them.

Next to ONNX files it writes an example in Python and JavaScript, from a text or a picture to a vector.

onnx and torch-export take every modality, one file each. open_clip takes a pair of towers of open_clip without heads,
sentence-transformers a text encoder of Hugging Face."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    p.add_argument("--to", required=True, choices=FORMATS, help="the format")
    p.add_argument("--modality", action="append", default=[], help="only this one; may be given several times")
    p.add_argument("--out", type=folder, help="folder to write, replaced if it is an export (default: RUN/FORMAT)")
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)
    p.check_paths(options)

    from multimodal.export.folder import export_model

    out = options.out or Path(options.run) / options.to
    exported = export_model(options.run, options.to, out, options.modality)
    if options.json:
        print(json.dumps({"to": options.to, "out": str(out), "modalities": exported.to_json()}))
        return
    for modality, entry in exported.to_json().items():
        print(f"{modality}: {out / entry['file']} (differs by {entry['max_difference']:.1e} at most)")
