"""Embeddings on disk, and finding things among them."""
