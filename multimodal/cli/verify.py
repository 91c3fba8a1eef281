"""``multimodal verify``: are the files what was written?"""

from __future__ import annotations

import json
from pathlib import Path

from multimodal.cli.options import parser
from multimodal.core.errors import MultimodalError

DESCRIPTION = """\
Compare the files of a run, a model, an index, embeddings, a prepared table or an export with the digests that were written
with them, and checkpoints with their checksums. Every byte is read, 1 to 2 GB a second. The exit code is 1 if a file is
damaged or missing."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="a folder, or a checkpoint")
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)

    from multimodal.core.verify import verify_files

    files = list(
        dict.fromkeys(file for path in options.paths for file in verify_files(path))
    )  # a folder and a file in it
    damaged = [file for file in files if file.damage is not None]
    if options.json:
        print(json.dumps([{**vars(file), "path": str(file.path)} for file in files], indent=1))
    else:
        for file in files:
            print(file)
    if damaged:
        names = f"{damaged[0].path}" + (f" and {len(damaged) - 1:,} more" if len(damaged) > 1 else "")
        raise MultimodalError(f"{len(damaged):,} of {len(files):,} files are damaged or missing: {names}.")
