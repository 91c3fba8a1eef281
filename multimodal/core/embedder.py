"""Encoders and projection heads: from batches or raw values to the shared space."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import chain, combinations
from numbers import Integral
from pathlib import Path
from threading import RLock
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from multimodal.core import checkpoint_cache
from multimodal.core.arguments import check_types
from multimodal.core.batch import Batch
from multimodal.core.calibration import Calibration
from multimodal.core.centring import Centring
from multimodal.core.embeddings import Embeddings
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.encoder_description import build_encoder, describe_encoder
from multimodal.core.encoding import ReadItems, as_values, encode_values
from multimodal.core.errors import UsageError, check_names, suggest
from multimodal.core.html_table import html_table
from multimodal.core.lora import LoRA, add_lora
from multimodal.core.model_bounds import bounded_building, stored_sizes
from multimodal.core.model_folder import (
    FORMAT,
    check_weights,
    fingerprint,
    read_description,
    read_weights,
    write_model,
)
from multimodal.core.predictors import (
    Predictions,
    Predictor,
    build_predictors,
    describe_predictors,
    expected_predictor_weights,
    find_predictor,
    predictor_weights,
)

Head = Literal["linear", "mlp", "none"]
Precision = Literal["float32", "bfloat16"]
GPU_BATCH_SIZE, CPU_BATCH_SIZE = 256, 32
MOST_ADDED = 6  # modalities that are looked at for whether they were added to another model
# arguments of encode and of search, next to which a modality's value is given by its name
RESERVED_NAMES = (
    *(
        "batch_size",
        "exact",
        "hybrid",
        "k",
        "like",
        "min_precision",
        "modality",
        "precision",
        "self",
        "target",
        "unlike",
    ),
    *("vectors", "weights", "where"),
)
_MODES = RLock()  # held while an embedder's modules change to evaluation mode and back
FEATURES = "features"  # the name of an input that holds cached features


class Embedder(nn.Module):
    """One encoder and one projection head for each modality.

    A module whose parameters are all frozen is kept in evaluation mode.

    Args:
        encoders: modality -> encoder; the same one for several modalities, as for a title and a description, is shared.
        dim: width of the shared space.
        heads: modality -> "linear" (the default); "mlp", with one hidden layer of the encoder's width (Chen et al. 2020); or
            "none", which uses the features unchanged: the encoder's width must then be ``dim``.
        lora: modality -> how its encoder is adapted, by low-rank matrices next to frozen weights.

    Attributes:
        shared: modality -> the earlier modality whose encoder it uses as well.
        predictors: target -> the trained head that predicts it, for ``predict``; they are saved with the model.
        calibration: what the scores mean, see ``multimodal.evaluation.calibrate``; it is saved with the model. None: unknown.

    Raises:
        UsageError: ``dim`` is below 1, a modality named like an argument of ``encode`` or ``search``, an unknown modality or
            kind of head, an encoder without a head that is not ``dim`` wide, or adapters for a modality that uses another
            one's encoder.

    Examples:
        >>> from multimodal import create
        >>> encoders = {"text": create("text", "bag"), "words": create("text", "bag")}
        >>> embedder = Embedder(encoders, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup"], "words": ["mug"]})
        >>> embedder.encode(text=["a red cup", "a blue mug"]).shape
        (2, 8)
        >>> embedder
        Embedder of text, words to 8 dimensions
          text   BagOfWords  10,240,512 parameters  256 -> 8
          words  BagOfWords  10,240,512 parameters  256 -> 8
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        dim: int = 256,
        heads: Mapping[str, Head] | None = None,
        lora: Mapping[str, LoRA] | None = None,
    ) -> None:
        super().__init__()
        checkpoint_cache.clear()
        if not encoders:
            raise UsageError("An embedder needs an encoder for at least one modality.")
        for modality in RESERVED_NAMES:
            if modality in encoders:
                raise UsageError(
                    f"A modality cannot be named {modality!r}, an argument of encode() or search(); give it another name."
                )
        if dim < 1:
            raise UsageError(f"dim, the width of the shared space, must be at least 1, got {dim}.")
        self.dim = dim
        first = {id(encoder): modality for modality, encoder in reversed([*encoders.items()])}
        self.shared = {m: first[id(encoder)] for m, encoder in encoders.items() if first[id(encoder)] != m}
        self.encoders = nn.ModuleDict({m: encoder for m, encoder in encoders.items() if m not in self.shared})
        self._modalities = list(encoders)
        for modality in heads or ():
            self.encoder(modality)
        for modality in lora or ():
            self.own_encoder(modality, "lora")
        self.head_kinds: dict[str, Head] = {m: (heads or {}).get(m, "linear") for m in encoders}
        self.heads = nn.ModuleDict(
            {m: _make_head(m, self.head_kinds[m], encoder.width, dim) for m, encoder in encoders.items()}
        )
        self.lora = dict(lora or {})
        for modality, adaptation in self.lora.items():
            add_lora(self.encoder(modality), adaptation, modality)
        self.predictors: dict[str, Predictor] = {}
        self.calibration: Calibration | None = None
        self.centring = nn.ModuleDict()
        self._adopted_fingerprint: tuple[str, str] | None = None
        self._evaluations = 0  # blocks in evaluation mode that have not ended
        self._modes: dict[nn.Module, bool] = {}  # module -> whether it was training before them

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        padded = (map(str.ljust, row, widths) for row in rows)
        lines = "".join(f"\n  {'  '.join(row).rstrip()}" for row in padded)
        lines += "".join(f"\n  predicts {name} ({len(p.names)} {p.kind})" for name, p in self.predictors.items())
        return f"{type(self).__name__} of {', '.join(self.modalities)} to {self.dim} dimensions{lines}"

    def _repr_html_(self) -> str:
        """A table of the modalities, for a notebook."""
        rows = [[cell.removesuffix(" parameters") for cell in row] for row in self._rows()]
        return html_table(("modality", "encoder", "parameters", "features"), rows)

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """Return the name of each modality, its encoder's class, number of parameters and width, as texts."""
        rows = []
        for modality in self.modalities:
            encoder = self.encoder(modality)
            weights = f"{sum(p.numel() for p in encoder.parameters()):,} parameters"
            if modality in self.shared:
                weights = f"those of {self.shared[modality]}"
            rows.append((modality, type(encoder).__name__, weights, f"{encoder.width} -> {self.dim}"))
        return rows

    @property
    def modalities(self) -> list[str]:
        return list(self._modalities)

    @property
    def processors(self) -> dict[str, Processor]:
        """Modality -> the processor of its encoder."""
        return {modality: self.encoder(modality).processor for modality in self.modalities}

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        weights = chain(self.parameters(), self.buffers())
        return next(weights, torch.empty(0, device="cpu")).device  # precomputed vectors need no weights

    def encoder(self, modality: str) -> Encoder:
        """Return the encoder of a modality; raise a ``UsageError`` that names the known ones if there is none."""
        if modality not in self._modalities:
            raise UsageError(f"This model has no modality {modality!r}.{suggest(modality, self.modalities)}")
        encoder = self.encoders[self.shared.get(modality, modality)]
        assert isinstance(encoder, Encoder)
        return encoder

    def own_encoder(self, modality: str, setting: str) -> Encoder:
        """Return a modality's encoder for a setting; a shared encoder is set under the first modality that uses it."""
        encoder = self.encoder(modality)
        if modality in self.shared:
            first = self.shared[modality]
            raise UsageError(
                f"{setting}.{modality}: {modality} shares the encoder of {first}; set {setting}.{first} instead."
            )
        return encoder

    def modalities_sharing(self, first: str) -> list[str]:
        """Return all modalities that use the encoder of ``first``, a modality that is not in ``shared``."""
        return [m for m in self.modalities if self.shared.get(m, m) == first]

    def train(self, mode: bool = True) -> Embedder:
        super().train(mode)
        for part in self.encoders.modules():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()
        return self

    def features(self, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute features ``(n, width)`` from inputs; cached features are returned unchanged."""
        return inputs[FEATURES] if FEATURES in inputs else self.encoder(modality)(**inputs)

    def parameters_of(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of a modality's encoder and head."""
        yield from self.encoder(modality).parameters()
        yield from self.heads[modality].parameters()

    def embed(self, batch: Batch) -> Embeddings:
        """Embed a batch: unit vectors for every modality that it has, in float32 also under autocast."""
        vectors = {m: self.project(m, self.features(m, inputs)) for m, inputs in batch.inputs.items()}
        return Embeddings.of_batch(batch, vectors)

    forward = embed

    def project(self, modality: str, features: Tensor) -> Tensor:
        """Project features ``(n, width)`` of a modality's encoder to unit vectors ``(n, dim)``."""
        projected = self.heads[modality](features)
        if projected.dtype in (torch.bfloat16, torch.float16):
            projected = projected.float()
        vectors = functional.normalize(projected, dim=-1)
        return self.centring[modality](vectors) if modality in self.centring else vectors

    def close_gap(self, means: Mapping[str, Tensor]) -> None:
        """Subtract from now on a mean from the vectors of each modality; the model is then another, of other vectors.

        It closes the gap between modalities, which matters where all are searched at once (Liang et al. 2022);
        ``evaluate(..., sections="space")`` measures what it gives. ``multimodal calibrate RUN --close_gap`` uses it.

        Args:
            means: modality -> ``(dim,)`` mean of its vectors, over training rows; zeros end the subtraction.

        Raises:
            UsageError: a modality is unknown, or its mean has another width.
        """
        for modality, mean in means.items():
            self.encoder(modality)
            if tuple(mean.shape) != (self.dim,):
                raise UsageError(f"The mean of {modality} has shape {tuple(mean.shape)}, not ({self.dim},).")
            self.centring[modality] = Centring(mean).to(self.device)
        self.calibration = None  # it is of the earlier vectors

    @torch.inference_mode()
    def encode(
        self, *unnamed: Any, batch_size: int | None = None, precision: Precision = "float32", **values: Any
    ) -> np.ndarray:
        """Encode raw values of one modality to vectors of unit length in the shared space.

        Args:
            *unnamed: nothing; values are given by the name of their modality.
            batch_size: the number of values of ordinary length that go through the encoder at once; fewer of longer
                values, more of shorter ones. None: 32 on a CPU, whose caches hold no more, else 256.
            precision: "bfloat16" is faster: torch's autocast computes with 8 bits of precision where that is safe.
            **values: one modality's values by its name: a list, tuple, array, generator, pandas or Arrow column; or one
                value (a string, bytes, a path, a picture, a mapping, a graph). An array of pixels with 2 or 3 dimensions is one
                picture, an array of samples with 1 or 2 is one sound, as is a pair (samples, rate), and 1 of numbers is one
                vector; with one dimension more, they are several. Other arrays are several values.

        Returns:
            ``(n, dim)`` float32 for n values; ``(dim,)`` for one value.

        Raises:
            UsageError: not exactly one modality, or an unknown one.
            MultimodalError: a value cannot be read; the message says which.

        Examples:
            >>> from multimodal import create
            >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
            >>> embedder.fit_processors({"text": ["a red cup"]})
            >>> embedder.encode(text=["a red cup", "a blue mug"]).shape, embedder.encode(text="a red cup").shape
            ((2, 8), (8,))
        """
        if unnamed or len(values) != 1:
            device = {"device": "The device is the model's: embedder.to('cuda')."}
            check_names("encode", values, [*self.modalities, "batch_size", "precision"], device)
            example = f"encode({self.modalities[0]}=[...])"
            got = "values without a name" if unnamed else " and ".join(sorted(values)) or "none"
            raise UsageError(f"encode() takes the values of one modality by its name, like {example}; got {got}.")
        ((modality, given),) = values.items()
        processor = self.encoder(modality).processor
        batch_size = self._batch_size(batch_size)
        if precision not in get_args(Precision):
            raise UsageError(f"encode() takes a precision of {' or '.join(get_args(Precision))}, got {precision!r}.")
        raw, single = as_values(given, processor)
        with self._evaluating(), _precision_context(self.device, precision):
            vectors = encode_values(processor, modality, raw, batch_size, partial(self._vectors, modality), self.dim)
        return vectors[0] if single else vectors

    @torch.inference_mode()
    def encode_items(
        self,
        modality: str,
        items: Sequence[Any],
        batch_size: int | None = None,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Encode items of a modality, which its processor returned, to vectors ``(n, dim)`` float32 of unit length.

        Args:
            modality: the modality.
            items: n items; nothing is augmented.
            batch_size: see ``encode``.
            precision: see ``encode``.
        """
        processor = ReadItems(self.encoder(modality).processor)
        size = self._batch_size(batch_size)
        with self._evaluating(), _precision_context(self.device, precision):
            return encode_values(processor, modality, items, size, partial(self._vectors, modality), self.dim)

    def _batch_size(self, given: int | None) -> int:
        if given is None:
            return CPU_BATCH_SIZE if self.device.type == "cpu" else GPU_BATCH_SIZE
        if not isinstance(given, Integral) or given < 1:
            raise UsageError(f"encode() takes a batch_size of at least 1, got {given}.")
        return given

    def _vectors(self, modality: str, items: Sequence[Any]) -> Tensor:
        encoder, device = self.encoder(modality), self.device
        inputs = encoder.processor.collate(items)
        on_device = {name: tensor.to(device, non_blocking=device.type == "cuda") for name, tensor in inputs.items()}
        return self.project(modality, encoder(**on_device))

    def predict(
        self,
        *unnamed: Any,
        target: str | None = None,
        batch_size: int | None = None,
        precision: Precision = "float32",
        **values: Any,
    ) -> Predictions:
        """Predict a target from raw values of one modality, by a head that was trained with the model.

        Args:
            *unnamed: nothing; values are given by the name of their modality.
            target: the target to predict. None: the only one that there is.
            batch_size: see ``encode``.
            precision: see ``encode``.
            **values: see ``encode``.

        Returns:
            The labels and their probabilities, or numbers in the units of the training data.

        Raises:
            UsageError: the model predicts no such target, or see ``encode``.
            MultimodalError: a value cannot be read; the message says which.
        """
        predictor = find_predictor(self.predictors, target)
        return predictor(self.encode(*unnamed, batch_size=batch_size, precision=precision, **values))

    @torch.inference_mode()
    def embed_all(self, batches: Iterable[Batch], advance: Callable[[int], object] | None = None) -> Embeddings:
        """Embed consecutive batches, and return them as one, on the CPU.

        Args:
            batches: the batches, in the order of their rows.
            advance: called with the number of rows of each finished batch.
        """
        parts: list[Embeddings] = []
        with self._evaluating():
            for batch in batches:
                if parts:
                    parts[-1] = parts[-1].to("cpu")  # a GPU was at it while this batch was read
                parts.append(self.embed(batch.to(self.device)))
                if advance is not None:
                    advance(len(batch))
        return Embeddings.cat([part.to("cpu") for part in parts])

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Use evaluation mode (no dropout, fixed normalisation) in the block, which several threads may be in at once."""
        with _MODES:
            if not self._evaluations:
                self._modes = {module: module.training for module in self.modules()}
                self.eval()
            self._evaluations += 1
        try:
            yield
        finally:
            with _MODES:
                self._evaluations -= 1
                if not self._evaluations:  # the last one restores the modes
                    for module, mode in self._modes.items():  # a frozen module may have been in evaluation mode before
                        module.training = mode
                    self._modes = {}

    def fit_processors(self, values: Mapping[str, Iterable[Any]]) -> None:
        """Fit each processor on its modality's raw values (of the training split)."""
        for modality in dict.fromkeys(self.shared.get(m, m) for m in values):
            shared_values = [values[m] for m in self.modalities_sharing(modality) if m in values]
            self.encoder(modality).fit(chain.from_iterable(shared_values))

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that identify this model (settings, fitted processors, weights)."""
        computed = fingerprint(self.describe(), self.state_dict())
        unchanged, adopted = self._adopted_fingerprint or ("", "")
        return adopted if computed == unchanged else computed

    def has_vectors_of(self, fingerprint_of_index: str, modalities: Sequence[str]) -> bool:
        """Return whether some vectors of a model are this model's too: it has all of that model, bit for bit, and perhaps more.

        A model to which a modality was added, while the others were frozen, has the vectors of the model before.

        Args:
            fingerprint_of_index: fingerprint of the model that computed the vectors.
            modalities: the modalities of the vectors.
        """
        if self.fingerprint == fingerprint_of_index:
            return True
        others = [m for m in self.modalities if m not in modalities]
        if not set(modalities) <= set(self.modalities) or len(others) > MOST_ADDED:
            return False
        parts = (p for count in range(len(others)) for p in combinations(others, count))  # without all of them
        return any(self._fingerprint_of({*modalities, *part}) == fingerprint_of_index for part in parts)

    def _fingerprint_of(self, modalities: Collection[str]) -> str:
        """Return the fingerprint of the model that has only some of the modalities."""
        described = self.describe()
        described["encoders"] = {m: entry for m, entry in described["encoders"].items() if m in modalities}
        prefixes = tuple(f"{part}.{m}." for part in ("encoders", "heads", "centring") for m in modalities)
        return fingerprint(described, {n: w for n, w in self.state_dict().items() if n.startswith(prefixes)})

    def adopt_fingerprint(self, adopted: str) -> None:
        """Use the fingerprint of the saved model that this is, or is a part of, as long as nothing changes."""
        self._adopted_fingerprint = (fingerprint(self.describe(), self.state_dict()), adopted)

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to build this embedder again, except the weights, as JSON values."""
        encoders: dict[str, dict[str, Any]] = {
            m: {"shares": self.shared[m]} if m in self.shared else describe_encoder(m, self.encoder(m))
            for m in self.modalities
        }
        for modality, entry in encoders.items():  # defaults are left out, as in models of earlier versions
            if self.head_kinds[modality] != "linear":
                entry["head"] = self.head_kinds[modality]
            if modality in self.lora:
                entry["lora"] = asdict(self.lora[modality])
            if modality in self.centring:
                entry["centred"] = True
        return {"format": FORMAT, "dim": self.dim, "encoders": encoders}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder: ``embedder.json`` and ``model.safetensors``.

        An existing model is replaced. A folder that holds anything else raises a ``MultimodalError``.
        """
        description = self.describe() | describe_predictors(self.predictors)
        if self.calibration is not None:
            description["calibration"] = self.calibration.to_json()
        weights = self.state_dict() | predictor_weights(self.predictors)
        write_model(Path(folder), description, weights, self.fingerprint)

    @classmethod
    def from_pretrained(cls, folder: str | Path, modalities: Sequence[str] | None = None, **unknown: Any) -> Embedder:
        """Load a model that ``save_pretrained`` wrote, or the model of a run folder.

        Args:
            folder: the model's or the run's folder.
            modalities: load only these; the others' encoders are not even imported. None: all.
            **unknown: nothing; the device is set by ``to``.

        Raises:
            MultimodalError: the folder is missing, incomplete or damaged.
            UsageError: the model does not have a modality, or another argument is given.
        """
        device = f"Load the model and move it: Embedder.from_pretrained(...).to({unknown.get('device')!r})."
        check_names("Embedder.from_pretrained", unknown, ["folder", "modalities"], {"device": device})
        examples = {"modalities": "['text']"}
        check_types("Embedder.from_pretrained", cls.from_pretrained, {"modalities": modalities}, examples)
        folder = Path(folder)
        description = read_description(folder)
        described = description["encoders"]
        for modality in modalities or ():
            if modality not in described:
                raise UsageError(
                    f"The model in {folder} has no modality {modality!r}.{suggest(modality, list(described))}"
                )
        file = check_weights(folder, description)
        with bounded_building(stored_sizes(file), f"The model in {folder}"):
            embedder, owners = cls._build(description, modalities or list(described), folder)
        weights = embedder.state_dict()
        of_heads = expected_predictor_weights(description)
        names = {name: _name_in_file(name, owners) for name in weights} | {name: name for name in of_heads}
        read = read_weights(file, description, names, {**weights, **of_heads})
        embedder.predictors = build_predictors(description, {name: read.pop(name) for name in of_heads})
        if "calibration" in description:
            embedder.calibration = Calibration.from_json(description["calibration"])
        weights.update(read)  # torch keeps the versions of modules in the same mapping
        embedder.load_state_dict(weights)
        embedder.adopt_fingerprint(
            description["fingerprint"]
        )  # partial models, and models of earlier versions, compute another
        return embedder.eval()

    @classmethod
    def from_description(cls, description: Mapping[str, Any], folder: Path) -> Embedder:
        """Build the embedder that ``describe`` described, with new weights.

        Args:
            description: what ``describe`` returned.
            folder: the folder that it was read from, for errors.
        """
        return cls._build(description, list(description["encoders"]), folder)[0]

    @classmethod
    def _build(
        cls, description: Mapping[str, Any], modalities: Sequence[str], folder: Path
    ) -> tuple[Embedder, dict[str, str]]:
        """Build some modalities of a described model with new weights; return also modality -> the owner of its encoder."""
        described = description["encoders"]
        encoders: dict[str, Encoder] = {}
        heads: dict[str, Head] = {}
        lora: dict[str, LoRA] = {}
        built: dict[str, str] = {}  # modality that owns an encoder in the file -> modality that it is built for here
        for modality in modalities:
            entry = described[modality]
            heads[modality] = entry.get("head", "linear")
            owner = entry.get("shares", modality)
            if built.setdefault(owner, modality) != modality:
                encoders[modality] = encoders[built[owner]]
                continue
            encoders[modality] = build_encoder(owner, described[owner], folder)
            if "lora" in described[owner]:
                lora[modality] = LoRA(**described[owner]["lora"])
        owners = {modality: owner for owner, modality in built.items()}
        embedder = cls(encoders, int(description["dim"]), heads, lora)
        embedder.close_gap({m: torch.zeros(embedder.dim) for m in modalities if described[m].get("centred")})
        return embedder, owners


def _make_head(modality: str, kind: Head, width: int, dim: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(width, dim)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim))
    if kind != "none":
        raise UsageError(f"heads.{modality}: {kind!r} is not one of {', '.join(get_args(Head))}.")
    if width != dim:
        raise UsageError(
            f"heads.{modality} is 'none', so its encoder's {width} features are the vector, but dim is {dim};"
            f" set dim to {width}, or use a linear head."
        )
    return nn.Identity()


def _precision_context(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    return nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16)


def _name_in_file(name: str, owners: Mapping[str, str]) -> str:
    """Return the name of a weight in a model's file, where encoders are listed under the modalities that own them."""
    part, _, rest = name.partition(".")
    modality, _, weight = rest.partition(".")
    return f"{part}.{owners[modality]}.{weight}" if part == "encoders" else name
