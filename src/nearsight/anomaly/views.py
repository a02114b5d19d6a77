"""Views of an image: enlarged tiles for its details, and the whole image at once for its layout."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from nearsight.anomaly.tiling import cut_tiles, join_features, plan_tiles, resize_map
from nearsight.models.dense_features import FeatureMaps

if TYPE_CHECKING:
    from nearsight.estimators.anomaly import ScoreScale

# Standard deviation of the smoothing, in positions of the finest map (Roth et al. 2022, section 3.3: 4 of 224
# pixels).
_SMOOTHING = 0.5


@dataclass(frozen=True, slots=True)
class View:
    """How an image is shown to the network.

    Attributes
    ----------
    scale : float
        Pixels of the tiles for one pixel of the image, at least; 0 for the whole image, stretched to one
        tile.
    layers : tuple of str
        Compared in this view.
    """

    scale: float
    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name in results."""
        return "tiles" if self.scale else "whole"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a file."""
        return {"scale": self.scale, "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "View":
        """Return the view that `to_dict` was called on."""
        return cls(float(data["scale"]), tuple(data["layers"]))


def default_views(layers: Sequence[str], scale: float) -> tuple[View, ...]:
    """Return the tiles, for all layers but the deepest, and the whole image, for the two deepest.

    A deep layer sees most of a tile: it judges the layout, for which it must see the whole image.

    Examples
    --------
    >>> [view.layers for view in default_views(["fine", "middle", "deep"], 2)]
    [('fine', 'middle'), ('middle', 'deep')]
    """
    return View(scale, tuple(layers[:-1] or layers)), View(0, tuple(layers[-2:]))


@dataclass(frozen=True, slots=True)
class ViewMaps:
    """Feature maps of one image: a map of (h, w, d) for each level, which is a layer in a view."""

    image_px: tuple[int, int]
    maps: list[NDArray[np.float32]] = field(repr=False)


class ViewExtractor:
    """Computes the feature maps of images in several views; threads may share it.

    Parameters
    ----------
    features : FeatureMaps
        Layers of a network.
    views : sequence of View
        Of these layers.
    max_tiles : int
        Tiles of an image in one view, at most.
    """

    def __init__(self, features: FeatureMaps, views: Sequence[View], max_tiles: int) -> None:
        self.views = tuple(views)
        self.max_tiles = max_tiles
        # Each view computes no more of the network than its layers need.
        self._networks = [features.up_to(view.layers) for view in self.views]

    @property
    def levels(self) -> list[str]:
        """Names of the levels, in the order of the maps."""
        return [f"{view.name} {layer}" for view in self.views for layer in view.layers]

    def extract(self, image: Image.Image) -> ViewMaps:
        """Return the feature maps of an RGB image."""
        image_px = (image.height, image.width)
        maps = []
        for view, network in zip(self.views, self._networks, strict=True):
            spec = network.spec
            most = self.max_tiles if view.scale else 1
            grid = plan_tiles(image_px, spec.input_px, most, scale=view.scale)
            tiles = [network.maps(tile) for tile in cut_tiles(image, spec, grid)]
            maps += [join_features(layer, grid) for layer in zip(*tiles, strict=True)]
        return ViewMaps(image_px, maps)


def combined_heat(
    heat: Sequence[NDArray[np.float32]], unit: "ScoreScale", image_px: tuple[int, int]
) -> NDArray[np.float32]:
    """Combine the heat of several levels to a map of the image's size.

    Parameters
    ----------
    heat : sequence of ndarray of shape (h, w), float32
        At least one; the combination is computed at the finest resolution among them.
    unit : ScoreScale
        Of the combination.
    image_px : tuple of int
        Height and width.
    """
    from nearsight.estimators.anomaly import combine_scores

    finest = max((values.shape for values in heat), key=lambda shape: shape[0] * shape[1])
    size = (finest[0], finest[1])
    combined = unit.standardized(combine_scores([resize_map(values, size) for values in heat]))
    return resize_map(
        scipy.ndimage.gaussian_filter(combined.astype(np.float32), _SMOOTHING, mode="nearest"), image_px
    )
