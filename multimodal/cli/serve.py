"""``multimodal serve``: search over HTTP."""

from __future__ import annotations

from argparse import Namespace

from multimodal.cli.options import TRUSTED_MODULES, folder, index_folder, model, parser, port, whole_number
from multimodal.core.errors import UsageError

FROM_ONE = whole_number("a whole number from 1", 10**18 - 1)
DESCRIPTION = """\
Serve an index over HTTP: /search, /embed, /v1/embeddings in OpenAI's form, /explain, /items, and a page for people at /.
It listens on this machine alone, unless --host names another address. SIGTERM or Ctrl+C stops it.
Without RUN and INDEX, --log_queries DIR --delete_user NAME deletes a user's queries from a log, also while it is written."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("run", type=model, metavar="RUN", nargs="?", help="run or model folder")
    p.add_argument("index", type=index_folder, metavar="INDEX", nargs="?", help="index folder")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    p.add_argument("--port", type=port, default=8000, help="port; 0: a free one (default: 8000)")
    p.add_argument(
        "--allow_host",
        metavar="NAME",
        action="append",
        default=[],
        help="answer requests under this name too, such as that of a proxy; may be repeated (default: on this machine alone,"
        " its own names; with another --host, any)",
    )
    p.add_argument(
        "--token_file",
        metavar="FILE",
        help="file of the token that changes by /items need (default: the variable MULTIMODAL_TOKEN, or no changes)",
    )
    p.add_argument("--max_body", type=FROM_ONE, default=16, metavar="MIB", help="size of a request (default: 16)")
    p.add_argument(
        "--max_waiting",
        type=FROM_ONE,
        default=256,
        metavar="N",
        help="requests that are let in at once; further ones are answered by 429 (default: 256)",
    )
    p.add_argument(
        "--timeout",
        type=FROM_ONE,
        default=30,
        metavar="S",
        help="seconds until a request is given up (default: 30)",
    )
    p.add_argument(
        "--feedback",
        metavar="FILE",
        help="file to which thumbs up and down, clicks and missing rows are appended, as JSON lines (default: the page has no"
        " thumbs)",
    )
    p.add_argument(
        "--log_queries",
        metavar="DIR",
        type=folder,
        help="folder of Parquet files to which vectors and hits of searches are written (default: nothing is kept)",
    )
    p.add_argument("--log_text", action="store_true", help="also write the texts of queries")
    p.add_argument(
        "--keep_days", type=FROM_ONE, metavar="N", help="delete logged queries after N days (default: never)"
    )
    p.add_argument(
        "--delete_user",
        metavar="NAME",
        action="append",
        default=[],
        help="delete the logged queries of this user, and serve nothing; may be repeated",
    )
    p.add_argument(
        "--delete_query",
        metavar="ID",
        action="append",
        default=[],
        help="delete the logged query of this query_id, and serve nothing; may be repeated",
    )
    p.add_argument(
        "--drift_reference",
        metavar="FOLDER",
        help="log of queries, embeddings or index with which the latest 500 queries are compared, for /metrics",
    )
    p.add_argument("--learn", action="store_true", help="rank at once by what is in the file of --feedback")
    p.add_argument(
        "--workers",
        type=whole_number("a number of processes from 1 to 64", 64),
        default=1,
        metavar="N",
        help="processes that answer requests, each with a model of its own and its share of the cores; they share the index"
        " (default: 1)",
    )
    p.add_argument("--open", action="store_true", help="open the page in the browser")
    options = p.parse_args(arguments)
    if options.delete_user or options.delete_query:
        _delete(options)
        return
    if options.index is None:
        p.error("the following arguments are required: " + ("RUN, INDEX" if options.run is None else "INDEX"))
    if options.log_queries is None and (options.log_text or options.keep_days is not None):
        raise UsageError("--log_text and --keep_days are settings of a log: name its folder by --log_queries DIR.")
    if options.learn and options.feedback is None:
        raise UsageError("--learn learns from judgements: name their file by --feedback FILE.")
    p.check_paths(options)

    from multimodal.core.extras import require

    require("serve", "Serving", "fastapi", "uvicorn", "python_multipart", "prometheus_client")

    from multimodal.serve.limits import Limits
    from multimodal.serve.server import serve
    from multimodal.serve.watch import LogSettings

    limits = Limits(max_body=options.max_body * 2**20, max_waiting=options.max_waiting, timeout=options.timeout)
    serve(
        options.run,
        options.index,
        options.host,
        options.port,
        limits,
        options.token_file,
        options.feedback,
        options.open,
        log=LogSettings(options.log_queries, options.log_text, options.keep_days) if options.log_queries else None,
        drift_reference=options.drift_reference,
        learn=options.learn,
        allow_hosts=options.allow_host,
        workers=options.workers,
        trust_modules=TRUSTED_MODULES,
    )


def _delete(options: Namespace) -> None:
    """Delete queries from a log."""
    if options.log_queries is None:
        raise UsageError("--delete_user and --delete_query delete from a log: name its folder by --log_queries DIR.")
    if options.run is not None:
        raise UsageError("--delete_user and --delete_query serve nothing: leave out RUN and INDEX.")

    from multimodal.monitor.query_log import delete_queries

    deleted = delete_queries(options.log_queries, options.delete_query, options.delete_user)
    print(
        f"{deleted:,} rows deleted from {options.log_queries}. If a server writes to it, repeat this in ten seconds, when it"
        " has written its latest searches."
    )
