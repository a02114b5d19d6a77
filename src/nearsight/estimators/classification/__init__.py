"""Classification from few examples, which rows to label next, and labels that are probably wrong."""

from nearsight.estimators.classification.few_shot import FewShotClassifier
from nearsight.estimators.classification.held_out import HeldOut, Selection, judge_held_out
from nearsight.estimators.classification.label_errors import LabelCut, LabelErrors, find_label_errors
from nearsight.estimators.classification.label_suggestions import suggest
from nearsight.estimators.classification.unlabeled_rows import MAX_UNLABELED

__all__ = [
    "MAX_UNLABELED",
    "FewShotClassifier",
    "HeldOut",
    "LabelCut",
    "LabelErrors",
    "Selection",
    "find_label_errors",
    "judge_held_out",
    "suggest",
]
