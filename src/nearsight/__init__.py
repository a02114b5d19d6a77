"""Image embeddings you can trust, from one pass over your images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nearsight._version import __version__ as __version__

# Names are loaded on first use, so that `import nearsight` and `nearsight --help` stay instant.
_HOMES = {
    "AnomalyDetector": "anomaly",
    "Collection": "collection",
    "Embedder": "embedder",
    "FaceBank": "faces",
    "ImageFailure": "errors",
    "ImageEmbeddingTransformer": "transformer",
    "AnomalyResult": "anomaly",
    "Limits": "images",
    "ModelSpec": "models",
    "NearsightError": "errors",
    "list_models": "models",
    "fit_sift_vlad": "models.sift_vlad.model",
    "geometric_rerank": "verification.keypoints",
    "load_model": "models",
    "load_text_encoder": "models",
}

__all__ = [
    "AnomalyDetector",
    "AnomalyResult",
    "Collection",
    "Embedder",
    "FaceBank",
    "ImageEmbeddingTransformer",
    "ImageFailure",
    "Limits",
    "ModelSpec",
    "NearsightError",
    "fit_sift_vlad",
    "geometric_rerank",
    "list_models",
    "load_model",
    "load_text_encoder",
]

if TYPE_CHECKING:
    from nearsight.anomaly import AnomalyDetector, AnomalyResult
    from nearsight.collection import Collection
    from nearsight.embedder import Embedder
    from nearsight.errors import ImageFailure, NearsightError
    from nearsight.faces import FaceBank
    from nearsight.images import Limits
    from nearsight.models import ModelSpec, list_models, load_model, load_text_encoder
    from nearsight.models.sift_vlad.model import fit_sift_vlad
    from nearsight.transformer import ImageEmbeddingTransformer
    from nearsight.verification.keypoints import geometric_rerank


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nearsight' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"nearsight.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
