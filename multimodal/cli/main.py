"""The program ``multimodal``: one thin module a command, imported when it is called."""

from __future__ import annotations

import os
import select
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module

from multimodal import __version__
from multimodal.cli.options import TRUSTED_MODULES
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.system_errors import system_fault

TRUST = "--trust_module"  # of every command, as --debug

# command -> (module, one line of help)
COMMANDS = {
    "fit": ("multimodal.cli.fit", "train a model, from a YAML file"),
    "validate": ("multimodal.cli.fit", "run the validation of a checkpoint"),
    "test": ("multimodal.cli.fit", "run the test of a checkpoint"),
    "predict": ("multimodal.cli.fit", "embed all samples with a checkpoint"),
    "pretrain": ("multimodal.cli.fit", "train a text encoder on texts alone, from a YAML file"),
    "sweep": ("multimodal.cli.sweep", "train with each combination of settings, and compare the results"),
    "encoders": ("multimodal.cli.encoders", "list the registered encoders and their parameters"),
    "prepare": ("multimodal.cli.prepare", "clean, de-duplicate and split a table, with a report"),
    "synthesize": ("multimodal.cli.synthesize", "add captions, hard negatives and variants made from a table's rows"),
    "evaluate": ("multimodal.cli.evaluate", "measure retrieval between all pairs of modalities"),
    "calibrate": ("multimodal.cli.calibrate", "measure what scores mean, for searches with a wanted precision"),
    "ensemble": ("multimodal.cli.ensemble", "make one model of several trained ones"),
    "compare": ("multimodal.cli.compare", "put runs side by side on the same queries, and test which differences hold"),
    "explain": ("multimodal.cli.explain", "say which parts of two values make them match"),
    "faults": ("multimodal.cli.faults", "find wrong pairs and doubled rows, as a table to approve"),
    "mine": ("multimodal.cli.mine", "list rows worth pairing next, or find hard negatives"),
    "classify": ("multimodal.cli.classify", "predict a target of a table's rows by a trained head"),
    "embed": ("multimodal.cli.embed", "embed a table in bulk"),
    "index": ("multimodal.cli.index", "build a search index from embeddings"),
    "export": ("multimodal.cli.export", "write the encoders for ONNX, torch.export, open_clip, sentence-transformers"),
    "search": ("multimodal.cli.search", "search an index with a text, a picture, ..."),
    "serve": ("multimodal.cli.serve", "search an index over HTTP, and on a page"),
    "drift": ("multimodal.cli.drift", "find out whether two sets of embeddings differ by more than chance"),
    "canary": ("multimodal.cli.canary", "check that known queries still find their known hits"),
    "refine": ("multimodal.cli.refine", "train a run on by what people judged, and accept it only if it is better"),
    "upgrade": ("multimodal.cli.upgrade", "put a new model in the place of an index's old one, without downtime"),
    "gallery": ("multimodal.cli.gallery", "write the hits of queries as one page"),
    "verify": ("multimodal.cli.verify", "find damaged files of a run, a model, an index, ..."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 the work failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments:
        print(_overview(), file=sys.stderr)
        return 2
    if arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"multimodal {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        return _fail("multimodal", UsageError(f"there is no command {command!r}.{suggest(command, list(COMMANDS))}"))
    debug = "--debug" in rest
    # torchvision and torch-geometric compile as they are imported
    warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated", category=FutureWarning)
    # Where other work keeps cores busy, OpenMP threads that spin for long make every step wait; read as torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Each shape of a batch of texts or graphs has kernels of its own: thousands of them would be kept for nothing.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    try:
        if (
            working_folder := _working_folder()
        ) not in sys.path:  # a class path may name a module of the user's project
            sys.path.append(working_folder)
        rest = _import_trusted([a for a in rest if a != "--debug"])
        import_module(COMMANDS[command][0]).run(command, rest)
    except SystemExit as stop:  # argparse has printed its help
        return stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and _stdout_closed():  # as `multimodal encoders | head` does
            return 1
        if debug:
            traceback.print_exc()
        return _fail(f"multimodal {command}", error)
    return 0


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise MultimodalError("the working folder was removed; change to another one.") from error


def _import_trusted(arguments: Sequence[str]) -> list[str]:
    """Import the modules that ``--trust_module NAME`` names, and return the other arguments."""
    others = []
    TRUSTED_MODULES.clear()
    given = iter(arguments)
    for argument in given:
        option, _, name = argument.partition("=")
        if option != TRUST:
            others.append(argument)
        elif name := name or next(given, ""):
            try:
                import_module(name)
            except (ImportError, ValueError, TypeError) as error:
                raise UsageError(f"{TRUST} {name}: cannot be imported ({error}).") from error
            TRUSTED_MODULES.append(name)
        else:
            raise UsageError(f"{TRUST} needs the name of a module.")
    return others


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: multimodal COMMAND [options]",
            "",
            "One vector space for every form a thing comes in: train, evaluate and search multimodal embeddings.",
            "",
            *lines,
            "",
            "`multimodal COMMAND --help` says more. `multimodal --version` prints the version.",
        ]
    )


def _stdout_closed() -> bool:
    """Whether the reader of standard output has ended; the rest of the output is then discarded."""
    try:
        output = sys.stdout.fileno()
        watch = select.poll()
    except (AttributeError, OSError):  # it is not a file, or the system has no poll
        return False
    watch.register(output, 0)  # errors are reported without being asked for
    if not watch.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _fail(program: str, error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        message = "interrupted."
    elif isinstance(error, MultimodalError):
        # one from a data worker comes with that process's traceback, which ends with it
        message = str(error).rpartition(f"{type(error).__name__}: ")[2]
    elif (fault := system_fault(error)) is not None:
        message = str(fault)
    else:  # a defect of ours, or of a library
        message = f"{type(error).__name__}: {error} (--debug shows where)"
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return getattr(error, "exit_code", 2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    sys.exit(main())
