"""Classification from few examples, and which rows to label next."""

from nearsight.estimators.classification.few_shot import FewShotClassifier
from nearsight.estimators.classification.label_suggestions import suggest

__all__ = ["FewShotClassifier", "suggest"]
