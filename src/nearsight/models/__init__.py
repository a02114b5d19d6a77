"""Models: their facts, how to find them by name, and the one protocol they all stand behind."""

from nearsight.models.base import Backend, ModelEntry, TextTower
from nearsight.models.registry import DEFAULT_MODEL, find_model, list_models, load_model, load_text_encoder
from nearsight.models.spec import Fingerprint, ModelSpec

__all__ = [
    "DEFAULT_MODEL",
    "Backend",
    "Fingerprint",
    "ModelEntry",
    "ModelSpec",
    "TextTower",
    "find_model",
    "list_models",
    "load_model",
    "load_text_encoder",
]
