"""Where the real data is that some tests use: next to the checkout, or where the environment says."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("MULTIMODAL_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
