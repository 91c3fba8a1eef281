from .core.batch import Batch, Sample
from .core.embedder import Embedder
from .core.embeddings import Embeddings
from .core.encoder import Encoder, Inputs, Processor
from .core.ensemble import ensemble
from .core.errors import MultimodalError, Unreadable, UsageError
from .core.lora import LoRA
from .core.parts import Parts
from .core.predictors import Predictions
from .core.registry import create, register
from .core.verify import CheckedFile, verify_files
from .data.datamodule import DataModule
from .data.samples import Samples
from .data.tables.open import open_table
from .evaluation.calibrate import calibrate
from .evaluation.classify import Classified, classify_table
from .evaluation.compare import compare
from .evaluation.comparison import Comparison
from .evaluation.explain import explain
from .evaluation.explanation import Explanation
from .evaluation.faults import Faults
from .evaluation.find_faults import find_faults
from .evaluation.report import Report
from .evaluation.run_evaluation import evaluate
from .experiment.ensemble_runs import ensemble_runs
from .experiment.fit import fit
from .experiment.load import Experiment, load_config
from .experiment.seed import seed_everything
from .experiment.sweep.results import Sweep
from .experiment.sweep.run_sweep import sweep
from .experiment.trainer import make_trainer
from .export.folder import export_model
from .monitor.canary import CanaryResult, run_canaries
from .monitor.drift import drift
from .monitor.drift_result import Drift
from .monitor.feedback import Feedback, read_feedback
from .monitor.feedback_pairs import weighted_pairs
from .monitor.fit_query_map import MapReport
from .monitor.map_index import map_index
from .monitor.mine import RowsToPair, mine_rows
from .monitor.mine_negatives import MinedNegatives, mine_negatives
from .monitor.query_log import delete_queries, read_queries
from .monitor.refine import Refined, RefineSettings, refine
from .monitor.rerank import FeedbackRanking
from .monitor.upgrade import Upgraded, rollback_index, upgrade_index
from .objectives import InfoNCE
from .prepare.synthesize.outcome import Synthesized
from .prepare.synthesize.table import synthesize_table
from .prepare.table import prepare_table
from .search.embed import embed_table
from .search.gallery import write_gallery
from .search.hits import Hit, Hits
from .search.index import Index
from .search.query import search_index
from .search.retriever import Retriever
from .training.module import EmbedderModule
from .training.text_pretraining import TextPretrainingModule

__version__: str
__all__ = [
    "Batch",
    "CanaryResult",
    "CheckedFile",
    "Classified",
    "Comparison",
    "DataModule",
    "Drift",
    "Embedder",
    "EmbedderModule",
    "Embeddings",
    "Encoder",
    "Experiment",
    "Explanation",
    "Faults",
    "Feedback",
    "FeedbackRanking",
    "Hit",
    "Hits",
    "Index",
    "InfoNCE",
    "Inputs",
    "LoRA",
    "MapReport",
    "MinedNegatives",
    "MultimodalError",
    "Parts",
    "Predictions",
    "Processor",
    "RefineSettings",
    "Refined",
    "Report",
    "Retriever",
    "RowsToPair",
    "Sample",
    "Samples",
    "Sweep",
    "Synthesized",
    "TextPretrainingModule",
    "Unreadable",
    "Upgraded",
    "UsageError",
    "__version__",
    "calibrate",
    "classify_table",
    "compare",
    "create",
    "delete_queries",
    "drift",
    "embed_table",
    "ensemble",
    "ensemble_runs",
    "evaluate",
    "explain",
    "export_model",
    "find_faults",
    "fit",
    "load_config",
    "make_trainer",
    "map_index",
    "mine_negatives",
    "mine_rows",
    "open_table",
    "prepare_table",
    "read_feedback",
    "read_queries",
    "refine",
    "register",
    "rollback_index",
    "run_canaries",
    "search_index",
    "seed_everything",
    "sweep",
    "synthesize_table",
    "upgrade_index",
    "verify_files",
    "weighted_pairs",
    "write_gallery",
]
