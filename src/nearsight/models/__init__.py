"""Models: their facts, how to find them by name, and the one protocol they all stand behind."""

from nearsight.models.base import Backend, ModelEntry, TextTower
from nearsight.models.registry import DEFAULT_MODEL, available_models, find_model, load_model, load_text
from nearsight.models.spec import Fingerprint, ModelSpec

__all__ = [
    "DEFAULT_MODEL",
    "Backend",
    "Fingerprint",
    "ModelEntry",
    "ModelSpec",
    "TextTower",
    "available_models",
    "find_model",
    "load_model",
    "load_text",
]
