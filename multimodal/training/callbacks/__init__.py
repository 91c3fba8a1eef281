"""What watches a training run, one callback a file; ``defaults`` puts together those of every run."""
