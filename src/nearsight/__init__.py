"""Image embeddings you can trust, from one pass over your pictures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nearsight._version import __version__ as __version__

# Names are loaded on first use, so that `import nearsight` and `nearsight --help` stay instant.
_HOMES = {
    "AnomalyDetector": "anomaly",
    "Collection": "collection",
    "Embedder": "embedder",
    "FaceBank": "faces",
    "Failure": "errors",
    "ImageEmbedder": "transformer",
    "Inspection": "anomaly",
    "Limits": "images",
    "ModelSpec": "models",
    "NearsightError": "errors",
    "available_models": "models",
    "fit_sift_vlad": "models.sift_vlad.model",
    "geometric_rerank": "verification.keypoints",
    "load_model": "models",
    "load_text": "models",
}

__all__ = [
    "AnomalyDetector",
    "Collection",
    "Embedder",
    "FaceBank",
    "Failure",
    "ImageEmbedder",
    "Inspection",
    "Limits",
    "ModelSpec",
    "NearsightError",
    "available_models",
    "fit_sift_vlad",
    "geometric_rerank",
    "load_model",
    "load_text",
]

if TYPE_CHECKING:
    from nearsight.anomaly import AnomalyDetector, Inspection
    from nearsight.collection import Collection
    from nearsight.embedder import Embedder
    from nearsight.errors import Failure, NearsightError
    from nearsight.faces import FaceBank
    from nearsight.images import Limits
    from nearsight.models import ModelSpec, available_models, load_model, load_text
    from nearsight.models.sift_vlad.model import fit_sift_vlad
    from nearsight.transformer import ImageEmbedder
    from nearsight.verification.keypoints import geometric_rerank


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nearsight' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"nearsight.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
