"""Text encoders of Hugging Face make what the library itself makes, and are rebuilt without it."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.text.huggingface import HuggingFaceText
from small_transformers import TEXTS, model, tokenizer
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, BertModel

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.core.layers import parameter_names_by_depth
from multimodal.export.folder import export
from multimodal.training.activation_checkpointing import recompute_activations

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
KINDS = {  # of models and their tokenizers
    "bert": "bert", "roberta": "bert", "distilbert": "bert", "mpnet": "bert", "albert": "bert", "electra": "bert",
    "modernbert": "bert", "deberta-v2": "bert", "xlnet": "xlnet", "t5": "bert", "bart": "bert", "gpt2": "gpt2",
    "qwen3": "gpt2", "mistral": "gpt2",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tokenizer(folder)
    model(folder, "bert")
    return folder


def features(encoder: Any, texts: list[str]) -> Tensor:
    encoder.eval()
    with torch.no_grad():
        return encoder(**encoder.processor.collate(encoder.processor.process(texts)))


def reference(folder: Path, texts: list[str], pooling: str, max_length: int | None = None) -> Tensor:
    """By the library's tokenizer and model, pooled one text after another."""
    tokens: Any = AutoTokenizer.from_pretrained(folder)
    net: Any = AutoModel.from_pretrained(folder)
    net = (net.get_encoder() if net.config.is_encoder_decoder else net).eval()
    found = []
    for text in texts:
        inputs = tokens(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            hidden = net(**inputs).last_hidden_state[0]
        picked = {"cls": hidden[0], "last": hidden[-1], "mean": hidden.mean(dim=0), "max": hidden.max(dim=0).values}
        found.append(picked[pooling])
    return torch.stack(found)


# the library's own vectors


@pytest.mark.parametrize("kind", KINDS)
def test_the_features_are_those_of_the_library_and_no_parameter_is_idle(kind: str, tmp_path: Path) -> None:
    tokenizer(tmp_path, KINDS[kind], padding_side="left" if kind in ("qwen3", "xlnet") else "right")
    model(tmp_path, kind)
    pooling: Any = "last" if kind in ("gpt2", "qwen3", "mistral", "xlnet") else "mean"
    encoder = HuggingFaceText(str(tmp_path), pooling)
    expected = reference(tmp_path, TEXTS, pooling)
    torch.testing.assert_close(features(encoder, TEXTS), expected, atol=1e-5, rtol=0)
    assert encoder.width == 16
    encoder(**encoder.processor.collate(encoder.processor.process(TEXTS))).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    rebuilt = HuggingFaceText(**json.loads(json.dumps(encoder.settings)))
    rebuilt.processor.load_state(json.loads(json.dumps(encoder.processor.state())))
    rebuilt.load_state_dict(encoder.state_dict())
    assert rebuilt.settings == encoder.settings
    assert torch.equal(features(rebuilt, TEXTS), features(encoder, TEXTS))


@pytest.mark.parametrize("pooling", ["cls", "mean", "last", "max"])
def test_texts_are_pooled_without_their_padding(pooling: Any, bert: Path) -> None:
    encoder = HuggingFaceText(str(bert), pooling, max_length=9)
    torch.testing.assert_close(
        features(encoder, TEXTS), reference(bert, TEXTS, pooling, max_length=9), atol=1e-5, rtol=0
    )


@given(texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=40), batch_size=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_many_texts_are_encoded_as_they_are_one_by_one(texts: list[str], batch_size: int, bert: Path) -> None:
    embedder = Embedder({"text": HuggingFaceText(str(bert))}, 16, {"text": "none"})
    alone = {text: embedder.encode(text=[text])[0] for text in set(texts)}
    together = embedder.encode(batch_size=batch_size, text=texts)
    np.testing.assert_allclose(together, np.stack([alone[text] for text in texts]), atol=1e-6)


@given(texts=st.lists(st.text(min_size=1, max_size=40).filter(str.strip), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_texts_in_a_batch_are_as_the_library_makes_them_alone(texts: list[str], bert: Path) -> None:
    encoder = HuggingFaceText(str(bert))
    torch.testing.assert_close(features(encoder, texts), reference(bert, texts, "mean"), atol=1e-5, rtol=0)


def test_a_batch_is_padded_to_its_own_longest_text(bert: Path) -> None:
    processor = HuggingFaceText(str(bert)).processor
    long, short = processor.collate(processor.process(TEXTS)), processor.collate(processor.process(["fox", "dog"]))
    assert long["input_ids"].shape == (6, 20)
    assert short["input_ids"].shape[1] < 8
    assert set(short) == {"input_ids", "attention_mask"}
    assert processor.cost(processor("fox")) == pytest.approx(short["attention_mask"][0].sum() / 32)


def test_the_longest_text_is_the_model_s_the_tokenizer_s_or_the_user_s(tmp_path: Path) -> None:
    endless = 10**30
    for kind, own, positions in (("bert", 20, 24), ("bert", endless, 24), ("roberta", endless, 23), ("t5", 20, None)):
        folder = tmp_path / f"{kind}{own}"
        tokenizer(folder, model_max_length=own)
        model(folder, kind)
        expected = min(own, positions or own)
        assert HuggingFaceText(str(folder)).settings["max_length"] == expected
        assert features(HuggingFaceText(str(folder), max_length=3), TEXTS).shape == (6, 16)
        if positions:
            assert features(HuggingFaceText(str(folder), max_length=positions), TEXTS).isfinite().all()
            with pytest.raises(UsageError, match=f"max_length 99 must lie between 1 and the {positions} positions"):
                HuggingFaceText(str(folder), max_length=99)
    tokenizer(tmp_path / "endless", model_max_length=endless)
    model(tmp_path / "endless", "t5")
    with pytest.raises(
        UsageError, match="neither the model nor its tokenizer limits the length of a text; set max_length"
    ):
        HuggingFaceText(str(tmp_path / "endless"))


# tokenizers


def test_a_tokenizer_in_slow_form_is_converted(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fox", "a", "heart", "##s", "black", "!", "na", "##ive"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "model_max_length": 16}')
    model(tmp_path, "bert", vocab_size=len(words))
    encoder = HuggingFaceText(str(tmp_path))
    texts = ["A black heart!", "naïve foxs", "fox"]
    assert encoder.processor("naïve foxs").tolist() == [2, 11, 12, 5, 8, 3]
    torch.testing.assert_close(features(encoder, texts), reference(tmp_path, texts, "mean"), atol=1e-5, rtol=0)


def test_a_tokenizer_of_python_code_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer", "model_max_length": 16}')
    model(tmp_path, "bert", vocab_size=400)
    with pytest.raises(UsageError, match="ByT5Tokenizer is a tokenizer of Python code"):
        HuggingFaceText(str(tmp_path))


def test_a_tokenizer_s_settings_are_kept_in_its_state(tmp_path: Path) -> None:
    model(tmp_path, "bert")
    theirs = tokenizer(tmp_path, truncation_side="left", split_special_tokens=True, pad_token="[MASK]")
    processor = HuggingFaceText(str(tmp_path)).processor
    for text in TEXTS:
        assert processor(text).tolist() == theirs(text, truncation=True)["input_ids"]
    sent = pickle.loads(pickle.dumps(processor))  # as to a data worker
    assert [item.tolist() for item in sent.process(TEXTS)] == [item.tolist() for item in processor.process(TEXTS)]
    assert processor.collate(processor.process(TEXTS))["input_ids"][0, -1] == theirs.pad_token_id
    again = processor.of_transformers()  # pyright: ignore[reportAttributeAccessIssue]
    assert again(TEXTS, truncation=True)["input_ids"] == theirs(TEXTS, truncation=True)["input_ids"]


@pytest.mark.parametrize(
    ("value", "reason"), [("", "empty text"), (" \n", "empty text"), (3, "wrong type"), ("a \ud83d", "invalid Unicode")]
)
def test_what_is_not_a_text_is_refused(value: object, reason: str, bert: Path) -> None:
    with pytest.raises(Unreadable) as refusal:
        HuggingFaceText(str(bert)).processor(value)
    assert refusal.value.reason == reason


def test_a_text_of_which_the_tokenizer_leaves_nothing_is_refused(tmp_path: Path) -> None:
    from tokenizers import normalizers

    made = tokenizer(tmp_path, "gpt2")
    made.backend_tokenizer.normalizer = normalizers.Strip()
    made.backend_tokenizer.normalizer = normalizers.Replace("x", "")
    made.save_pretrained(tmp_path)
    model(tmp_path, "gpt2")
    with pytest.raises(Unreadable, match="nothing of the text is left by the tokenizer"):
        HuggingFaceText(str(tmp_path)).processor("xx")


# weights


def test_heads_and_poolers_are_left_out_and_missing_weights_are_reported(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    sizes: dict[str, int] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    whole = BertForMaskedLM(BertConfig(vocab_size=300, **sizes))  # pyright: ignore[reportArgumentType]
    whole.save_pretrained(tmp_path)
    names = set(HuggingFaceText(str(tmp_path)).state_dict())
    assert not any("pooler" in name or "cls" in name or "predictions" in name for name in names)
    assert names == {f"model.{name}" for name in whole.bert.state_dict()}
    headless = BertModel(BertConfig(vocab_size=300, **sizes))  # pyright: ignore[reportArgumentType]
    state = {name: t for name, t in headless.state_dict().items() if "layer.0.attention.self" not in name}
    headless.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(MultimodalError, match=r"weights: the weights in the folder .* \(6 are missing: encoder"):
        HuggingFaceText(str(tmp_path))


def test_half_precision_weights_are_taken_in_float32(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    model(tmp_path, "bert").to(torch.bfloat16).save_pretrained(tmp_path)  # pyright: ignore[reportCallIssue]
    encoder = HuggingFaceText(str(tmp_path))
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    rebuilt = HuggingFaceText(**encoder.settings)
    assert {p.dtype for p in rebuilt.parameters()} == {torch.float32}


def test_a_saved_model_needs_its_source_no_more(bert: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(bert, source)
    embedder = Embedder({"text": registry.create("text", "huggingface", weights=str(source), pooling="max")}, 8)
    expected = embedder.encode(text=TEXTS)
    embedder.save_pretrained(tmp_path / "saved")
    shutil.rmtree(source)
    loaded = Embedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.encode(text=TEXTS), expected)
    assert loaded.fingerprint == embedder.fingerprint
    assert str(tmp_path) not in (tmp_path / "saved" / "embedder.json").read_text()


def test_a_published_name_is_read_from_the_cache(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--someone--small" / "snapshots" / ("0" * 40)
    shutil.copytree(bert, snapshot)
    (tmp_path / "models--someone--small" / "refs").mkdir()
    (tmp_path / "models--someone--small" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    encoder, local = HuggingFaceText("someone/small"), HuggingFaceText(str(bert))
    assert encoder.settings == local.settings
    assert torch.equal(features(encoder, TEXTS), features(local, TEXTS))


@pytest.mark.parametrize("kind", ["bert", "modernbert", "qwen3"])
def test_recomputed_layers_give_the_same_gradients(kind: str, tmp_path: Path) -> None:
    tokenizer(tmp_path)
    model(tmp_path, kind)
    gradients = []
    for recompute in (False, True):
        encoder = HuggingFaceText(
            str(tmp_path), config={"attention_dropout" if kind != "bert" else "hidden_dropout_prob": 0.0}
        )
        if recompute:
            recompute_activations([encoder])
        torch.manual_seed(0)
        encoder.train()(**encoder.processor.collate(encoder.processor.process(TEXTS))).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("to", ["torch-export", "sentence-transformers"])
@pytest.mark.parametrize("kind", ["modernbert", "qwen3"])
def test_a_text_encoder_is_exported(kind: str, to: Any, tmp_path: Path) -> None:
    tokenizer(tmp_path, KINDS[kind])
    model(tmp_path, kind)
    embedder = Embedder({"text": HuggingFaceText(str(tmp_path), "last")}, 8).eval()
    assert export(embedder, to, tmp_path / "out").differences["text"] < 1e-5


def test_a_library_that_is_missing_is_named(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"need the library transformers .*pip install 'multimodal\[huggingface\]'"):
        HuggingFaceText(str(bert))


def test_random_weights_take_the_architecture_from_a_folder(bert: Path) -> None:
    encoder = HuggingFaceText(config=str(bert))
    trained = HuggingFaceText(str(bert))
    assert encoder.settings == trained.settings
    assert encoder.processor.state() == trained.processor.state()
    assert not torch.equal(features(encoder, TEXTS), features(trained, TEXTS))


def test_entries_of_the_config_can_be_changed(bert: Path) -> None:
    encoder = HuggingFaceText(str(bert), config={"hidden_dropout_prob": 0.4})
    dropouts = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropouts == {0.4, 0.1}  # of attention's weights
    assert encoder.settings["config"]["hidden_dropout_prob"] == 0.4
    with pytest.raises(UsageError, match=r"a bert has no entry 'hidden_drop'\. Did you mean 'hidden_"):
        HuggingFaceText(str(bert), config={"hidden_drop": 0.4})


def test_the_layers_are_found_from_the_embeddings_on(bert: Path) -> None:
    depths = [
        {".".join(name.split(".")[:4]) for name in names}
        for names in parameter_names_by_depth(HuggingFaceText(str(bert)))
    ]
    assert depths[1:] == [{"model.encoder.layer.0"}, {"model.encoder.layer.1"}]
    assert all(name.startswith("model.embeddings") for name in depths[0])


# wrong settings and sources


def wrong(**settings: Any) -> str:
    with pytest.raises(MultimodalError) as caught:
        HuggingFaceText(**settings)
    return str(caught.value)


def test_a_name_that_cannot_be_had_says_which_files_to_put_where() -> None:
    said = wrong(weights="someone/small-model")
    assert "The files of someone/small-model (no folder of that name is here) are not on this machine" in said
    assert "https://huggingface.co/someone/small-model/tree/main (config.json, model.safetensors and" in said
    assert f"{Path.cwd() / 'small-model'}, and set weights to it" in said


def test_a_wrong_source_is_reported(tmp_path: Path, bert: Path) -> None:
    assert "weights: there is no folder /no/such/folder" in wrong(weights="/no/such/folder")
    assert "is a file; name the folder" in wrong(weights=str(bert / "config.json"))
    assert "the config in the folder" in wrong(weights=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}')
    assert "contains code of its own, which is not run" in wrong(weights=str(tmp_path))
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 40)
    assert "the weights in the folder" in wrong(weights=str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    assert "the weights in the folder" in wrong(weights=str(tmp_path))


def test_a_folder_without_a_tokenizer_does_not_make_every_text_unknown(tmp_path: Path, bert: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    said = wrong(weights=str(tmp_path))
    assert "the tokenizer in the folder" in said
    assert "its vocabulary is empty, as its files are missing" in said


def test_a_folder_with_an_adapter_is_refused(tmp_path: Path, bert: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / "adapter_config.json").write_text("{}")
    said = wrong(weights=str(tmp_path))
    assert "holds a peft adapter (adapter_config.json); merge it into the model" in said


def test_weights_of_more_layers_than_the_config_has_are_reported(tmp_path: Path, bert: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    said = wrong(weights=str(tmp_path))
    assert "are of layers that the config does not have: encoder.layer.1." in said


def test_weights_of_another_shape_than_the_config_says_are_reported(tmp_path: Path, bert: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 8}))
    assert "some have other shapes than the config says" in wrong(weights=str(tmp_path))


def test_a_tokenizer_of_more_words_than_the_model_knows_is_reported(tmp_path: Path) -> None:
    words = len(tokenizer(tmp_path).get_vocab())
    model(tmp_path, "bert", vocab_size=words - 1)
    said = wrong(weights=str(tmp_path))
    assert f"tokens go up to {words - 1}, but the model has {words - 1} embeddings" in said
    model(tmp_path, "bert", vocab_size=words)
    assert HuggingFaceText(weights=str(tmp_path)).width == 16


def test_python_objects_in_weights_are_refused_without_advice_to_load_them(tmp_path: Path, bert: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": tmp_path}, tmp_path / "pytorch_model.bin")
    said = wrong(weights=str(tmp_path))
    assert "hold Python objects, which could run arbitrary code" in said
    assert "weights_only" not in said


def test_wrong_settings_are_reported(tmp_path: Path, bert: Path) -> None:
    assert "pooling 'sum' is not one of cls, mean, last, max" in wrong(weights=str(bert), pooling="sum")
    assert "needs weights, or a config for random weights" in wrong()
    assert "names another model than weights" in wrong(weights=str(bert), config="other")
    assert "give the entries of a config.json, with its model_type" in wrong(config={"hidden_size": 8})
    tokenizer(tmp_path)
    model(tmp_path, "vit", image_size=8, patch_size=4)
    assert "ViTModel is not a text encoder: it does not take input_ids" in wrong(weights=str(tmp_path))


def test_an_encoder_without_a_tokenizer_says_how_to_get_one(bert: Path) -> None:
    encoder = HuggingFaceText(config=HuggingFaceText(str(bert)).settings["config"])
    with pytest.raises(UsageError, match="has no tokenizer; name weights"):
        encoder.processor("fox")
