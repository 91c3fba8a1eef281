"""What finds the nearest vectors: one interface (``engine``), one file for each implementation."""
