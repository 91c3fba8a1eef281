"""The program: its help, its exit codes, and its errors in one line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from multimodal.cli import encoders
from multimodal.cli.main import COMMANDS, main
from multimodal.core.errors import MultimodalError, UsageError

OPTIONS = {  # command -> what its help has to name
    "fit": ["--config", "--run", "--ckpt_path", "--seed_everything", "--data.", "--model.", "--trainer."],
    "validate": ["--config", "--run", "--ckpt_path", "--data.", "--model.", "--trainer."],
    "test": ["--config", "--run", "--ckpt_path", "--data.", "--model.", "--trainer."],
    "predict": ["--config", "--run", "--ckpt_path", "--data.", "--model.", "--trainer."],
    "pretrain": ["--config", "--run", "--ckpt_path", "--data.", "--model.", "--trainer."],
    "sweep": [
        *("CONFIG", "--grid", "--out", "--optuna", "--measure", "--split", "--jobs", "--devices", "--json"),
    ],
    "encoders": ["--modality", "--name", "--settings", "--json"],
    "prepare": [
        *("TABLE", "--out", "--columns.MODALITY", "--key", "--group", "--split", "--max_rejects", "--json"),
        *("--format", "--shard_rows", "--shares", "--balance", "--near", "--near_bits", "--seed"),
    ],
    "synthesize": [
        *("TABLE", "RECIPE", "--out", "--template", "--swap", "--vary", "--count", "--train", "--seed", "--json"),
        *("--columns.MODALITY", "--key", "--group", "--split", "--max_rejects", "--near", "--near_bits", "--format"),
    ],
    "mine": ["RUN", "TABLE", "--out", "--count", "--by", "--negatives", "--ratio", "--skip", "--index", "--json"],
    "evaluate": ["RUN", "--data", "--split", "--out", "--json"],
    "calibrate": ["RUN", "--data", "--split", "--pool", "--close_gap", "--out", "--key", "--json"],
    "faults": ["RUN", "--out"],
    "ensemble": ["RUN", "--out", "--weights"],
    "compare": ["RUN", "--baseline", "--data", "--split", "--pool", "--out", "--columns.MODALITY", "--json"],
    "explain": ["RUN", "--text", "--image", "--graph", "--MODALITY", "--out", "--json"],
    "classify": ["RUN", "TABLE", "--target", "--label", "--split", "--out", "--key", "--json"],
    "embed": [
        "RUN",
        "TABLE",
        "--split",
        "--out",
        "--processes",
        "--dtype",
        "--precision",
        "--metadata",
        "--ray",
        "--json",
    ],
    "export": ["RUN", "--to", "onnx", "--modality", "--out", "--json"],
    "index": ["EMBEDDINGS", "--out", "--engine", "--quantization", "--dim", "--reduction", "--json"],
    "serve": [
        "RUN",
        "INDEX",
        "--host",
        "--port",
        "--token_file",
        "--max_body",
        "--max_waiting",
        "--timeout",
        "--feedback",
        "--learn",
        *("--log_queries", "--log_text", "--keep_days", "--delete_user", "--delete_query", "--drift_reference"),
        "--open",
    ],
    "verify": ["PATH", "--json"],
    "refine": [
        *(
            "RUN",
            "FEEDBACK",
            "--index",
            "--out",
            "--canaries",
            "--steps",
            "--rate",
            "--replay",
            "--tolerance",
            "--seed",
        ),
        "--json",
    ],
    "drift": [
        *("REFERENCE", "CURRENT", "--model", "--where", "--alpha", "--max_rows", "--seed", "--out", "--fail", "--json"),
    ],
    "canary": ["RUN", "INDEX", "FILE", "--allow", "--json"],
    "upgrade": [
        "INDEX",
        "NEWRUN",
        "TABLE",
        "--rollback",
        "--processes",
        "--canaries",
        "--allow",
        "--map",
        "--old",
        "--min_recall",
        "--anchors",
        "--json",
    ],
    "search": [
        *(
            "RUN",
            "INDEX",
            "--text",
            "--image",
            "--graph",
            "--MODALITY",
            "-k",
            "--target",
            "--where",
            "--like",
            "--unlike",
        ),
        *("--weight", "--min_precision", "--hybrid", "--exact", "--json"),
    ],
    "gallery": [
        *("RUN", "INDEX", "QUERIES", "--out", "--title", "-k", "--target", "--where", "--min_precision", "--hybrid"),
    ],
}


# -- help


def test_every_command_has_its_options_listed_here() -> None:
    assert set(OPTIONS) == set(COMMANDS)


@pytest.mark.parametrize("command", OPTIONS)
@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_the_help_of_a_command_names_its_options(command: str, asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, asked]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"usage: multimodal {command}")
    assert [option for option in [*OPTIONS[command], "--debug"] if option not in printed.out] == []
    assert printed.err == ""


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_the_help_of_the_program_names_every_command(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([asked]) == 0
    words = capsys.readouterr().out.split()
    assert [command for command in COMMANDS if command not in words] == []


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"multimodal {version('multimodal')}\n"


def test_python_runs_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "multimodal", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"multimodal {version('multimodal')}\n")


def test_python_runs_the_package_where_a_folder_is_called_encoders(tmp_path: Path) -> None:
    (tmp_path / "encoders").mkdir()
    command = [sys.executable, "-m", "multimodal", "encoders", "--modality", "text", "--json"]
    listed = [
        subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        for folder in (tmp_path, tmp_path / "encoders")
    ]
    assert [(done.returncode, done.stderr) for done in listed] == [(0, "")] * 2
    assert listed[0].stdout == listed[1].stdout
    assert "transformer" in listed[0].stdout


def in_a_new_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["evaluate", "embed", "search", "export"])
def test_every_command_on_a_model_calls_it_a_run_or_model_folder(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert "run or model folder" in capsys.readouterr().out


def test_the_help_of_prepare_says_what_to_do_with_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "is then the table for `multimodal fit`: --data.table FOLDER --data.split split." in shown
    assert "--near SIMILARITY" in shown


def test_help_answers_without_importing_torch() -> None:
    done = in_a_new_process(
        "import sys\n"
        "from multimodal.cli.main import COMMANDS, main\n"
        "codes = [main(['--help']), *(main([command, '--help']) for command in COMMANDS)]\n"
        "print(codes == [0] * len(codes), {'torch', 'lightning', 'numpy'} & set(sys.modules), file=sys.stderr)\n"
    )
    assert (done.returncode, done.stderr) == (0, "True set()\n")


def test_importing_the_package_imports_neither_torch_nor_numpy() -> None:
    done = in_a_new_process(
        "import sys, multimodal\n"
        "print(multimodal.__version__, {'torch', 'numpy', 'lightning', 'pyarrow'} & set(sys.modules))\n"
    )
    assert (done.stdout, done.stderr) == (f"{version('multimodal')} set()\n", "")


def test_the_names_that_the_package_offers_are_there() -> None:
    import multimodal

    assert [name for name in multimodal.__all__ if not hasattr(multimodal, name)] == []
    with pytest.raises(AttributeError, match="attribute Embeder"):
        _ = multimodal.Embeder  # pyright: ignore[reportAttributeAccessIssue]


# -- failures


@pytest.fixture(scope="module")
def places(run: Path, index: Path, embeddings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the failures are about, by the names in their arguments."""
    tmp = tmp_path_factory.mktemp("places")
    (tmp / "half").mkdir()
    shutil.copy(run / "config.yaml", tmp / "half")
    (tmp / "empty").mkdir()
    (tmp / "thesis").mkdir()
    (tmp / "thesis" / "chapter.txt").write_text("dear")
    shutil.copytree(index, tmp / "damaged")
    vectors = tmp / "damaged" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-100])
    shutil.copytree(index, tmp / "others")
    description = json.loads((index / "index.json").read_text())
    del description["digest"]
    (tmp / "others" / "index.json").write_text(json.dumps(description | {"fingerprint": "0" * 64}))
    (tmp / "broken.yaml").write_text("data: [")
    shutil.copytree(embeddings, tmp / "part")
    (tmp / "part" / "part-00000.parquet").unlink()
    return {"tmp": tmp, "run": run, "index": index, "embeddings": embeddings}


# the arguments, the exit code, and a word of what is said
FAILURES = [
    ("serch {run} {index}", 2, "no command 'serch'. Did you mean 'search' or 'serve'?"),
    ("encoders --modality imag", 2, "for 'imag'. Did you mean 'image'?"),
    ("encoders --settings x", 2, "choose it with --modality and --name from: audio huggingface,"),
    ("encoders --modality text --name bag --settings [", 2, "--settings '[' is not YAML"),
    ("encoders --modality text --name bag --settings 3", 2, "write it as '{arch: ViT-B-32}'"),
    ("encoders --modality text --name bag --settings widht:", 2, "no parameter 'widht'. Did you mean 'width'?"),
    ("encoders --modality graph --name molecul", 2, "as 'molecul'. Did you mean 'molecule' or 'molecule_svd'?"),
    ("evaluate {run} --split tests", 2, "no split 'tests'"),
    ("evaluate {run} --data glyph", 2, "no table 'glyph': no file or folder of that name. Did you mean 'glyphs'?"),
    ("evaluate {run} --data {tmp}/broken.yaml", 1, "broken.yaml"),
    ("evaluate {run}/model", 1, "run/model has no config.yaml"),
    ("evaluate {tmp}/nowhere", 1, "nowhere does not exist"),
    ("evaluate {run} --data {tmp}/nowhere.csv", 2, "There is no table"),
    ("upgrade {tmp}/nowhere {run}", 1, "nowhere is not an index"),
    ("compare {run} {tmp}/nowhere", 1, "nowhere does not exist; give a run folder"),
    ("evaluate {tmp}/empty", 1, "empty contains no model"),
    ("evaluate {tmp}/half", 1, "half is a run without a model"),
    ("embed {tmp}/half --out {tmp}/out", 1, "half is a run without a model"),
    ("embed {tmp}/nowhere --out {tmp}/out", 1, "nowhere does not exist"),
    ("embed {run} --split test --out {tmp}/out", 2, "no split 'test'"),
    ("embed {run} glyph --out {tmp}/out", 2, "no table 'glyph'"),
    ("verify {tmp}/nowhere", 1, "nowhere does not exist"),
    ("verify {tmp}/thesis", 1, "thesis holds nothing that has digests"),
    ("index {tmp}/nowhere --out {tmp}/out", 1, "nowhere holds no embeddings"),
    ("index {tmp}/part --out {tmp}/out", 1, "part-00000.parquet is missing"),
    ("index {embeddings} --out {tmp}/thesis", 1, "thesis is not empty and holds no index.json"),
    ("search {tmp}/half {index} --text a", 1, "half is a run without a model"),
    ("search {tmp}/nowhere {index} --text a", 1, "nowhere does not exist"),
    ("search {run} {tmp}/nowhere --text a", 1, "nowhere is not an index"),
    ("search https://host/run {index} --text a", 1, "https://host/run is an address, which is not fetched"),
    (
        "search {run} s3://host/index --text a",
        1,
        "s3://host/index is an address, which is not fetched; download the folder",
    ),
    ("index https://host/vectors --out {tmp}/out", 1, "https://host/vectors is an address"),
    ("verify https://host/model", 1, "https://host/model is an address"),
    ("search {run} {tmp}/damaged --text a", 1, "damaged is damaged"),
    ("search {run} {tmp}/others --text a", 1, "made with another model (000000000000)"),
    ("search {run} {index} --sound a.wav", 2, "no modality 'sound'"),
    ("search {run} {index} --sound=a.wav", 2, "no modality 'sound'"),
    ("search {run} {index} --text a --target pictures", 2, "no 'pictures' vectors"),
    ("search {run} {index} --text a -k 0", 2, "k must be at least 1"),
    ("search {run} {index} --text a --k 0", 2, "k must be at least 1"),
    ("search {run} {index} --targ=a", 2, "no modality 'targ'"),
    ("search {run} {index} --run a", 2, "no modality 'run'"),
    ("search {run} {index} --text=", 1, "the text is empty"),
    ("search {run} {index} --image {tmp}/thesis/chapter.txt", 1, "chapter.txt is not an image"),
    ("search {run} {index} --image {tmp}/nowhere.png", 1, "multimodal search: image: the picture "),
    (
        "search {run} {index} --image https://host/a.png",
        1,
        "multimodal search: image: https://host/a.png is an address",
    ),
    ("search {run} {index} --image {tmp}/empty", 1, "empty"),
    ("search {run} {index} --graph {tmp}/thesis/chapter.txt", 1, "chapter.txt is not JSON"),
    ("search {run} {index} --graph {tmp}/nowhere.json", 1, "nowhere.json does not exist"),
    ("search --sound a.wav {run} {index}", 2, "no modality 'sound'"),  # it may stand anywhere
    ("embed {run} --split validation --out {tmp}/thesis", 1, "thesis is not empty and holds no embeddings"),
    ("evaluate {run} --split validation --out {tmp}/thesis/chapter.txt", 2, "chapter.txt is a file, not a folder"),
    ("embed {run} --split validation --out {tmp}/thesis/chapter.txt", 2, "chapter.txt is a file, not a folder"),
    ("index {embeddings} --out {tmp}/thesis/chapter.txt", 2, "chapter.txt is a file, not a folder"),
    *(
        (f"{command} --out {{tmp}}/thesis/chapter.txt/out", 2, "chapter.txt is a file")
        for command in ("evaluate {run} --split validation", "embed {run} --split validation", "index {embeddings}")
    ),
]


@pytest.mark.parametrize(("arguments", "code", "said"), FAILURES)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["", "json"])
def test_a_failure_is_one_line_on_standard_error_and_an_exit_code(
    arguments: str,
    code: int,
    said: str,
    form: tuple[str, ...],
    places: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.format(**places) for word in arguments.split()]
    assert main([*words, *form]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert said in line
    assert line.startswith(f"multimodal {words[0]}: " if words[0] in COMMANDS else "multimodal: ")
    assert not (places["tmp"] / "out").exists()


AT_ONCE = [  # without the seconds that torch and Lightning take to import
    ("fit --config nowhere.yaml", "--config nowhere.yaml: the file does not exist."),
    ("validate --config=nowhere.yaml", "--config nowhere.yaml: the file does not exist."),
    ("pretrain -c nowhere.yaml", "--config nowhere.yaml: the file does not exist."),
    ("fit --confg x.yaml", "fit has no option --confg. Did you mean 'config'"),
    ("predict --modle.dim 3", "predict has no option --modle.dim. Did you mean 'model'"),
    ("evaluate nowhere", "nowhere does not exist; give a run folder or an exported model folder."),
    ("compare nowhere x", "nowhere does not exist"),
    ("serve nowhere x", "nowhere does not exist"),
    ("serve x y --port 99999", "argument --port: '99999' is not a port: give a number from 0 (a free one) to 65535"),
    ("serve x y --port -1", "argument --port: '-1' is not a port"),
    ("prepare nowhere.csv --out y", "There is no table 'nowhere.csv': no file or folder of that name."),
    (
        "prepare shop.csv --out y",
        "There is no table 'shop.csv': no file or folder of that name. Did you mean 'shops.csv'?",
    ),
]


@pytest.mark.parametrize("command", ["evaluate {0}/cups", "search {0} {0}/cups --text a"])
def test_what_a_killed_process_left_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = tmp_path / ".cups.old-k3_x9abc" / "cups"
    lost.mkdir(parents=True)
    assert main(command.format(tmp_path).split()) == 1
    assert f"while it replaced it: move {lost} to {tmp_path / 'cups'}." in capsys.readouterr().err


def test_what_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "shops.csv").touch()
    commands = [arguments.split() for arguments, _ in AT_ONCE]
    code = "import json, sys\nfrom multimodal.cli.main import main\n"
    code += f"codes = [main(arguments) for arguments in {commands!r}]\n"
    code += "print(json.dumps([codes, [name for name in ('torch', 'lightning', 'uvicorn') if name in sys.modules]]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    codes, imported = json.loads(done.stdout)
    assert imported == []
    for line, (arguments, said) in zip(done.stderr.splitlines(), AT_ONCE, strict=True):
        assert line.startswith(f"multimodal {arguments.split()[0]}: {said}"), line
    assert set(codes) == {1, 2}


WRONG_USAGE = [  # found by the parser
    *((f"{command} --no_such_option", "--no_such_option") for command in ("encoders", "evaluate x", "index x --out y")),
    ("embed x --out y --no_such_option", "--no_such_option"),
    ("search x y --text a --no_such_option", "--no_such_option"),
    ("search x y --text a more", "more"),
    ("prepare x", "--out"),
    ("prepare x --out y --shares train", "'train' is not SPLIT=FRACTION"),
    ("prepare x --out y --format csv", "csv"),
    ("prepare x --out y --columns.text", "--columns.text takes the name of a column"),
    ("prepare x --out y --columns.text --json", "--columns.text takes the name of a column"),
    ("prepare x --out y --columns.a-b c", "'a-b' is not the name of a modality"),
    (
        "prepare glyphs --out y --near 7",
        "near must be a similarity from 0.3 (some words in common) to 1 (all of them), or off; got 7.0",
    ),
    ("prepare nowhere.csv --out y", "no table 'nowhere.csv'"),
    ("evaluate", "RUN"),
    ("serve", "required: RUN, INDEX"),
    ("serve x", "required: INDEX"),
    ("serve --delete_user ann", "name its folder by --log_queries DIR"),
    ("serve x y --log_queries z --delete_query q1", "leave out RUN and INDEX"),
    ("embed x", "--out"),
    ("index x", "--out"),
    ("search x", "INDEX"),
    ("search x y", "give a query, by --text"),
    ("search x y --text a --text b", "each modality takes one value"),
    ("search x y --text a --where shelf", "a condition is COLUMN=VALUE"),
    ("search x y --text a --weight text", "a weight is MODALITY=NUMBER"),
    ("search x y --sound", "--sound"),
    ("search x y --text", "--text"),
    ("search x y --text --json", "--text takes a value"),
    ("search x y --text a -k many", "many"),
    ("search x y --text a --k many", "many"),
    ("search x y --text a --targ image", "write --targ in full: --target. A modality of this name takes --targ=VALUE"),
    ("search --js x y --text a", "write --js in full: --json"),
    ("evaluate x --spl train", "--spl"),  # no abbreviations
]


@pytest.mark.parametrize(("arguments", "said"), WRONG_USAGE)
def test_wrong_usage_is_reported_on_standard_error_with_exit_code_2(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"multimodal {arguments.split()[0]}: ")
    assert said in line


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: multimodal COMMAND")
    assert [command for command in COMMANDS if command not in printed.err.split()] == []


def test_the_arguments_are_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["multimodal", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("multimodal ")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MultimodalError("row 3\n  is  empty."), 1, "row 3 is empty."),
        (UsageError("no such thing."), 2, "no such thing."),
        (ZeroDivisionError("by\nzero"), 1, "ZeroDivisionError: by zero (--debug shows where)"),
        (KeyboardInterrupt(), 1, "interrupted."),
        (
            OSError(28, "No space left on device"),
            1,
            "The disk is full; free some space, or name a folder on another disk.",
        ),
        (IsADirectoryError(21, "Is a directory", "a.csv"), 1, "a.csv: it is a folder, not a file."),
    ],
)
def test_any_error_of_a_command_is_one_line_and_debug_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def run(command: str, arguments: list[str]) -> None:
        assert "--debug" not in arguments
        raise error

    monkeypatch.setattr(encoders, "run", run)
    assert main(["encoders"]) == code
    assert capsys.readouterr() == ("", f"multimodal encoders: {said}\n")

    assert main(["encoders", "--debug"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Traceback (most recent call last):")
    assert "in run" in printed.err
    assert printed.err.endswith(f"multimodal encoders: {said}\n")


def test_output_that_nobody_reads_to_its_end_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    errors = io.StringIO()

    def run(command: str, arguments: list[str]) -> None:
        print("a line" * 10_000, flush=True)

    monkeypatch.setattr(encoders, "run", run)
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", errors)
        assert main(["encoders"]) == 1
        monkeypatch.undo()
    assert errors.getvalue() == ""


def test_a_working_folder_that_was_removed_is_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["encoders"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("multimodal encoders: ")
    assert "the working folder was removed" in line
