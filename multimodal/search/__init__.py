"""Embeddings on disk, and search among them."""
