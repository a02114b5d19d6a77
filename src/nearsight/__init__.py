"""Image embeddings you can trust, from one pass over your images."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nearsight._version import __version__ as __version__

# ONNX Runtime (from 1.29 on) and Ray report their use over the network, and look here when they are loaded.
# Who wants that sets the variable.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# The module of each name. It is imported on first use, so that `import nearsight` is instant.
_HOMES = {
    "AddReport": "collection",
    "AnomalyDetector": "anomaly",
    "AnomalyResult": "anomaly",
    "AsyncClient": "client",
    "Client": "client",
    "Clustering": "analyses.clusters",
    "Collection": "collection",
    "Duplicates": "analyses.duplicate_groups",
    "Embedder": "embedder",
    "FaceBank": "faces",
    "FewShotClassifier": "estimators.classification",
    "Fingerprint": "models",
    "ImageEmbeddingTransformer": "transformer",
    "ImageFailure": "errors",
    "Limits": "images",
    "Match": "collection",
    "ModelSpec": "models",
    "NearsightError": "errors",
    "copy_collection": "collection",
    "list_models": "models",
    "load_model": "models",
    "load_text_encoder": "models",
}

__all__ = [
    "AddReport",
    "AnomalyDetector",
    "AnomalyResult",
    "AsyncClient",
    "Client",
    "Clustering",
    "Collection",
    "Duplicates",
    "Embedder",
    "FaceBank",
    "FewShotClassifier",
    "Fingerprint",
    "ImageEmbeddingTransformer",
    "ImageFailure",
    "Limits",
    "Match",
    "ModelSpec",
    "NearsightError",
    "copy_collection",
    "list_models",
    "load_model",
    "load_text_encoder",
]

if TYPE_CHECKING:
    from nearsight.analyses.clusters import Clustering
    from nearsight.analyses.duplicate_groups import Duplicates
    from nearsight.anomaly import AnomalyDetector, AnomalyResult
    from nearsight.client import AsyncClient, Client
    from nearsight.collection import AddReport, Collection, Match, copy_collection
    from nearsight.embedder import Embedder
    from nearsight.errors import ImageFailure, NearsightError
    from nearsight.estimators.classification import FewShotClassifier
    from nearsight.faces import FaceBank
    from nearsight.images import Limits
    from nearsight.models import Fingerprint, ModelSpec, list_models, load_model, load_text_encoder
    from nearsight.transformer import ImageEmbeddingTransformer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nearsight' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"nearsight.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
