"""The folder of the real data that some tests use: next to the checkout, or set by the environment."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("MULTIMODAL_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
