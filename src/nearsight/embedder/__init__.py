"""Embeds images: decodes and computes vectors in threads or processes, in input order and bounded memory."""

from nearsight.embedder.embedder import BATCH_SIZE, Embedder
from nearsight.embedder.known_vectors import KnownVectors, NoNetwork
from nearsight.embedder.results import Embedded, Embeddings, OnError

__all__ = ["BATCH_SIZE", "Embedded", "Embedder", "Embeddings", "KnownVectors", "NoNetwork", "OnError"]
