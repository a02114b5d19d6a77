"""Labels from a handful of examples, and which pictures to label next."""

from nearsight.tasks.fewshot.classifier import FewShotClassifier
from nearsight.tasks.fewshot.suggest import suggest

__all__ = ["FewShotClassifier", "suggest"]
