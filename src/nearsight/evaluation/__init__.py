"""Models judged on one's own labeled images: metrics, intervals, and "tie" as an answer."""

from nearsight.evaluation.dimension import DimensionAdvice, DimensionRow, advise_dimension
from nearsight.evaluation.dimension_curve import DIMENSIONS, advised_dim, curve_dimensions, pca_curve
from nearsight.evaluation.evaluate import (
    DEFAULT_METRIC,
    METRICS,
    ModelVectors,
    duplicate_groups,
    embed_by,
    evaluate,
    task_of,
)
from nearsight.evaluation.labeled_folder import LabeledFolder, read_labeled_folder, split_and_names
from nearsight.evaluation.results import (
    Comparison,
    Evaluation,
    LearnedClasses,
    ModelResult,
    SkippedModel,
    class_means,
    learned_sentence,
    metric_title,
)
from nearsight.evaluation.significance import (
    Estimate,
    PairedDifference,
    estimate,
    estimates,
    holm,
    paired_difference,
    paired_differences,
)

__all__ = [
    "DEFAULT_METRIC",
    "DIMENSIONS",
    "METRICS",
    "Comparison",
    "DimensionAdvice",
    "DimensionRow",
    "Estimate",
    "Evaluation",
    "LabeledFolder",
    "LearnedClasses",
    "ModelResult",
    "ModelVectors",
    "PairedDifference",
    "SkippedModel",
    "advise_dimension",
    "advised_dim",
    "class_means",
    "curve_dimensions",
    "duplicate_groups",
    "embed_by",
    "estimate",
    "estimates",
    "evaluate",
    "holm",
    "learned_sentence",
    "metric_title",
    "paired_difference",
    "paired_differences",
    "pca_curve",
    "read_labeled_folder",
    "split_and_names",
    "task_of",
]
