"""Callbacks of a training run, one per file; ``defaults`` lists the callbacks of every run."""
