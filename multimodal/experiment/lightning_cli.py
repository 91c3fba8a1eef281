"""LightningCLI with our names, errors and defaults; imported only when a model is trained or run by a trainer."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from yaml import MarkedYAMLError, YAMLError

from multimodal.core.digests import record_sum
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import check_folder
from multimodal.core.hardware import share_cores
from multimodal.core.model_folder import save_tensors
from multimodal.core.run_folder import CHECKPOINTS, PREDICTIONS
from multimodal.data.datamodule import DataModule
from multimodal.evaluation.callback import RetrievalMonitor
from multimodal.experiment import class_paths
from multimodal.experiment.checkpoints import check_readable
from multimodal.experiment.named_classes import check_named_classes
from multimodal.experiment.parser_errors import SettingError, error_chain, explain, explain_setting_error
from multimodal.experiment.quiet import QuietTrainer, quiet_libraries
from multimodal.experiment.run_lock import run_lock
from multimodal.experiment.trainer_settings import (
    TRAINER_ERRORS,
    explain_misconfiguration,
    run_loggers,
    trainer_defaults,
)
from multimodal.experiment.unused_settings import warn_of_unused_settings
from multimodal.experiment.write_config import write_config
from multimodal.training.callbacks.defaults import default_callbacks
from multimodal.training.callbacks.text_loss import TextLossMonitor
from multimodal.training.checkpoint_io import checkpoint_to_resume
from multimodal.training.module import EmbedderModule
from multimodal.training.text_pretraining import TextPretrainingModule
from multimodal.training.training_module import TrainingModule

# A setting that may be anything (`data.table`, an encoder's own settings) is not made into the object that it may name, and
# nothing in a configuration is fetched as a further configuration; Lightning turns the latter on.
set_parsing_settings(
    instantiate_subclass_spec_in_any=False, config_read_mode_fsspec_enabled=False, config_read_mode_urls_enabled=False
)


def train(command: str, arguments: list[str]) -> None:
    """Run ``fit``, ``validate``, ``test``, ``predict`` or ``pretrain`` with command-line arguments."""
    _name_encoders_in_yaml()
    arguments = ["--print_config=comments" if a == "--print_config" else a for a in arguments]
    cli_class = PretrainCLI if command == "pretrain" else TrainCLI
    subcommand = "fit" if command == "pretrain" else command
    with quiet_libraries(), ExitStack() as locks:
        _build(_locking(cli_class, locks), [subcommand, *class_paths.resolve_names_in_arguments(arguments)], run=True)


def _name_encoders_in_yaml() -> None:
    """Let configuration files name encoders by their registered names."""
    load_yaml = get_loader("yaml")
    set_loader("yaml", lambda stream: class_paths.resolve_names_in_config(load_yaml(stream)), (YAMLError,))


def _locking(cli_class: type[TrainCLI], locks: ExitStack) -> type[TrainCLI]:
    """The command line, which locks the run folder that it trains in until ``locks`` is closed."""

    class Locking(cli_class):
        def before_instantiate_classes(self) -> None:
            if self.subcommand == "fit":
                locks.enter_context(run_lock(self.run_folder))
            super().before_instantiate_classes()

    return Locking


def objects_of(cli_class: type[TrainCLI], config: dict[str, Any]) -> TrainCLI:
    """The command line with ``model``, ``datamodule`` and ``trainer`` made from a configuration; nothing is run."""
    with quiet_libraries():
        return _build(cli_class, config, run=False)


def completed(cli_class: type[TrainCLI], config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with every key, those that it leaves out with their defaults; nothing is made or seeded."""
    with quiet_libraries():
        cli = _build(_without_objects(cli_class), class_paths.resolve_names_in_config(config), run=False)
    return yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))


def completed_from_arguments(arguments: list[str]) -> dict[str, Any]:
    """The configuration that ``multimodal fit`` would train with these arguments; nothing is made or seeded.

    Raises:
        UsageError: a key is unknown, or a value has another type.
    """
    _name_encoders_in_yaml()
    with quiet_libraries():
        cli = _build(_without_objects(TrainCLI), class_paths.resolve_names_in_arguments(arguments), run=False)
    return yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))


def _without_objects(cli_class: type[TrainCLI]) -> type[TrainCLI]:
    class WithoutObjects(cli_class):
        def _set_seed(self) -> None: ...

        def instantiate_classes(self) -> None: ...

    return WithoutObjects


def _build(cli_class: type[TrainCLI], args: Any, run: bool) -> TrainCLI:
    return cli_class(
        cli_class.module,
        DataModule,
        parser_class=_Parser,
        save_config_callback=_SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        trainer_class=QuietTrainer,
        trainer_defaults=trainer_defaults(),
        auto_configure_optimizers=False,
        args=args,
        run=run,
    )


class _Parser(LightningArgumentParser):
    """Raises errors, which are reported in one line; options may not be abbreviated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self._target_class: type | None = None

    def add_class_arguments(self, theclass: type, *args: Any, **kwargs: Any) -> Any:
        self._target_class = theclass  # whose settings it parses, where it is a class's own parser
        return super().add_class_arguments(theclass, *args, **kwargs)

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse_path(cfg_path, *args, **kwargs)
        except Exception as error:
            yaml_error = next((cause for cause in error_chain(error) if isinstance(cause, MarkedYAMLError)), None)
            if yaml_error is None or yaml_error.problem_mark is None:
                raise
            where = f"line {yaml_error.problem_mark.line + 1}, column {yaml_error.problem_mark.column + 1}"
            raise UsageError(f"{cfg_path}, {where}: this is not YAML: {yaml_error.problem}.") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            raise SettingError(
                explain_setting_error(self._target_class, list(self.get_defaults().keys()), message)
            ) from ex
        unknown = re.search(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", message)
        options = list(chain.from_iterable(parser.get_defaults().keys() for parser in self._with_subcommands()))
        close = get_close_matches(unknown[1] or unknown[2], options, n=1) if unknown else []
        if file := re.fullmatch(r"unrecognized arguments: ([^-]\S*\.ya?ml)", message):
            raise UsageError(f"{explain(message, ex)} Did you mean --config {file[1]}?") from ex
        raise UsageError(explain(message, ex) + "".join(f" Did you mean {name!r}?" for name in close)) from ex

    def _with_subcommands(self) -> list[LightningArgumentParser]:
        commands = self._subcommands_action
        return [self] if commands is None else list(commands._name_parser_map.values())


class TrainCLI(LightningCLI):
    """Trains an ``EmbedderModule``.

    Attributes:
        module: the Lightning module's class.
        objective: the class path of the default objective.
        report: what measures validation and chooses the best model.

    Examples:
        >>> TrainCLI.module.__name__, PretrainCLI.module.__name__
        ('EmbedderModule', 'TextPretrainingModule')
    """

    module: type[TrainingModule] = EmbedderModule
    objective = "multimodal.objectives.InfoNCE"
    report: type[RetrievalMonitor] | type[TextLossMonitor] = RetrievalMonitor

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, default="run", help="The run's folder: checkpoints, logs, the model.")
        parser.link_arguments("run", "trainer.default_root_dir")
        parser.add_argument(
            "--monitor",
            type=str | None,
            default=None,
            help=f"The metric of the validation that chooses the best model (default: {self.report().monitor}).",
        )
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
        # Lightning's own warns of arguments that are not sys.argv's
        if isinstance(args, dict):
            known = sorted({key.partition(".")[0] for key in parser.get_defaults().keys()})  # noqa: SIM118 (nested keys)
            for key in args:
                if key not in known:  # jsonargparse does not see one without a value inside
                    raise UsageError(f"A configuration has no setting {key!r}.{suggest(key, known)}")
            self.config = parser.parse_object(args)
        else:
            self.config = parser.parse_args(args)
        command = self.config.get("subcommand")
        check_named_classes(self.config[command] if command else self.config)

    @property
    def settings(self) -> Any:
        """The configuration, of the command that was called if there is one."""
        return self.config if self.subcommand is None else self.config[self.subcommand]

    @property
    def run_folder(self) -> Path:
        return Path(self.settings.run)

    def before_instantiate_classes(self) -> None:
        if self.subcommand is None:
            return
        check_folder(self.run_folder)
        config = self.settings
        config.weights_only = True  # no pickle is loaded
        share_cores(config.data.workers)
        checkpoints = self.run_folder / CHECKPOINTS
        if self.subcommand != "fit":
            config.ckpt_path = config.ckpt_path or "best"
            if config.ckpt_path in ("best", "last"):
                config.ckpt_path = str(checkpoints / f"{config.ckpt_path}.ckpt")
        elif config.ckpt_path == "last":
            config.ckpt_path = checkpoint_to_resume(self.run_folder)
        elif config.ckpt_path is None and checkpoints.exists():
            raise MultimodalError(
                f"{self.run_folder} holds a run already. Resume it with --ckpt_path last,"
                " name another folder with --run, or remove it."
            )
        if config.ckpt_path is not None and not Path(config.ckpt_path).is_file():
            raise MultimodalError(f"The checkpoint {config.ckpt_path} does not exist.")
        if config.ckpt_path is not None:
            check_readable(Path(config.ckpt_path))

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        if self._get(self.config_init, "trainer")["logger"] in (None, True):
            kwargs["logger"] = run_loggers(self.run_folder)
        try:
            return super().instantiate_trainer(**kwargs)
        except TRAINER_ERRORS as error:
            wanted = self._get(self.config_init, "trainer")["accelerator"]
            raise UsageError(explain_misconfiguration(str(error), wanted)) from error

    def before_fit(self) -> None:
        if self.trainer.is_global_zero:
            warn_of_unused_settings(self.model, self.datamodule)

    def after_predict(self) -> None:
        """Lightning keeps the predictions in memory; write them where the run is."""
        embeddings = Embeddings.cat(self.trainer.predict_loop.predictions)
        tensors = {"groups": embeddings.groups}
        for modality in embeddings.modalities:
            tensors[f"{modality}.vectors"] = embeddings.vectors[modality]
            tensors[f"{modality}.rows"] = embeddings.rows[modality]
        keys = {"keys": json.dumps(list(embeddings.keys))}  # row -> key, in the file's metadata
        save_tensors(tensors, self.run_folder / PREDICTIONS, metadata=keys)
        record_sum(self.run_folder, PREDICTIONS)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        named = config["callbacks"] or []
        own = named if isinstance(named, list) else [named]
        bar = config["enable_progress_bar"] is not False
        monitor = self.settings.monitor
        report = self.report() if monitor is None else self.report(monitor)
        config["callbacks"] = default_callbacks(self.run_folder, report, own, bar)
        return super()._instantiate_trainer(config, callbacks)


class PretrainCLI(TrainCLI):
    """Trains a ``TextPretrainingModule``.

    Examples:
        >>> PretrainCLI.objective
        'multimodal.objectives.MaskedTokens'
    """

    module = TextPretrainingModule
    objective = "multimodal.objectives.MaskedTokens"
    report = TextLossMonitor


class _SaveConfig(SaveConfigCallback):
    """Writes the configuration that was parsed, before the first step: what fails earlier leaves no folder."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pass

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        write_config(Path(trainer.default_root_dir), config)
