"""The part of a map that shows some images."""

from nearsight.analyses.map import ImageMap
from nearsight.collection import Collection, Item


def place_on_map(collection: Collection, layout: ImageMap, where: str | None) -> tuple[list[Item], ImageMap]:
    """Return the images that match and are on a map, and the part of the map that shows them."""
    on_map = set(layout.ids)
    items = [item for item in collection.items(where) if item.id in on_map]
    return items, layout.subset([item.id for item in items])
