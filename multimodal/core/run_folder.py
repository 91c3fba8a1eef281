"""The names of the files and folders in a run folder."""

RUN_MODEL = "model"  # the best model, as ``Embedder.save_pretrained`` writes it
RUN_CONFIG = "config.yaml"  # the full configuration that training was started with
CHECKPOINTS = "checkpoints"  # the folder of best.ckpt and last.ckpt
BEST, LAST = (
    "best.ckpt",
    "last.ckpt",
)  # at the best validation; at the last validation or at the step where Ctrl-C stopped
LOGS = "logs"  # metrics.csv and TensorBoard's events, in one version_N folder for each start
REJECTS = "rejects.jsonl"  # the rows that could not be read
PREDICTIONS = "predictions.safetensors"  # what ``multimodal predict`` writes
