"""Speed of training an open_clip model: its own loop (open_clip_train) against ours, on the same batches.

Both train copies of one model of open_clip on the glyphs, from the same weights, at the same batch size and learning rate,
and neither reads data in the measured time: the batches lie in memory as the two programs' loaders would make them.

- equal settings: pictures as normalised float32, texts padded to 77, contiguous memory, open_clip's AdamW, one precision;
- our defaults: pictures as uint8 that the encoder normalises, texts trimmed to the longest of the batch, channels last,
  the optimizer's fused kernel, the same precision (bfloat16 where the machine has it, for both).

They take turns within one run. Printed are the samples per second (medians of the rounds), the ratios round by round with
their medians, and the largest difference of the two loss curves: in float32 at equal settings, and at our defaults beside
the difference that bfloat16 alone makes to open_clip's curve.

    python benchmarks/train_step.py [--steps 12] [--rounds 5] [--batch-size 64] [--size 64] [--width 128] [--layers 4]
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import lightning.pytorch as pl
import open_clip
import torch
from multimodal_encoders.open_clip.towers import OpenClipImages, OpenClipTexts
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from multimodal.core.batch import Batch, Sample
from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.hardware import fast_precision, reserve_one_core
from multimodal.datasets.glyphs import Glyphs
from multimodal.objectives import InfoNCE
from multimodal.training.module import EmbedderModule
from multimodal.training.schedule import Constant

WARM_UP = 3  # steps of a round that do not count
RATE, DECAY, BETAS, EPSILON = 5e-4, 0.2, (0.9, 0.98), 1e-6  # open_clip's defaults for ViT
MEAN, STD = (
    torch.tensor(values).view(3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
)


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


def towers(model: Any, config: dict[str, Any], fast: bool) -> dict[str, Encoder]:
    """Our encoders of a model of open_clip."""
    image, text = OpenClipImages(config=config), OpenClipTexts(config=config)
    image.visual.load_state_dict(model.visual.state_dict())
    own = text.text.state_dict()
    text.text.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in own})
    if not fast:
        image.normalised = AsTheyCome()  # pyright: ignore[reportAttributeAccessIssue]
        image.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    image.processor = Items(image.processor if fast else None, "pixels")  # pyright: ignore[reportAttributeAccessIssue]
    text.processor = Items(text.processor if fast else None, "tokens")  # pyright: ignore[reportAttributeAccessIssue]
    return {"image": image, "text": text}


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


class Clock:
    """The time from the end of the warm-up to the end of the last step."""

    def __init__(self) -> None:
        self.steps = 0
        self._start = self._now = self._read()

    @staticmethod
    def _read() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def step(self) -> None:
        self.steps += 1
        self._now = self._read()
        if self.steps == WARM_UP:
            self._start = self._now

    def result(self, losses: list[float]) -> Result:
        return Result(self._now[0] - self._start[0], self._now[1] - self._start[1], losses)


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


def theirs(model: Any, data: Examples, bf16: bool, curve: bool) -> Result:
    """open_clip_train's epoch, as ``open_clip_train.main`` sets it up."""
    named = list(model.named_parameters())
    spared = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    decayed = [p for _, p in named if not any(p is q for q in spared)]
    optimizer = optimizer_of([{"params": spared, "weight_decay": 0.0}, {"params": decayed, "weight_decay": DECAY}])
    clock, writer = Clock(), Curve()
    pictures = [(p.float() / 255 - MEAN) / STD for p in data.pictures]
    loader = Ticking(list(zip(pictures, data.texts, strict=True)), clock)
    args = Namespace(
        device="cpu", precision="amp_bf16" if bf16 else "fp32", distill=False, accum_freq=1, skip_scheduler=True,
        horovod=False, grad_clip_norm=None, rank=0, local_rank=0, world_size=1, wandb=False,
        batch_size=len(data.texts[0]), log_every_n_steps=1 if curve else 10,
    )  # fmt: skip
    epoch = Namespace(dataloader=loader, set_epoch=lambda epoch: None)
    loss = open_clip.ClipLoss()
    train_one_epoch(model, {"train": epoch}, loss, 0, optimizer, None, None, None, args, tb_writer=writer)
    return clock.result(writer.losses)


class Watch(pl.Callback):
    def __init__(self, curve: bool) -> None:
        self.clock, self.curve, self.losses = Clock(), curve, list[float]()

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if self.curve:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.clock.step()


def ours(model: Any, config: dict[str, Any], data: Examples, bf16: bool, curve: bool, fast: bool) -> Result:
    """Our module under Lightning, with the log that ``multimodal fit`` writes every ten steps."""
    encoders = towers(model, config, fast)
    processors = {m: encoder.processor for m, encoder in encoders.items()}
    batches: list[Any] = []
    for pictures, texts in zip(data.pictures, data.texts, strict=True):
        items: Any = (pictures.float() / 255 - MEAN) / STD, texts
        if fast:  # as our processors make them: bytes with the channels last, and no padding
            items = pictures.permute(0, 2, 3, 1).contiguous(), [text[: int(text.argmax()) + 1] for text in texts]
        rows = enumerate(zip(*items, strict=True))
        batches.append(
            Batch.collate([Sample(str(i), {"image": p, "text": t}, str(i)) for i, (p, t) in rows], processors)
        )

    def optimizer(groups: Any) -> torch.optim.Optimizer:
        made = optimizer_of(groups)
        if not fast:
            for group in made.param_groups:
                group["foreach"] = torch.cuda.is_available()  # what torch takes by itself, and open_clip with it
        return made

    module = EmbedderModule(
        encoders, config["embed_dim"], heads={"image": "none", "text": "none"}, objective=InfoNCE(),
        optimizer=optimizer, schedule=Constant(),
    )  # fmt: skip
    watch = Watch(curve)
    trainer = pl.Trainer(
        max_steps=len(batches), precision="bf16-mixed" if bf16 else "32-true", log_every_n_steps=10, callbacks=[watch],
        logger=False, limit_val_batches=0, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader[Any](cast(Any, batches), batch_size=None))
    return watch.clock.result(watch.losses)


def farthest(a: Result, b: Result) -> float:
    return max(abs(x - y) for x, y in zip(a.losses, b.losses, strict=True))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=12, help="steps in a round, the warm-up among them")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--size", type=int, default=64, help="edge of the pictures")
    p.add_argument("--width", type=int, default=128, help="of both transformers")
    p.add_argument("--layers", type=int, default=4, help="of each")
    options = p.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    reserve_one_core()
    torch.manual_seed(0)
    vision = {
        "image_size": options.size,
        "patch_size": 8,
        "width": options.width,
        "layers": options.layers,
        "head_width": 32,
    }
    text = {"context_length": 77, "vocab_size": 49408, "width": options.width, "heads": 4, "layers": options.layers}
    config = {"embed_dim": options.width, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CLIP(**config, output_dict=True)
    data = examples(options.steps, options.batch_size, options.size)
    bf16 = fast_precision() == "bf16-mixed"

    turns: dict[str, Callable[[bool], Result]] = {
        "open_clip": lambda curve: theirs(copy.deepcopy(model), data, bf16, curve),
        "ours, equal settings": lambda curve: ours(model, config, data, bf16, curve, fast=False),
        "ours, our defaults": lambda curve: ours(model, config, data, bf16, curve, fast=True),
    }
    plain = theirs(copy.deepcopy(model), data, False, True)
    equal = ours(model, config, data, False, True, fast=False)
    print(f"loss from {plain.losses[0]:.4f} to {plain.losses[-1]:.4f} in {options.steps} steps of float32;", end=" ")
    print(f"ours at equal settings differs by {farthest(plain, equal):.1e} at most")
    if bf16:
        rough, quick = (turns[name](True) for name in ("open_clip", "ours, our defaults"))
        print(f"bfloat16 alone changes open_clip's by {farthest(plain, rough):.1e};", end=" ")
        print(f"ours at our defaults differs from open_clip's at bfloat16 by {farthest(rough, quick):.1e}", flush=True)
    counted = (options.steps - WARM_UP) * options.batch_size
    results: dict[str, list[Result]] = {name: [] for name in turns}
    for number in range(options.rounds):
        order = list(turns)[number % 3 :] + list(turns)[: number % 3]  # none always comes first
        for name in order:
            results[name].append(turns[name](False))
        shown = ", ".join(f"{name} {counted / found[-1].seconds:.0f}" for name, found in results.items())
        print(f"round {number + 1}: {shown} samples/s", flush=True)
    precision = "bfloat16" if bf16 else "float32"
    print(f"{torch.get_num_threads()} threads, {precision}, batches of {options.batch_size}; medians of the rounds:")
    for name, found in results.items():
        speed = statistics.median(counted / result.seconds for result in found)
        pairs = list(zip(results["open_clip"], found, strict=True))
        ratios = [a.seconds / b.seconds for a, b in pairs]
        of_processor = statistics.median(a.processor_seconds / b.processor_seconds for a, b in pairs)
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(
            f"{name}: {speed:.0f} samples/s; over open_clip {statistics.median(ratios):.3f} by the clock (all {shown}),"
            f" {of_processor:.3f} by the processor's time"
        )


if __name__ == "__main__":
    main()
