"""Nearest-neighbour search: one interface (``engine``), one file for each implementation."""
