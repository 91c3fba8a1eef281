"""LightningCLI with our names, errors and defaults; imported only when a model is trained or run by a trainer."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import yaml
from jsonargparse import get_loader, set_loader
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from yaml import MarkedYAMLError, YAMLError

from multimodal.cli import class_paths
from multimodal.cli.parser_errors import SettingError, error_chain, explain, explain_setting_error
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.hardware import fast_precision, reserve_one_core
from multimodal.core.layers import parameter_names_by_depth
from multimodal.core.model_folder import save_tensors
from multimodal.core.run_folder import CHECKPOINTS, LAST, LOGS, PREDICTIONS, RUN_CONFIG
from multimodal.data.datamodule import DataModule
from multimodal.evaluation.callback import MONITORED_METRIC, RetrievalMonitor
from multimodal.training.callbacks.best_model import Mode
from multimodal.training.callbacks.defaults import default_callbacks
from multimodal.training.callbacks.text_loss import MONITORED_METRIC as LOSS
from multimodal.training.callbacks.text_loss import TextLossMonitor
from multimodal.training.module import EmbedderModule
from multimodal.training.text_pretraining import TextPretrainingModule


def train(command: str, arguments: list[str]) -> None:
    """Run ``fit``, ``validate``, ``test``, ``predict`` or ``pretrain`` with command-line arguments."""
    reserve_one_core()
    _silence_libraries()
    load_yaml = get_loader("yaml")
    set_loader("yaml", lambda stream: class_paths.resolve_names_in_config(load_yaml(stream)), (YAMLError,))
    arguments = ["--print_config=comments" if a == "--print_config" else a for a in arguments]
    line, module = (PretrainCLI, TextPretrainingModule) if command == "pretrain" else (TrainCLI, EmbedderModule)
    line(
        module,
        DataModule,
        parser_class=Parser,
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        trainer_defaults={
            "precision": fast_precision(),
            "log_every_n_steps": 10,
            "use_distributed_sampler": False,  # our samplers divide the batches themselves
            "enable_model_summary": False,  # ours tells more in fewer lines
        },
        auto_configure_optimizers=False,
        args=["fit" if command == "pretrain" else command, *class_paths.resolve_names_in_arguments(arguments)],
    )


class Parser(LightningArgumentParser):
    """Errors are raised, to be told in one line; options may not be abbreviated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self._of: type | None = None

    def add_class_arguments(self, theclass: type, *args: Any, **kwargs: Any) -> Any:
        self._of = theclass  # whose settings it parses, where it is a class's own parser
        return super().add_class_arguments(theclass, *args, **kwargs)

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse_path(cfg_path, *args, **kwargs)
        except Exception as error:
            fault = next((cause for cause in error_chain(error) if isinstance(cause, MarkedYAMLError)), None)
            if fault is None or fault.problem_mark is None:
                raise
            place = f"line {fault.problem_mark.line + 1}, column {fault.problem_mark.column + 1}"
            raise UsageError(f"{cfg_path}, {place}: this is no YAML: {fault.problem}.") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            raise SettingError(explain_setting_error(self._of, list(self.get_defaults().keys()), message)) from ex
        unknown = re.search(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", message)
        options = list(chain.from_iterable(parser.get_defaults().keys() for parser in self._with_subcommands()))
        close = get_close_matches(unknown[1] or unknown[2], options, n=1) if unknown else []
        raise UsageError(explain(message, ex) + "".join(f" Did you mean {name!r}?" for name in close)) from ex

    def _with_subcommands(self) -> list[LightningArgumentParser]:
        commands = self._subcommands_action
        return [self] if commands is None else list(commands._name_parser_map.values())


class TrainCLI(LightningCLI):
    """What is minimised by default, what is told of validation, and which of its measures chooses the best model."""

    objective = "multimodal.objectives.InfoNCE"
    report: type[Callback] = RetrievalMonitor
    monitor: str = MONITORED_METRIC
    mode: Mode = "max"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, default="run", help="The run's folder: checkpoints, logs, the model.")
        parser.link_arguments("run", "trainer.default_root_dir")
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.set_defaults(
            {
                "model.objective": {"class_path": self.objective},
                "model.schedule": {"class_path": "multimodal.training.WarmupCosine"},
            }
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults(verbose=False)  # our table says it
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)  # Lightning's own warns of arguments that are not sys.argv's

    @property
    def settings(self) -> Any:
        """The configuration of the command that was called."""
        return self.config[str(self.subcommand)]

    @property
    def run_folder(self) -> Path:
        return Path(self.settings.run)

    def before_instantiate_classes(self) -> None:
        config = self.settings
        config.weights_only = True  # no pickle is loaded
        checkpoints = self.run_folder / CHECKPOINTS
        if self.subcommand != "fit":
            config.ckpt_path = config.ckpt_path or "best"
            if config.ckpt_path in ("best", "last"):
                config.ckpt_path = str(checkpoints / f"{config.ckpt_path}.ckpt")
        elif config.ckpt_path == "last":
            last = checkpoints / LAST
            config.ckpt_path = str(last) if last.exists() else None
        elif config.ckpt_path is None and checkpoints.exists():
            raise MultimodalError(
                f"{self.run_folder} holds a run already. Resume it with --ckpt_path last,"
                " name another folder with --run, or remove it."
            )
        if config.ckpt_path is not None and not Path(config.ckpt_path).is_file():
            raise MultimodalError(f"The checkpoint {config.ckpt_path} does not exist.")

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        logger = self._get(self.config_init, "trainer")["logger"]
        if logger in (None, True):
            csv = CSVLogger(self.run_folder, name=LOGS)
            kwargs["logger"] = [csv, TensorBoardLogger(self.run_folder, name=LOGS, version=csv.version)]
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            raise UsageError(self._misconfigured(str(error))) from error

    def _misconfigured(self, message: str) -> str:
        if not re.search("No supported gpu backend|can not run on your system", message):
            return message
        wanted = self._get(self.config_init, "trainer")["accelerator"]
        return f"trainer.accelerator {wanted}: no such device was found here; use --trainer.accelerator auto or cpu."

    def before_fit(self) -> None:
        """Tell of settings that do nothing here, but may where a configuration is shared with other models."""
        if not isinstance(self.model, EmbedderModule) or not self.trainer.is_global_zero:
            return
        modalities = self.model.embedder.modalities
        for modality in self.model.layer_decay:
            if len(parameter_names_by_depth(self.model.embedder.encoder(modality))) == 1:
                print(
                    f"Warning: layer_decay.{modality} has nothing to decay over, as no row of like blocks was found in its"
                    " encoder; all of it learns at one rate.",
                    file=sys.stderr,
                )
        for modality in self.datamodule.schema.columns:
            if modality not in modalities:
                print(
                    f"Warning: data.columns names {modality!r}, for which the model has no encoder; it is not used."
                    f"{suggest(modality, modalities)}",
                    file=sys.stderr,
                )

    def after_predict(self) -> None:
        """Lightning keeps the predictions in memory; write them where the run is."""
        embeddings = Embeddings.cat(self.trainer.predict_loop.predictions)
        tensors = {"groups": embeddings.groups}
        for modality in embeddings.modalities:
            tensors[f"{modality}.vectors"] = embeddings.vectors[modality]
            tensors[f"{modality}.rows"] = embeddings.rows[modality]
        keys = {"keys": json.dumps(list(embeddings.keys))}  # row -> key, in the file's metadata
        save_tensors(tensors, self.run_folder / PREDICTIONS, metadata=keys)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        named = config["callbacks"] or []
        own = named if isinstance(named, list) else [named]
        bar = config["enable_progress_bar"] is not False
        config["callbacks"] = default_callbacks(self.run_folder, self.report(), self.monitor, self.mode, own, bar)
        return super()._instantiate_trainer(config, callbacks)


class PretrainCLI(TrainCLI):
    objective = "multimodal.objectives.MaskedTokens"
    report = TextLossMonitor
    monitor = LOSS
    mode = "min"


class SaveConfig(SaveConfigCallback):
    """Writes the run's configuration."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
            text = yaml.safe_dump(class_paths.name_encoders(config), sort_keys=False, allow_unicode=True)
            (folder / RUN_CONFIG).write_text(text, encoding="utf-8")


def _silence_libraries() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # tips and advertisements come as INFO
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*in eval mode at the start of training.*",  # frozen encoders
        ".*custom batch sampler.*for prediction.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*_get_pg_default_device.*|Multiple backends are registered.*",  # torch's own calls, as a checkpoint is read
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=message)
