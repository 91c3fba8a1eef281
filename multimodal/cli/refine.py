"""``multimodal refine``: train a run on by what people judged, and accept the result only if it holds."""

from __future__ import annotations

import json

from multimodal.cli.options import folder, fraction, index_folder, model, parser

DESCRIPTION = """\
Train a run's model on by feedback (the file of `multimodal serve --feedback FILE`), and write the new run if its model is
better on held-out judged queries, and not worse on the run's test split and on canaries. Otherwise nothing is written, and the
exit code is 3. The run and the index are only read. The same command continues after a kill."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("run", type=model, metavar="RUN", help="run folder")
    p.add_argument("feedback", metavar="FEEDBACK", help="file of judgements, as JSON lines")
    p.add_argument(
        "--index",
        type=index_folder,
        metavar="INDEX",
        required=True,
        help="index that was judged, of this model",
    )
    p.add_argument("--out", metavar="NEWRUN", type=folder, required=True, help="folder of the new run")
    p.add_argument("--canaries", metavar="FILE", help="table of queries whose hits are known, see `multimodal canary`")
    p.add_argument("--steps", type=int, default=100, metavar="N", help="training steps (default: 100)")
    p.add_argument("--rate", type=float, default=0.1, help="factor of the run's learning rate (default: 0.1)")
    p.add_argument(
        "--replay",
        type=fraction,
        default=0.75,
        metavar="FRACTION",
        help="fraction of the training rows that are rows of the run's training split (default: 0.75)",
    )
    p.add_argument(
        "--tolerance",
        type=fraction,
        default=0.02,
        metavar="FRACTION",
        help="how much below 0 the 95 %% interval of a measure that must not get worse may reach (default: 0.02)",
    )
    p.add_argument("--seed", type=int, default=0, help="of the draws and the training (default: 0)")
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)
    p.check_paths(options)

    from multimodal.monitor.refine import RefineSettings, Refused, refine

    settings = RefineSettings(
        options.steps, options.rate, options.replay, tolerance=options.tolerance, seed=options.seed
    )
    result = refine(
        options.run, options.feedback, options.index, options.out, canaries=options.canaries, settings=settings
    )
    print(json.dumps(result.to_json(), indent=1) if options.json else result)
    if not result.accepted:
        names = ", ".join(criterion.name for criterion in result.failed)
        raise Refused(f"the refined model is not accepted ({names}); {options.run} is kept.")
