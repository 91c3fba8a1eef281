"""What is trained and where it is written, printed before the first step."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich import box
from rich.console import Console
from rich.table import Table

from multimodal.training.training_module import TrainingModule


class ModelTable(Callback):
    """Prints each modality's encoder with its parameters, and the run's folder, before the first step.

    Examples:
        >>> ModelTable().state_key
        'ModelTable'
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero:
            return
        table = Table("modality", "encoder", "parameters", "trained", "features", box=box.SIMPLE_HEAD, pad_edge=False)
        trained_at_some_step = {id(parameter) for parameter in pl_module.trained}
        for modality in pl_module.embedder.modalities:
            encoder = pl_module.embedder.encoder(modality)
            count = sum(p.numel() for p in encoder.parameters())
            trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
            trained_eventually = sum(p.numel() for p in encoder.parameters() if id(p) in trained_at_some_step)
            features = f"{encoder.width} -> {pl_module.embedder.dim}"
            name = type(encoder).__name__
            if modality in pl_module.embedder.shared:
                name, count, trained, trained_eventually = f"that of {pl_module.embedder.shared[modality]}", 0, 0, 0
            later_text = f", later {trained_eventually:,}" if trained_eventually > trained else ""
            table.add_row(modality, name, f"{count:,}", f"{trained:,}{later_text}", features)
        console = Console(stderr=True)
        console.print(table)
        console.print(f"Run folder: {trainer.default_root_dir}", highlight=False, soft_wrap=True)
