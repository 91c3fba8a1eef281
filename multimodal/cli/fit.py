"""``multimodal fit|validate|test|predict|pretrain``: Lightning's command line, with our names, errors and defaults."""

from __future__ import annotations

import os
from collections.abc import Sequence

from multimodal.core.errors import UsageError, suggest

HELP = """\
usage: multimodal {command} --config FILE [--any.key value] [--print_config]

{what}

  --config FILE          a YAML file like configs/glyphs.yaml; may be given several times, later ones win
  --run FOLDER           the run's folder: config, checkpoints, logs, exported model
  --ckpt_path PATH       {checkpoint}
  --seed_everything N    the seed of everything random
  --data.KEY VALUE       the table and its columns, the splits, batch_size, workers
  --model.KEY VALUE      encoders, dim, begin_with, heads, freeze, lora, objective, optimizer, schedule, ...
  --trainer.KEY VALUE    Lightning's Trainer: max_steps, precision, devices, ...
  --print_config         print the full configuration, every key with its comment, and stop
  --debug                show the traceback of an error

An encoder is named by its registered name (`multimodal encoders` lists them) or by its class path. Single keys reach
into it: --model.encoders.image.init_args.arch resnet34
"""
DESCRIPTIONS = {
    "fit": "Train a model. The run folder gets checkpoints, logs, and the best model, ready for the other commands.",
    "validate": "Run the validation split through a checkpoint and print its retrieval table.",
    "test": "Run the test split through a checkpoint and print its retrieval table.",
    "predict": "Run all samples through a checkpoint and write the vectors to predictions.safetensors in the run folder.\n"
    "For many rows, and for an index, use `multimodal embed`.",
    "pretrain": "Train a text encoder on texts alone: by masked words, or its tokens as word vectors (configs/mlm.yaml,\n"
    "configs/word2vec.yaml). `fit` begins with it by model.begin_with: {text: RUN}.",
}
RESUME = "resume from a checkpoint; `last`: from the run's last one, or begin if there is none"
CHECKPOINT = {"fit": RESUME, "pretrain": RESUME}


# what Lightning's command line takes, besides keys of these
KEYS = ("config", "c", "data", "model", "monitor", "print_config", "run", "seed_everything", "trainer", "ckpt_path")
MORE_KEYS = ("weights_only", "verbose", "return_predictions")


def run(command: str, arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):  # without the seconds that Lightning takes to import
        checkpoint = CHECKPOINT.get(command, "the checkpoint to use; `best` (the default) or `last`: the run's")
        print(HELP.format(command=command, what=DESCRIPTIONS[command], checkpoint=checkpoint))
        return
    _check(command, arguments)

    from multimodal.experiment.lightning_cli import train

    train(command, arguments)


def _check(command: str, arguments: Sequence[str]) -> None:
    """Refuse what is wrong at first sight, without the seconds that Lightning takes to import.

    Raises:
        UsageError: an option is unknown, or a configuration does not exist.
    """
    for position, argument in enumerate(arguments):
        if argument == "-c":
            argument = "--config"
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            continue
        key = name.partition(".")[0].removesuffix("+")
        if key not in (*KEYS, *MORE_KEYS):
            raise UsageError(f"{command} has no option --{name}.{suggest(key, list(KEYS))}")
        if name == "config":
            value = value if equals else next(iter(arguments[position + 1 :]), "")
            if not value:
                raise UsageError("--config needs the path of a YAML file.")
            is_path = not any(character in value for character in "{:\n")  # else it is the configuration itself
            if is_path and not os.path.exists(value):
                raise UsageError(f"--config {value}: the file does not exist.")
