"""Pretrained encoders of text from Hugging Face."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.core.registry import register
from multimodal_encoders.hub.huggingface import (
    ModelSource,
    config_from_json,
    config_to_json,
    drop_unused_parameters,
    import_library,
    random_model,
    silence_transformers,
    with_changes,
)
from multimodal_encoders.text.pretrained_tokenizer import TokenProcessor, has_vocabulary, max_length_of

Pooling = Literal["cls", "mean", "last", "max"]
SENTENCE_TRANSFORMERS_POOLING = {
    "cls": "cls",
    "mean": "mean",
    "last": "lasttoken",
    "max": "max",
}  # names of sentence-transformers


@register("text", "huggingface", extra="huggingface")
class HuggingFaceText(Encoder):
    """A pretrained text encoder of Hugging Face, pooled over its tokens.

    Any model that ``transformers.AutoModel`` makes of texts: BERT, MiniLM, SciBERT, RoBERTa, DistilBERT, MPNet, ModernBERT,
    E5, BGE, decoders (``pooling: last``), the encoder of T5 or BART. The tokenizer is the model's own and is saved with the
    trained model. Heads and poolers are left out.

    Args:
        weights: a published name or a folder; null: random weights.
        pooling: of the last layer's vectors: that of the first token (cls) or of the last, the mean, or the largest values.
        max_length: longer texts are cut after this many tokens; null: after as many as the model takes.
        config: entries of the model's config to change, as ``{hidden_dropout_prob: 0.2}``; without weights a published name
            or a folder to take the architecture and the tokenizer from.

    Examples:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "cup": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
        >>> _ = tokenizer.save_pretrained("bert")
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        >>> BertModel(BertConfig(vocab_size=3, **sizes)).save_pretrained("bert")
        >>> encoder = HuggingFaceText("bert")
        >>> encoder(**encoder.processor.collate([encoder.processor("cup")])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        weights: str | None = None,
        pooling: Pooling = "mean",
        max_length: int | None = None,
        config: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise UsageError(f"HuggingFaceText: pooling {pooling!r} is not one of {', '.join(get_args(Pooling))}.")
        self.pooling = pooling
        made = text_model(weights, config, max_length)
        self.model, self.width, self.processor = made.model, made.width, made.processor
        self.settings |= {"weights": None, "config": made.config, "max_length": made.processor.max_length}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """All ``(n, longest)`` int64, the mask 1 where a token is (from the left on), else 0 -> ``(n, width)``."""
        return pool_tokens(
            last_hidden_states(self.model, input_ids, attention_mask, token_type_ids), attention_mask, self.pooling
        )

    def parts(self, library: str) -> dict[str, Any] | None:
        processor = self.processor
        if (
            library != "sentence-transformers"
            or not is_loadable_by_transformers(self.model)
            or not isinstance(processor, TokenProcessor)
        ):
            return None
        from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling

        pooling: Any = SENTENCE_TRANSFORMERS_POOLING[self.pooling]
        return {"modules": [transformer_module(self.model, processor), TheirPooling(self.width, pooling)]}


def last_hidden_states(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None
) -> Tensor:
    """Compute the last layer's vectors of the tokens, ``(n, longest, width)``.

    Args:
        model: of transformers.
        input_ids: ``(n, longest)`` int64.
        attention_mask: ``(n, longest)``, 1 for tokens, 0 for padding.
        token_type_ids: ``(n, longest)`` int64, for models that need them.
    """
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    return model(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state


def pool_tokens(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool the vectors of the tokens to ``(n, width)``.

    Args:
        hidden: ``(n, longest, width)``.
        mask: ``(n, longest)``, 1 from the left on, then 0.
        pooling: "cls", "last", "max" or "mean".
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), mask.sum(dim=1) - 1]
    if pooling == "max":
        return hidden.masked_fill(mask[..., None] == 0, -torch.inf).amax(dim=1)
    kept = mask[..., None].to(hidden.dtype)
    return (hidden * kept).sum(dim=1) / kept.sum(dim=1)


TOKENIZER = "tokenizer.json, or vocab.txt and the like with tokenizer_config.json"


@dataclass(frozen=True)
class TextModel:
    """A model of transformers with its processor.

    Args:
        model: the model.
        width: of its vectors.
        processor: its tokenizer.
        config: the settings that rebuild it.
    """

    model: nn.Module
    width: int
    processor: TokenProcessor
    config: dict[str, Any]


def text_model(
    weights: str | None,
    config: str | dict[str, Any] | None,
    max_length: int | None,
    subfolder: str = "",
    prompt: str = "",
    adapt: Callable[[Any], None] = lambda tokenizer: None,
) -> TextModel:
    """Make the model that the settings of ``HuggingFaceText`` describe.

    Args:
        weights: a published name or a folder; None: random weights.
        config: changes, or a name or folder of the architecture.
        max_length: the longest text, in tokens; None: what the model takes.
        subfolder: the folder of its files, in the source.
        prompt: precedes each text.
        adapt: called with the source's tokenizer before it is used.

    Raises:
        UsageError: settings that do not fit together or name no model of texts.
        MultimodalError: the source is missing or damaged.
    """
    transformers = import_library()
    changes = config if isinstance(config, dict) else None
    named = weights or (config if isinstance(config, str) else None)
    if named is None and changes is None:
        raise UsageError(
            "a Hugging Face text encoder needs weights, or a config for random weights; set one to a name or a folder."
        )
    if weights is not None and isinstance(config, str):
        raise UsageError(
            f"config {config!r} names another model than weights {weights!r}; leave it out, or give the entries to change."
        )
    if named is None:
        found = config_from_json(changes or {})
        model = random_model(_auto(found), found, _encoder_of)
        limit = max_positions(model)
        processor = TokenProcessor(max_length or limit or 0, prompt)
        return TextModel(model, _width(model), processor, changes or {})
    source = ModelSource.of(named, "weights" if weights else "config", subfolder)
    found = with_changes(source.config(), changes or {})
    model = (
        source.model(_auto(found), found, _encoder_of) if weights else random_model(_auto(found), found, _encoder_of)
    )
    tokenizer = source.load("tokenizer", TOKENIZER, transformers.AutoTokenizer.from_pretrained)
    if not has_vocabulary(tokenizer):
        raise source.error("tokenizer", TOKENIZER, ValueError("its vocabulary is empty, as its files are missing"))
    largest, rows = max(tokenizer.get_vocab().values()), _embedding_rows(model)
    if rows is not None and largest >= rows:
        said = f"its tokens go up to {largest}, but the model has {rows} embeddings: it belongs to another model"
        raise source.error("tokenizer", TOKENIZER, ValueError(said))
    adapt(tokenizer)
    processor = TokenProcessor(max_length_of(tokenizer, max_positions(model), max_length), prompt)
    processor.take(tokenizer)
    return TextModel(model, _width(model), processor, config_to_json(found))


def _auto(config: Any) -> Any:
    """The class that makes the model; of an encoder and decoder the encoder alone, where there is a class for that."""
    transformers = import_library()
    alone = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    return transformers.AutoModelForTextEncoding if alone else transformers.AutoModel


def _encoder_of(model: Any) -> nn.Module:
    whole = model.config.is_encoder_decoder and hasattr(model, "get_decoder") and hasattr(model, "decoder")
    return drop_unused_parameters(model.get_encoder() if whole else model)


def is_loadable_by_transformers(model: Any) -> bool:
    """Whether transformers loads what such a model saves, which it does not of the encoder of BART."""
    return not model.config.is_encoder_decoder or type(model.config) in import_library().MODEL_FOR_TEXT_ENCODING_MAPPING


def _width(model: nn.Module) -> int:
    """The width of the last layer's vectors; a ``UsageError`` if it is not a model of texts that may be padded."""
    name = type(model).__name__
    taken = inspect.signature(model.forward).parameters
    if "input_ids" not in taken or "attention_mask" not in taken:
        raise UsageError(f"{name} is not a text encoder: it does not take input_ids with an attention_mask.")
    ones = torch.ones(1, 2, dtype=torch.long)
    try:
        with torch.no_grad():
            return last_hidden_states(model.eval(), torch.zeros_like(ones), ones, None).shape[-1]
    except Exception as error:  # of an image or a decoder that it wants as well
        raise UsageError(f"{name} cannot encode texts alone ({error}); take a text encoder.") from error


def _embedding_rows(model: Any) -> int | None:
    """How many words a model has embeddings for; None where it has none of the usual kind."""
    try:
        embeddings = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return embeddings.num_embeddings if isinstance(embeddings, nn.Embedding) else None


def max_positions(model: Any) -> int | None:
    """How many tokens a model has positions for; None: any number."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None or limit < 1:
        return None
    for module in model.modules():  # RoBERTa's count begins after the number of padding
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
            return limit - padding - 1
    return limit


def transformer_module(model: Any, processor: TokenProcessor) -> Any:
    """Convert the model to a module of sentence-transformers, which reads it from a folder."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    with silence_transformers(), TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.of_transformers().save_pretrained(folder)
        module = Transformer(folder, config_kwargs={"local_files_only": True})
    ours = model.state_dict()
    for name, tensor in module.model.state_dict().items():
        if name not in ours:
            tensor.zero_()  # a pooler, which the library's own class has and nothing uses
    return module
