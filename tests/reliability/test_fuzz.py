"""Random changes of valid model folders and configurations: each ends in one clear error or in an object.

Meanwhile no command runs, no connection is opened, no file elsewhere is written, and nothing is called that is not of the kind
that belongs there. ``MULTIMODAL_FUZZ_SECONDS`` is the CPU time of each of the two tests (10; an hour in all: 1800), and
``MULTIMODAL_FUZZ_SEED`` the first seed; a failure names the seed and the changes of its trial.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from audit import PLANTED, watched

from multimodal import Embedder, create, load_config
from multimodal.core.errors import MultimodalError
from multimodal.core.lora import LoRA

SECONDS = float(os.environ.get("MULTIMODAL_FUZZ_SECONDS", "10"))
FIRST_SEED = int(os.environ.get("MULTIMODAL_FUZZ_SEED", "0"))
MAX_TRIAL_SECONDS = 20.0  # of CPU time
MAX_MESSAGE = 5000  # characters
MAX_GROWTH_MB = 1500  # of the process, by one trial
DEEP = "@deep@"  # becomes a list nested 100,000 times, which Python could not write
MODULE = f"{PLANTED}_module"
PLANTED_SOURCE = f"""
import sys
sys.audit("{PLANTED}.import")
def run(*args, **kwargs):
    sys.audit("{PLANTED}.call", "run")
class Thing:
    def __init__(self, *args, **kwargs):
        sys.audit("{PLANTED}.call", "Thing")
    def __new__(cls, *args, **kwargs):
        sys.audit("{PLANTED}.call", "Thing.__new__")
        return super().__new__(cls)
"""
CALLABLES = [
    "os.system", "subprocess.Popen", "subprocess.run", "runpy.run_path", "builtins.eval", "builtins.exec", "builtins.open",
    "shutil.rmtree", "os.remove", "importlib.import_module", "pathlib.Path", "torch.load", "torch.hub.load", "pickle.loads",
    "webbrowser.open", f"{MODULE}.run", f"{MODULE}.Thing", f"{PLANTED}_other.Thing", "torch.nn.Linear", "socket.socket",
    "multimodal.core.encoder.Encoder", "..", ".evil", "a b", "text.transformer", "image.timm", "text.huggingface",
]  # fmt: skip
STRINGS = [
    *CALLABLES, "", "x", "none", "mlp", "../../../etc/passwd", "/etc/passwd", "~/x", "\0", "a" * 100_000, "{0.__class__}",
    "owner/name", "hf-hub:owner/name", "local-dir:/etc", "https://127.0.0.1:9/x", "file:///etc/passwd", "default", "\ud800",
    "!!python/object/apply:os.system [id]", "${oc.env:HOME}", DEEP,
]  # fmt: skip
NUMBERS = [0, -1, 1, 2, 7, 2**16, 2**20, 2**31, 2**63, 10**9, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")]
OTHERS = [None, True, False, [], {}, [1, 2], [[]], {"a": 1}, {"class_path": f"{MODULE}.Thing"}]
ADDED = [
    "weights", "config", "class", "class_path", "init_args", "name", "path", "shares", "lora", "head", "pretrained", "auto_map",
    "checkpoint_path", "_target_", "__class__", "model_type", "num_hidden_layers", "backbone", "attn_implementation", "dim",
]  # fmt: skip


def value_of(rng: random.Random, large: bool) -> Any:
    value: Any = rng.choice(rng.choice([STRINGS, CALLABLES, NUMBERS, OTHERS]))
    if not large and value in NUMBERS and 256 < value < 2**60:
        return 256
    return copy.deepcopy(value)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a tree with each of its keys."""
    for key in range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, dict) else ():
        yield tree, key
        yield from places(tree[key])


def change(tree: Any, rng: random.Random, large: bool = True) -> str:
    """Change a tree in one place, and return what was done.

    Args:
        tree: JSON values.
        rng: chooses the place and the change.
        large: also numbers that would ask for gigabytes: in a configuration, a model of that size is what its user wants.
    """
    found = list(places(tree))
    if not found:
        return "nothing"
    # names and settings are as likely as the entries of a long vocabulary
    short = [(inside, key) for inside, key in found if len(inside) < 40]
    inside, key = rng.choice(short or found)
    old = inside[key]
    action = rng.choice(["replace", "replace", "replace", "remove", "add", "swap", "scale", "wrap"])
    if action == "remove":
        del inside[key]
    elif action == "add" and isinstance(inside, dict):
        key = rng.choice(ADDED)
        inside[key] = value_of(rng, large)
    elif action == "swap":
        other, place = rng.choice(short or found)
        inside[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(old)
    elif action == "scale" and isinstance(old, int | float):
        inside[key] = old * rng.choice([-1, 2, 1000, 2**20] if large else [-1, 2, 10])
    elif action == "wrap":
        inside[key] = rng.choice([[old], {"value": old}, str(old)[:1000]])
    else:
        inside[key] = value_of(rng, large)
    return f"{action} {str(key)[:40]!r}: {str(old)[:60]!r} -> {str(inside[key] if action != 'remove' else '')[:60]!r}"


def cut_or_flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.3 else changed)


class Trials:
    """Runs trials until the CPU time is over, and counts how they end."""

    def __init__(self, folder: Path, imports: bool) -> None:
        self.folder, self.imports, self.ends = folder, imports, Counter[str]()

    def run(self, trial: Callable[[random.Random], tuple[str, Callable[[], object]]]) -> None:
        """Run trials.

        Args:
            trial: prepares one, and returns what it changed and what then to do.
        """
        start, seed = time.process_time(), FIRST_SEED
        faults: dict[str, str] = {}  # the first of each kind
        while time.process_time() - start < SECONDS:
            changes, act = trial(random.Random(seed))
            if fault := self.one(act):
                kind, said = fault
                faults.setdefault(kind, f"seed {seed}: {changes}: {said}")
                self.ends[f"fault {kind}"] += 1
            seed += 1
        print(f"\n{sum(self.ends.values()):,} trials: {dict(self.ends.most_common())}")
        assert not faults, "\n".join(faults.values())

    def one(self, act: Callable[[], object]) -> tuple[str, str] | None:
        """Run a trial; return what is wrong with it, as its kind and a sentence."""
        memory, start = peak_mb(), time.process_time()
        end = "object"
        with watched(self.folder, imports=self.imports) as seen, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                act()
            except MultimodalError as error:
                end = type(error).__name__
                if not 0 < len(str(error).strip()) < MAX_MESSAGE:
                    return "message", f"{len(str(error)):,} characters: {str(error)[:300]}"
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
                return where, f"{where}: {str(error)[:300]}"
        seconds, growth = time.process_time() - start, peak_mb() - memory
        if seen:
            return f"event {seen[0].partition(' ')[0]}", str(seen[:3])
        if seconds > MAX_TRIAL_SECONDS or growth > MAX_GROWTH_MB:
            return "bounds", f"{seconds:.0f} s, {growth:.0f} MB, {end}"
        self.ends[end] += 1
        return None


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules that Python finds, also in the working directory; return the folder in which files may be written."""
    import tempfile

    for folder in ("modules", "work", "work/allowed"):
        (tmp_path / folder).mkdir()
    for folder in ("modules", "work"):
        for name in (MODULE, f"{PLANTED}_other"):
            (tmp_path / folder / f"{name}.py").write_text(PLANTED_SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "work" / "allowed" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "work" / "allowed"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path / "work" / "allowed"


def models(folder: Path) -> list[Path]:
    """Small models of different encoders."""
    texts = ["a red cup", "a blue jug", "a red jug"] * 2
    text = create("text", "transformer", width=8, layers=1, heads=2, vocab_size=40, max_length=8)
    bag = create("text", "bag", width=8, vocab_size=40)
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 40,
    }
    bert = create("text", "huggingface", config={"model_type": "bert", **sizes}, max_length=8)
    image = create("image", "small_cnn", size=16)
    made = [
        Embedder({"text": text, "image": image}, 8, {"text": "mlp"}, {"text": LoRA(rank=2, targets=r".*\.linear1")}),
        Embedder({"text": bag, "words": bag}, 8),
        Embedder({"text": bert}, 8),
        Embedder({"image": create("image", "timm", arch="test_resnet")}, 8),
    ]
    for number, embedder in enumerate(made):
        embedder.fit_processors({m: texts for m in embedder.modalities if m in ("text", "words")})
        embedder.save_pretrained(folder / str(number))
    return [folder / str(number) for number in range(len(made))]


def test_a_changed_model_folder_ends_in_an_error_or_a_model(planted: Path, tmp_path: Path) -> None:
    originals = models(tmp_path / "models")
    copied = planted / "model"
    descriptions = [json.loads((model / "embedder.json").read_text(encoding="utf-8")) for model in originals]
    for description in descriptions:
        del description["digest"]  # it would end every trial before its changes are looked at

    def trial(rng: random.Random) -> tuple[str, Callable[[], object]]:
        number = rng.randrange(len(originals))
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(originals[number], copied)
        if rng.random() < 0.1:
            file = rng.choice(["embedder.json", "model.safetensors"])
            (copied / file).write_bytes(cut_or_flip((copied / file).read_bytes(), rng))
            return f"model {number}: bytes of {file}", load
        description = copy.deepcopy(descriptions[number])
        changes = [change(description, rng) for _ in range(rng.randint(1, 3))]
        text = json.dumps(description).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)
        (copied / "embedder.json").write_text(text, encoding="utf-8")
        return f"model {number}: {'; '.join(changes)}", load

    def load() -> None:
        assert isinstance(Embedder.from_pretrained(copied), Embedder)

    for model in originals:  # what a first load imports is done
        Embedder.from_pretrained(model)
    Trials(planted, imports=False).run(trial)


def test_a_changed_configuration_ends_in_an_error_or_objects(planted: Path, tmp_path: Path) -> None:
    rows = [f"thing {n},number {n},{'train' if n > 5 else 'validation'}" for n in range(30)]
    (planted / "things.csv").write_text("\n".join(["name,words,split", *rows]) + "\n")
    text = {"width": 16, "layers": 1, "heads": 2, "vocab_size": 100}
    original: dict[str, Any] = {
        "seed_everything": 3,
        "data": {"table": str(planted / "things.csv"), "columns": {"text": "name", "words": "words"}, "split": "split"},
        "model": {
            "dim": 8,
            "encoders": {"text": {"class_path": "transformer", "init_args": text}, "words": {"class_path": "text.bag"}},
            "objective": {"class_path": "multimodal.objectives.InfoNCE", "init_args": {"smoothing": 0.1}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
        },
        "trainer": {
            "max_steps": 4,
            "callbacks": [{"class_path": "multimodal.training.AveragedWeights", "init_args": {"decay": 0.9}}],
        },
    }
    file = planted / "things.yaml"

    def trial(rng: random.Random) -> tuple[str, Callable[[], object]]:
        config = copy.deepcopy(original)
        changes = [change(config, rng, large=False) for _ in range(rng.randint(1, 3))]
        content = yaml.safe_dump(config, allow_unicode=True).encode("utf-8", "surrogatepass")
        file.write_bytes(cut_or_flip(content, rng) if rng.random() < 0.05 else content)
        return "; ".join(changes), load

    def load() -> None:
        load_config(file)

    file.write_text(yaml.safe_dump(original))
    load()
    Trials(planted, imports=True).run(trial)
