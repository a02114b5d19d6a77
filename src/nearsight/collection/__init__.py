"""Collections: images with their vectors of one model, in a directory."""

from nearsight.collection.collection import Collection
from nearsight.collection.results import AddReport, Item, Match

__all__ = ["AddReport", "Collection", "Item", "Match"]
