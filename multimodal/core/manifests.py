"""Names of the files that this package writes, and by which it knows what a folder is; without imports, as many need them."""

MODEL, WEIGHTS = "embedder.json", "model.safetensors"
INDEX, VECTORS, ITEMS = "index.json", "vectors.npy", "items.parquet"
LAYOUT = "layout.json"  # of an index's engine
EMBEDDINGS = "embeddings.json"
PREPARED = "prepare.json"  # in folders that ``multimodal prepare`` wrote
EXPORT = "export.json"
COPY_DIGESTS = "digests.json"  # of copies in the cache
