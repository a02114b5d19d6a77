"""Models: their facts, their names, and the protocol that each implements."""

from nearsight.models.base import Backend, ModelEntry, Preparation, SeparableBackend, TextEncoder
from nearsight.models.decode_mode import decode_mode, named_with_decode
from nearsight.models.fingerprint import Fingerprint
from nearsight.models.registry import DEFAULT_MODEL, find_model, list_models, load_model, load_text_encoder
from nearsight.models.spec import ModelSpec

__all__ = [
    "DEFAULT_MODEL",
    "Backend",
    "Fingerprint",
    "ModelEntry",
    "ModelSpec",
    "Preparation",
    "SeparableBackend",
    "TextEncoder",
    "decode_mode",
    "find_model",
    "list_models",
    "load_model",
    "load_text_encoder",
    "named_with_decode",
]
