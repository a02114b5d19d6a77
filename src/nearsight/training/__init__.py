"""Models of one's own: trained on labeled images, judged on others, written as a folder."""

from nearsight.training.augmentation import AUGMENTATIONS, contact_sheet
from nearsight.training.feature_embedder import FeatureEmbedder
from nearsight.training.model_folder import (
    RECORD,
    content_digest,
    learned_classes,
    learned_images,
    require_free,
    write_model,
)
from nearsight.training.results import Figure, Training
from nearsight.training.train import DEFAULT_VIEWS, DEPTHS, count_steps, feature_embedder, train

__all__ = [
    "AUGMENTATIONS",
    "DEFAULT_VIEWS",
    "DEPTHS",
    "RECORD",
    "FeatureEmbedder",
    "Figure",
    "Training",
    "contact_sheet",
    "content_digest",
    "count_steps",
    "feature_embedder",
    "learned_classes",
    "learned_images",
    "require_free",
    "train",
    "write_model",
]
