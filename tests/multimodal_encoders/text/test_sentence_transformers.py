"""Models of sentence-transformers make what the library's ``encode`` makes, and need it no more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from multimodal_encoders.text.sentence_transformers import SentenceTransformersText
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as theirs
from small_transformers import TEXTS, model, tokenizer
from torch import nn

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.export.folder import export

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
PROMPTS = {"query": "the quick ", "document": "", "odd": "🙂 "}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tokenizer(folder)
    model(folder, "bert")
    return folder


def saved(folder: Path, transformer: Any, *modules: Any, **settings: Any) -> SentenceTransformer:
    made = SentenceTransformer(modules=[transformer, *modules], device="cpu", **settings)
    made.save(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def features(encoder: SentenceTransformersText, texts: list[str] = TEXTS) -> np.ndarray:
    encoder.eval()
    with torch.no_grad():
        return encoder(**encoder.processor.collate(encoder.processor.process(texts))).numpy()


def alike(folder: Path, library: SentenceTransformer, prompt: str | None = None, **settings: Any) -> None:
    """The encoder's features are the library's, also once it is rebuilt from what is saved of it."""
    encoder = SentenceTransformersText(str(folder), prompt=prompt, **settings)
    expected = library.encode(TEXTS, prompt_name=prompt, batch_size=3)
    found = features(encoder)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert encoder.width == expected.shape[1]
    rebuilt = SentenceTransformersText(**json.loads(json.dumps(encoder.settings)))
    rebuilt.processor.load_state(json.loads(json.dumps(encoder.processor.state())))
    rebuilt.load_state_dict(encoder.state_dict())
    assert rebuilt.settings == encoder.settings
    np.testing.assert_array_equal(features(rebuilt), found)


def dense(inputs: int, outputs: int, activation: nn.Module, bias: bool = True) -> Any:
    return theirs.Dense(inputs, outputs, bias, activation)


# the library's own vectors


@pytest.mark.parametrize("mode", [*MODES, ("mean", "cls"), MODES])
def test_every_pooling_is_the_library_s(mode: Any, bert: Path, tmp_path: Path) -> None:
    alike(tmp_path, saved(tmp_path, theirs.Transformer(str(bert)), theirs.Pooling(16, mode)))


def test_all_modules_in_a_row_are_the_library_s(bert: Path, tmp_path: Path) -> None:
    norm = theirs.LayerNorm(12)
    nn.init.normal_(norm.norm.weight)
    modules = [
        theirs.Pooling(16, ("mean", "max")),
        dense(32, 12, nn.Tanh()),
        norm,
        theirs.Dropout(0.3),
        dense(12, 5, nn.GELU(), bias=False),
        dense(5, 7, nn.Identity()),
        theirs.Normalize(),
    ]
    library = saved(tmp_path, theirs.Transformer(str(bert)), *modules)
    alike(tmp_path, library)
    encoder = SentenceTransformersText(str(tmp_path)).train()
    inputs = encoder.processor.collate(encoder.processor.process(TEXTS))
    assert not torch.equal(encoder(**inputs), encoder(**inputs))  # it drops out
    encoder(**inputs).square().mul(torch.arange(7)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("kind", ["mpnet", "qwen3", "t5", "roberta"])
def test_other_transformers_with_texts_in_lower_case_and_cut(kind: str, tmp_path: Path) -> None:
    tokenizer(tmp_path / "plain", "gpt2", padding_side="left" if kind == "qwen3" else "right")
    model(tmp_path / "plain", kind)
    transformer = theirs.Transformer(str(tmp_path / "plain"), max_seq_length=7)
    saved(tmp_path / "st", transformer, theirs.Pooling(16, "lasttoken"), theirs.Normalize())
    config = tmp_path / "st" / "sentence_bert_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"do_lower_case": True, "max_seq_length": 7}))
    library = SentenceTransformer(str(tmp_path / "st"), device="cpu", local_files_only=True)
    assert library.max_seq_length == 7
    alike(tmp_path / "st", library)
    assert SentenceTransformersText(str(tmp_path / "st")).settings["max_length"] == 7


def test_settings_under_an_older_name_of_their_file_hold(bert: Path, tmp_path: Path) -> None:
    transformer = theirs.Transformer(str(bert), max_seq_length=7)
    saved(tmp_path / "st", transformer, theirs.Pooling(16, "mean"))
    config = tmp_path / "st" / "sentence_bert_config.json"
    config.rename(config.with_name("sentence_roberta_config.json"))
    library = SentenceTransformer(str(tmp_path / "st"), device="cpu", local_files_only=True)
    alike(tmp_path / "st", library)


@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_prompts_are_before_the_texts(included: bool, mode: Any, bert: Path, tmp_path: Path) -> None:
    pooling = theirs.Pooling(16, mode, include_prompt=included)
    library = saved(tmp_path, theirs.Transformer(str(bert)), pooling, prompts=PROMPTS)
    for prompt in PROMPTS:
        alike(tmp_path, library, prompt)
    assert not np.allclose(
        features(SentenceTransformersText(str(tmp_path))),
        features(SentenceTransformersText(str(tmp_path), prompt="query")),
    )


def test_a_default_prompt_is_taken_unless_another_is_named(bert: Path, tmp_path: Path) -> None:
    pooling = theirs.Pooling(16)
    library = saved(tmp_path, theirs.Transformer(str(bert)), pooling, prompts=PROMPTS, default_prompt_name="query")
    alike(tmp_path, library)
    alike(tmp_path, library, "odd")
    with pytest.raises(UsageError, match=r"prompt: the model has no prompt 'queri'\. Did you mean 'query'"):
        SentenceTransformersText(str(tmp_path), prompt="queri")


def test_a_folder_of_an_early_version_is_read(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "0_Transformer")
    (tmp_path / "0_Transformer" / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 9, "do_lower_case": false}'
    )
    for name, settings in (
        (
            "1_Pooling",
            {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True},
        ),
        ("2_Dense", {"in_features": 32, "out_features": 4, "bias": True}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
    torch.save(
        {"linear.weight": torch.randn(4, 32), "linear.bias": torch.ones(4)}, tmp_path / "2_Dense/pytorch_model.bin"
    )
    names = ["0_Transformer", "1_Pooling", "2_Dense"]
    listed = [
        {"idx": i, "name": str(i), "path": n, "type": f"sentence_transformers.models.{n[2:]}"}
        for i, n in enumerate(names)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    alike(tmp_path, SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True))


# saving


def test_a_saved_model_needs_its_source_no_more(bert: Path, tmp_path: Path) -> None:
    saved(tmp_path / "st", theirs.Transformer(str(bert)), theirs.Pooling(16), prompts=PROMPTS)
    name = "sentence_transformers"
    embedder = Embedder({"text": registry.create("text", name, weights=str(tmp_path / "st"), prompt="query")}, 8)
    expected = embedder.encode(text=TEXTS)
    embedder.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "st")
    loaded = Embedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.encode(text=TEXTS), expected)
    assert loaded.fingerprint == embedder.fingerprint
    assert str(tmp_path) not in (tmp_path / "saved" / "embedder.json").read_text()


@pytest.mark.parametrize("prompt", [None, "query"])
def test_it_goes_back_to_the_library_with_its_modules_and_its_prompt(
    prompt: str | None, bert: Path, tmp_path: Path
) -> None:
    norm = theirs.LayerNorm(16)
    modules = [theirs.Pooling(16, include_prompt=False), norm, theirs.Dropout(0.1), dense(16, 6, nn.Tanh())]
    saved(tmp_path / "st", theirs.Transformer(str(bert)), *modules, theirs.Normalize(), prompts=PROMPTS)
    encoder = SentenceTransformersText(str(tmp_path / "st"), prompt=prompt)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    embedder = Embedder({"text": encoder}, 8)
    exported = export(embedder, "sentence-transformers", tmp_path / "out")
    assert exported.differences["text"] < 1e-5
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(loaded.encode(TEXTS), embedder.encode(text=TEXTS), atol=1e-5)


def test_a_published_name_is_read_from_the_cache(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--someone--small" / "snapshots" / ("0" * 40)
    library = saved(snapshot, theirs.Transformer(str(bert)), theirs.Pooling(16), theirs.Normalize())
    (snapshot / "2_Normalize" / "config.json").unlink()  # which early versions did not write
    (tmp_path / "models--someone--small" / "refs").mkdir()
    (tmp_path / "models--someone--small" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    encoder = SentenceTransformersText("someone/small")
    np.testing.assert_allclose(features(encoder), library.encode(TEXTS), atol=1e-5)
    assert encoder.settings == SentenceTransformersText(str(snapshot)).settings


def test_random_weights_take_the_modules_from_a_folder(bert: Path, tmp_path: Path) -> None:
    saved(tmp_path, theirs.Transformer(str(bert)), theirs.Pooling(16), dense(16, 6, nn.Tanh()))
    trained, fresh = SentenceTransformersText(str(tmp_path)), SentenceTransformersText(config=str(tmp_path))
    assert trained.settings == fresh.settings
    assert not any(
        torch.equal(t, fresh.state_dict()[name]) for name, t in trained.state_dict().items() if name.startswith("steps")
    )


# what is refused


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(MultimodalError) as caught:
        SentenceTransformersText(str(folder), **settings)
    return str(caught.value)


def changed(folder: Path, file: str, **entries: Any) -> None:
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | entries))


@pytest.mark.parametrize(
    ("file", "entries", "said"),
    [
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "the setting transformer_task"),
        ("sentence_bert_config.json", {"query_length": 8}, "the setting query_length"),
        ("sentence_bert_config.json", {"modality_config": {"text": {}, "message": {}}}, "into a chat template"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"image": {}}},
            "does not take texts, or does its own pooling",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "sum"}, "its pooling sum is not one of cls"),
        ("2_Dense/config.json", {"use_residual": True}, "its Dense has a residual"),
        ("2_Dense/config.json", {"activation_function": "own.Own"}, "its Dense has the activation own.Own"),
        ("2_Dense/config.json", {"in_features": 3}, "a Dense with in_features 3 follows a module with 16 features"),
        ("2_Dense/config.json", {"out_features": 3}, "1 of another shape|2 of another shape"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "it is a SparseEncoder of"),
    ],
)
def test_what_the_library_would_do_otherwise_is_refused(
    file: str, entries: dict[str, Any], said: str, bert: Path, tmp_path: Path
) -> None:
    saved(tmp_path, theirs.Transformer(str(bert)), theirs.Pooling(16), dense(16, 6, nn.Tanh()))
    changed(tmp_path, file, **entries)
    found = refusal(tmp_path)
    assert any(option in found for option in said.split("|")), found


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (
            [("", "sentence_transformers.models.Transformer"), ("1", "own.Pooling")],
            "module own.Pooling is code of its own",
        ),
        ([("", "sentence_transformers.models.BoW")], "of BoW, which does not begin with Transformer and Pooling"),
        (
            [("", "sentence_transformers.models.Transformer"), ("../x", "sentence_transformers.models.Pooling")],
            "its module at ../x lies outside of it",
        ),
    ],
)
def test_other_modules_are_refused(modules: list[tuple[str, str]], said: str, bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": path, "type": kind} for path, kind in modules]))
    assert said in refusal(tmp_path)


def test_a_plain_folder_of_transformers_is_refused_with_the_right_encoder(bert: Path) -> None:
    assert "it has no modules.json; take the encoder huggingface, which says how to pool" in refusal(bert)


def test_wrong_settings_and_sources_are_reported(bert: Path) -> None:
    with pytest.raises(UsageError, match="set either weights, or config"):
        SentenceTransformersText()
    with pytest.raises(UsageError, match="config must name a model whose modules to build"):
        SentenceTransformersText(config={"model_type": "bert"})
    with pytest.raises(UsageError, match="there is no folder /no/such/folder"):
        SentenceTransformersText("/no/such/folder")
    said = refusal(Path("someone/small-model"))
    assert "of someone/small-model (no folder of that name is here) are not on this machine" in said
    assert "https://huggingface.co/someone/small-model/tree/main" in said
