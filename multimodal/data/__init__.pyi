from .datamodule import DataModule
from .run_data import RunData, load_run_data
from .samplers import BatchSampler, EpochSampler, PairSampler
from .samples import Samples
from .schema import RowLookupProcessor, Schema
from .stream import Stream
from .tables.open import locate, open_table
from .tables.source import Source

__all__ = [
    "BatchSampler",
    "DataModule",
    "EpochSampler",
    "PairSampler",
    "RowLookupProcessor",
    "RunData",
    "Samples",
    "Schema",
    "Source",
    "Stream",
    "load_run_data",
    "locate",
    "open_table",
]
