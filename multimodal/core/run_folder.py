"""What a run folder holds, by name."""

RUN_MODEL = "model"  # the best model, as ``Embedder.save_pretrained`` writes it
RUN_CONFIG = "config.yaml"  # the whole configuration that training was started with
CHECKPOINTS = "checkpoints"  # the folder of the two files below
BEST, LAST = "best.ckpt", "last.ckpt"  # of the best validation; of the last one, or of the step that Ctrl-C stopped at
LOGS = "logs"  # metrics.csv and TensorBoard's events, a version for each start
REJECTS = "rejects.jsonl"  # the rows that could not be read
PREDICTIONS = "predictions.safetensors"  # what ``multimodal predict`` writes
