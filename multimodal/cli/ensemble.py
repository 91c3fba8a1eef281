"""``multimodal ensemble``: several trained models as one."""

from __future__ import annotations

from multimodal.cli.options import folder, model, parser

DESCRIPTION = """\
Write one model of several trained ones. Its vectors are theirs, one after the other, and its scores are the means of theirs.
Models that err differently correct each other: runs with other seeds, and more so with other encoders. The folder is used like
a run: evaluate, calibrate, embed, search. It is as slow, and its vectors as wide, as those of all together."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("runs", type=model, nargs="+", metavar="RUN", help="run or model folders, of the same modalities")
    p.add_argument("--out", type=folder, required=True, help="the new folder")
    p.add_argument("--weights", type=float, nargs="+", metavar="W", help="how much each counts (default: all 1)")
    options = p.parse_args(arguments)
    p.check_paths(options)

    from multimodal.experiment.ensemble_runs import ensemble_runs

    print(ensemble_runs(options.runs, options.out, options.weights))
