"""Speed of training an open_clip model: its own loop (open_clip_train) against ours, on the same batches.

Both train copies of one model of open_clip on the glyphs, from the same weights, at the same batch size and learning rate,
and neither reads data in the measured time: the batches lie in memory (pinned, for a GPU) as the two programs' loaders
would make them.

- equal settings: pictures as normalised float32, texts padded to 77, contiguous memory, open_clip's AdamW, one precision;
- our defaults: pictures as uint8 that the encoder normalises, texts trimmed to the longest of the batch, channels last,
  the optimizer's fused kernel, the same precision (bfloat16 where the machine has it, for both).

``--variants`` adds our defaults with one thing changed each, see ``VARIANTS``.

They take turns within one run. Printed are the samples per second (medians of the rounds), the ratios round by round with
their medians, on a GPU the peak memory and the part of the limit that a large matrix product of that precision sets, and
the largest difference of the two loss curves: in float32 at equal settings, and at our defaults next to the difference that
bfloat16 alone makes to open_clip's curve.

    python benchmarks/train_step.py [--steps 12] [--rounds 5] [--batch-size 64] [--size 64] [--width 128] [--layers 4]
    python benchmarks/train_step.py --device cuda --arch ViT-B-32 --batch-size 256 [--variants all]
"""

from __future__ import annotations

import argparse
import copy
import gc
import logging
import statistics
import time
import warnings
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Any, cast

import lightning.pytorch as pl
import open_clip
import torch
from device import Device, add_options, clock, product_speed, record
from multimodal_encoders.open_clip.towers import OpenClipImages, OpenClipTexts
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from multimodal.core.batch import Batch, Sample
from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.hardware import fast_precision, share_cores
from multimodal.datasets.glyphs import Glyphs
from multimodal.objectives import InfoNCE
from multimodal.training.module import EmbedderModule
from multimodal.training.schedule import Constant

WARM_UP = 3  # steps of a round that do not count
DISTINCT = 8  # batches, which come again and again
RATE, DECAY, BETAS, EPSILON = 5e-4, 0.2, (0.9, 0.98), 1e-6  # open_clip's defaults for ViT
PEER = "open_clip"
MEAN, STD = (
    torch.tensor(values).view(3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
)


@dataclass(frozen=True)
class Side:
    """How a side trains.

    Args:
        data: whose batches it takes: "raw" (uint8, trimmed texts) or "normalised" (float32, padded texts).
        fused: whether one kernel makes the optimizer's step.
        channels_last: the memory of pictures and of their encoder's weights.
        bf16: bfloat16 under autocast; else float32.
        tf32: float32 products may be computed as TF32.
        compiled: by ``torch.compile``.
        pinned: the batches lie in pinned memory.
        non_blocking: copies to the device are not waited for.
    """

    data: str = "raw"
    fused: bool = True
    channels_last: bool = True
    bf16: bool = True
    tf32: bool = False
    compiled: bool = False
    pinned: bool = True
    non_blocking: bool = True


DEFAULTS = Side()
EQUAL = Side(data="normalised", fused=False, channels_last=False)
VARIANTS: dict[str, Side] = {
    "pageable memory": replace(DEFAULTS, pinned=False),
    "blocking copies": replace(DEFAULTS, non_blocking=False),
    "pageable, blocking": replace(DEFAULTS, pinned=False, non_blocking=False),
    "contiguous memory": replace(DEFAULTS, channels_last=False),
    "unfused optimizer": replace(DEFAULTS, fused=False),
    "compiled": replace(DEFAULTS, compiled=True),
    "float32": replace(DEFAULTS, bf16=False),
    "TF32": replace(DEFAULTS, bf16=False, tf32=True),
}


@dataclass(frozen=True)
class Examples:
    """Batches of pictures ``(n, 3, size, size)`` uint8 and texts ``(n, 77)``."""

    pictures: list[Tensor]
    texts: list[Tensor]


class Items(Processor):
    """What ``examples`` made is an item already; ``collate`` is the encoder's own, or stacks."""

    def __init__(self, own: Processor | None = None, name: str = "") -> None:
        self.own, self.name = own, name

    def __call__(self, value: Tensor) -> Tensor:
        return value

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        return {self.name: torch.stack(list(items))} if self.own is None else self.own.collate(items)


class AsTheyCome(nn.Module):
    """In the place of our normalisation: pictures that open_clip's transform has normalised, in contiguous memory."""

    def forward(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        return pixels


class Contiguous(nn.Module):
    """Our normalisation, but the channels come first in memory."""

    def __init__(self, normalised: nn.Module) -> None:
        super().__init__()
        self.normalised = normalised

    def forward(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        return self.normalised(pixels, dtype).contiguous()


def own_towers(model: Any, config: dict[str, Any]) -> dict[str, Encoder]:
    """Our encoders of a model of open_clip."""
    image, text = OpenClipImages(config=config), OpenClipTexts(config=config)
    image.visual.load_state_dict(model.visual.state_dict())
    own = text.text.state_dict()
    text.text.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in own})
    return {"image": image, "text": text}


def towers_of(side: Side, towers: dict[str, Encoder]) -> dict[str, Encoder]:
    """A copy of the encoders as a side has them."""
    image, text = (cast("Any", copy.deepcopy(towers[modality])) for modality in ("image", "text"))
    if not side.channels_last:
        image.to(memory_format=torch.contiguous_format)
        image.normalised = Contiguous(image.normalised)
    if side.data == "normalised":
        image.normalised = AsTheyCome()
    found = processors(side.data, towers)
    image.processor, text.processor = found["image"], found["text"]
    return {"image": image, "text": text}


def processors(data: str, towers: dict[str, Encoder]) -> dict[str, Processor]:
    raw = data == "raw"
    names = {"image": "pixels", "text": "tokens"}
    return {m: Items(towers[m].processor if raw else None, name) for m, name in names.items()}


def examples(count: int, batch_size: int, size: int) -> Examples:
    """Glyphs and their names."""
    from PIL import Image

    table, tokenizer = Glyphs(), open_clip.SimpleTokenizer()
    rows = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))[: count * batch_size].tolist()
    pictures = []
    for row in rows:
        value = table.value(row, "image")
        picture = (value if isinstance(value, Image.Image) else Image.fromarray(value)).convert("RGB")
        pixels = torch.frombuffer(bytearray(picture.resize((size, size)).tobytes()), dtype=torch.uint8)
        pictures.append(pixels.view(size, size, 3).permute(2, 0, 1).contiguous())
    texts = tokenizer([str(table.value(row, "name")) for row in rows])
    return Examples(list(torch.stack(pictures).split(batch_size)), list(texts.split(batch_size)))


def optimizer_of(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY)


@dataclass(frozen=True)
class Result:
    seconds: float  # for the steps after the warm-up
    processor_seconds: float
    losses: list[float]  # of every step, where they were asked for
    gpu_bytes: int | None = None


class Clock:
    """The time from the end of the warm-up to the end of the last step."""

    def __init__(self, device: Device, steps: int) -> None:
        self._device: Device = device
        self._last, self._step = steps, 0
        self._start = self._now = self._read()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _read(self) -> tuple[float, float]:
        return clock(self._device), time.process_time()

    def step(self) -> None:
        self._step += 1
        if self._step == WARM_UP:
            self._start = self._read()
        elif self._step == self._last:
            self._now = self._read()

    def result(self, losses: list[float]) -> Result:
        memory = torch.cuda.max_memory_allocated() if self._device == "cuda" else None
        return Result(self._now[0] - self._start[0], self._now[1] - self._start[1], losses, memory)


class Ticking(list[Any]):
    """Batches in memory as open_clip's loader gives them; the next is asked for when a step is done."""

    def __init__(self, batches: list[Any], clock: Clock) -> None:
        super().__init__(batches)
        self.clock, self.num_batches, self.num_samples = clock, len(batches), sum(len(b[0]) for b in batches)

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch
            self.clock.step()


class Curve:
    """Stands for a TensorBoard writer."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if name == "train/loss":
            self.losses.append(value)


class Watch(pl.Callback):
    def __init__(self, clock: Clock, curve: bool) -> None:
        self.clock, self.curve, self.losses = clock, curve, list[float]()

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if self.curve:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.clock.step()


class BlockingModule(EmbedderModule):
    """Waits for every copy, as Lightning does of itself."""

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device, non_blocking=False)


@dataclass
class Trial:
    """The two programs, on one model and the same examples."""

    device: Device
    steps: int
    batch_size: int
    config: dict[str, Any]
    model: Any
    data: Examples
    towers: dict[str, Encoder] = field(init=False)

    def __post_init__(self) -> None:
        self.towers = own_towers(self.model, self.config)
        self._batches: dict[tuple[str, bool], list[Any]] = {}

    def theirs(self, bf16: bool, curve: bool) -> Result:
        """open_clip_train's epoch, as ``open_clip_train.main`` sets it up."""
        model = copy.deepcopy(self.model).to(self.device)
        named = list(model.named_parameters())
        spared = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
        decayed = [p for _, p in named if not any(p is q for q in spared)]
        optimizer = optimizer_of([{"params": spared, "weight_decay": 0.0}, {"params": decayed, "weight_decay": DECAY}])
        writer = Curve()
        loader = Ticking(self._cycled("pairs"), Clock(self.device, self.steps))
        args = Namespace(
            device=self.device, precision="amp_bf16" if bf16 else "fp32", distill=False, accum_freq=1,
            skip_scheduler=True, horovod=False, grad_clip_norm=None, rank=0, local_rank=0, world_size=1, wandb=False,
            batch_size=self.batch_size, log_every_n_steps=1 if curve else 10,
        )  # fmt: skip
        epoch = Namespace(dataloader=loader, set_epoch=lambda epoch: None)
        loss = open_clip.ClipLoss()
        train_one_epoch(model, {"train": epoch}, loss, 0, optimizer, None, None, None, args, tb_writer=writer)
        return loader.clock.result(writer.losses)

    def ours(self, side: Side, curve: bool) -> Result:
        """Our module under Lightning, with the log that ``multimodal fit`` writes every ten steps."""

        def optimizer(groups: Any) -> torch.optim.Optimizer:
            made = optimizer_of(groups)
            if not side.fused:
                for group in made.param_groups:
                    group["foreach"] = self.device == "cuda"  # what torch takes by itself, and open_clip with it
            return made

        module = (EmbedderModule if side.non_blocking else BlockingModule)(
            towers_of(side, self.towers), self.config["embed_dim"], heads={"image": "none", "text": "none"},
            objective=InfoNCE(), optimizer=optimizer, schedule=Constant(), compile=side.compiled,
        )  # fmt: skip
        watch = Watch(Clock(self.device, self.steps), curve)
        trainer = pl.Trainer(
            accelerator="gpu" if self.device == "cuda" else "cpu", devices=1, max_steps=self.steps,
            precision="bf16-mixed" if side.bf16 else "32-true", log_every_n_steps=10, callbacks=[watch], logger=False,
            limit_val_batches=0, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        torch.set_float32_matmul_precision("high" if side.tf32 else "highest")
        batches = self._cycled(side.data, side.pinned)
        try:
            trainer.fit(module, DataLoader[Any](cast(Any, batches), batch_size=None))
        finally:
            torch.set_float32_matmul_precision("highest")
        return watch.clock.result(watch.losses)

    def _cycled(self, kind: str, pinned: bool = True) -> list[Any]:
        """A batch for each step: ``pairs`` of open_clip, or those of ``Side.data``."""
        pinned &= self.device == "cuda"
        if (kind, pinned) not in self._batches:
            made = [self._batch(kind, *pair) for pair in zip(self.data.pictures, self.data.texts, strict=True)]
            if pinned:
                pin = (lambda b: tuple(t.pin_memory() for t in b)) if kind == "pairs" else Batch.pin_memory
                made = [pin(batch) for batch in made]
            self._batches[kind, pinned] = made
        return list(islice(cycle(self._batches[kind, pinned]), self.steps))

    def _batch(self, kind: str, pictures: Tensor, texts: Tensor) -> Any:
        normalised = (pictures.float() / 255 - MEAN) / STD if kind != "raw" else pictures
        if kind == "pairs":
            return normalised, texts
        items: Any = normalised, texts
        if kind == "raw":  # as our processors make them: bytes with the channels last, and no padding
            items = pictures.permute(0, 2, 3, 1).contiguous(), [text[: int(text.argmax()) + 1] for text in texts]
        rows = enumerate(zip(*items, strict=True))
        samples = [Sample(str(i), {"image": p, "text": t}, str(i)) for i, (p, t) in rows]
        return Batch.collate(samples, processors(kind, self.towers))

    def flops(self) -> int:
        """Of the matrix products of a step of open_clip's model."""
        model, (pictures, texts) = copy.deepcopy(self.model).to(self.device), self._cycled("pairs")[0]
        with FlopCounterMode(display=False) as counter:
            out = model(pictures.to(self.device), texts.to(self.device))
            open_clip.ClipLoss()(out["image_features"], out["text_features"], out["logit_scale"]).backward()
        return counter.get_total_flops()


def farthest(a: Result, b: Result) -> float:
    return max(abs(x - y) for x, y in zip(a.losses, b.losses, strict=True))


def model_config(options: argparse.Namespace) -> dict[str, Any]:
    """open_clip's description of the model."""
    if options.arch is not None:
        config = open_clip.get_model_config(options.arch)
        assert config is not None, f"open_clip has no {options.arch}"
        return config
    vision = {
        "image_size": options.size,
        "patch_size": 8,
        "width": options.width,
        "layers": options.layers,
        "head_width": 32,
    }
    text = {"context_length": 77, "vocab_size": 49408, "width": options.width, "heads": 4, "layers": options.layers}
    return {"embed_dim": options.width, "vision_cfg": vision, "text_cfg": text}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=12, help="steps in a round, the warm-up among them")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--arch", help="open_clip's name of an architecture, in place of a small one by the settings below")
    p.add_argument("--size", type=int, default=64, help="edge of the pictures")
    p.add_argument("--width", type=int, default=128, help="of both transformers")
    p.add_argument("--layers", type=int, default=4, help="of each")
    p.add_argument("--variants", nargs="+", default=[], choices=["all", *VARIANTS], help="other settings of ours")
    add_options(p)
    options = p.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    share_cores(workers=0)
    torch.manual_seed(0)
    config = model_config(options)
    model = open_clip.CLIP(**config, output_dict=True)
    data = examples(min(options.steps, DISTINCT), options.batch_size, int(config["vision_cfg"]["image_size"]))
    trial = Trial(options.device, options.steps, options.batch_size, config, model, data)
    bf16 = options.device == "cuda" or fast_precision() == "bf16-mixed"
    sides = {"ours, equal settings": EQUAL, "ours, our defaults": DEFAULTS}
    sides |= VARIANTS if "all" in options.variants else {name: VARIANTS[name] for name in options.variants}
    if not bf16:
        sides = {name: replace(side, bf16=False) for name, side in sides.items()}
    differences = curves(trial, bf16)

    def turn(name: str) -> Result:
        gc.collect()  # the models of the turn before
        return trial.theirs(bf16, False) if name == PEER else trial.ours(sides[name], False)

    counted = (options.steps - WARM_UP) * options.batch_size
    results: dict[str, list[Result]] = {name: [] for name in (PEER, *sides)}
    for number in range(options.rounds):
        first = number % len(results)  # none always comes first
        for name in [*results, *results][first : first + len(results)]:
            results[name].append(turn(name))
        shown = ", ".join(f"{name} {counted / found[-1].seconds:.0f}" for name, found in results.items())
        print(f"round {number + 1}: {shown} samples/s", flush=True)
    precision = "bfloat16" if bf16 else "float32"
    print(f"{torch.get_num_threads()} threads, {precision}, batches of {options.batch_size}; medians of the rounds:")
    limit = None
    if options.device == "cuda":
        product = product_speed("cuda", torch.bfloat16)
        limit = product / trial.flops() * options.batch_size
        print(f"a bfloat16 product runs at {product / 1e12:.0f} TFLOP/s: at most {limit:.0f} samples/s")
    rows = [row_of(name, results, counted, limit) for name in results]
    record(options, {"loss": differences, "samples_per_second_at_most": limit, "sides": rows})


def curves(trial: Trial, bf16: bool) -> dict[str, float]:
    """How far the loss curves lie apart, printed too."""
    plain, equal = trial.theirs(False, True), trial.ours(replace(EQUAL, bf16=False), True)
    found = {"first": plain.losses[0], "last": plain.losses[-1], "equal_settings_float32": farthest(plain, equal)}
    print(f"loss from {plain.losses[0]:.4f} to {plain.losses[-1]:.4f} in {trial.steps} steps of float32;", end=" ")
    print(f"ours at equal settings differs by {farthest(plain, equal):.1e} at most")
    if bf16:
        rough, quick = trial.theirs(True, True), trial.ours(DEFAULTS, True)
        found |= {"bfloat16_alone": farthest(plain, rough), "defaults_bfloat16": farthest(rough, quick)}
        print(f"bfloat16 alone changes open_clip's by {farthest(plain, rough):.1e};", end=" ")
        print(f"ours at our defaults differs from open_clip's at bfloat16 by {farthest(rough, quick):.1e}", flush=True)
    return found


def row_of(name: str, results: dict[str, list[Result]], counted: int, limit: float | None) -> dict[str, Any]:
    """The figures of a side, printed too."""
    found = results[name]
    speed = statistics.median(counted / result.seconds for result in found)
    pairs = list(zip(results[PEER], found, strict=True))
    ratios = [a.seconds / b.seconds for a, b in pairs]
    of_processor = statistics.median(a.processor_seconds / b.processor_seconds for a, b in pairs)
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    line = f"{name}: {speed:.0f} samples/s; over open_clip {statistics.median(ratios):.3f} by the clock (all {shown}),"
    line += f" {of_processor:.3f} by the processor's time"
    row = {"side": name, "samples_per_second": speed, "over_open_clip": statistics.median(ratios), "ratios": ratios}
    memory = max((result.gpu_bytes or 0) for result in found)
    if limit is not None:
        line += f"; {memory / 1e9:.1f} GB, {speed / limit:.0%} of the limit"
        row |= {"gpu_bytes": memory, "of_limit": speed / limit}
    print(line, flush=True)
    return row


if __name__ == "__main__":
    main()
