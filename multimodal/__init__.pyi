from .core.batch import Batch, Sample
from .core.embedder import Embedder
from .core.embeddings import Embeddings
from .core.encoder import Encoder, Inputs, Processor
from .core.errors import MultimodalError, Unreadable, UsageError
from .core.lora import LoRA
from .core.predictors import Predictions
from .core.registry import create, register
from .core.verify import CheckedFile, verify_files
from .data.datamodule import DataModule
from .data.samples import Samples
from .data.tables.open import open_table
from .evaluation.classify import Classified, classify_table
from .evaluation.report import Report
from .evaluation.run_evaluation import evaluate
from .experiment.fit import fit
from .experiment.load import Experiment, load_config
from .experiment.seed import seed_everything
from .experiment.trainer import make_trainer
from .export.folder import export_model
from .objectives import InfoNCE
from .prepare.table import prepare_table
from .search.embed import embed_table
from .search.hits import Hit, Hits
from .search.index import Index
from .search.query import search_index
from .training.module import EmbedderModule
from .training.text_pretraining import TextPretrainingModule

__version__: str
__all__ = [
    "Batch",
    "CheckedFile",
    "Classified",
    "DataModule",
    "Embedder",
    "EmbedderModule",
    "Embeddings",
    "Encoder",
    "Experiment",
    "Hit",
    "Hits",
    "Index",
    "InfoNCE",
    "Inputs",
    "LoRA",
    "MultimodalError",
    "Predictions",
    "Processor",
    "Report",
    "Sample",
    "Samples",
    "TextPretrainingModule",
    "Unreadable",
    "UsageError",
    "__version__",
    "classify_table",
    "create",
    "embed_table",
    "evaluate",
    "export_model",
    "fit",
    "load_config",
    "make_trainer",
    "open_table",
    "prepare_table",
    "register",
    "search_index",
    "seed_everything",
    "verify_files",
]
