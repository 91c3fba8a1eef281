"""What is trained, as a table before the first step."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich import box
from rich.console import Console
from rich.table import Table

from multimodal.training.training_module import TrainingModule


class ModelTable(Callback):
    """Prints each modality's encoder with its parameters, before the first step.

    Example:
        >>> ModelTable().state_key
        'ModelTable'
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero:
            return
        table = Table("modality", "encoder", "parameters", "trained", "features", box=box.SIMPLE_HEAD, pad_edge=False)
        ever = {id(parameter) for parameter in pl_module.trained}  # at some step
        for modality in pl_module.embedder.modalities:
            encoder = pl_module.embedder.encoder(modality)
            count = sum(p.numel() for p in encoder.parameters())
            trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
            thawed = sum(p.numel() for p in encoder.parameters() if id(p) in ever)
            features = f"{encoder.width} -> {pl_module.embedder.dim}"
            name = type(encoder).__name__
            if modality in pl_module.embedder.shared:
                name, count, trained, thawed = f"that of {pl_module.embedder.shared[modality]}", 0, 0, 0
            later = f", later {thawed:,}" if thawed > trained else ""
            table.add_row(modality, name, f"{count:,}", f"{trained:,}{later}", features)
        Console(stderr=True).print(table)
