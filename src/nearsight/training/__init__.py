"""Models of one's own: trained on labeled images, judged on others, written as a folder."""

from nearsight.training.augmentation import AUGMENTATIONS, contact_sheet
from nearsight.training.model_folder import learned_classes, require_free, write_model
from nearsight.training.results import Figure, Training
from nearsight.training.train import DEFAULT_VIEWS, DEPTHS, train

__all__ = [
    "AUGMENTATIONS",
    "DEFAULT_VIEWS",
    "DEPTHS",
    "Figure",
    "Training",
    "contact_sheet",
    "learned_classes",
    "require_free",
    "train",
    "write_model",
]
