"""Features of images by trained layers, from the feature maps before these layers: no image is read again."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from nearsight.estimators.neighbors import unit_length
from nearsight.training.backbone.network import EfficientNetLite
from nearsight.training.backbone.sources import StoredMaps
from nearsight.training.network_features import FeatureNetwork

_N_AT_ONCE = 64


def features_of_maps(
    tail: EfficientNetLite,
    source: StoredMaps,
    network: FeatureNetwork,
    before: Sequence[NDArray[np.floating]],
    device: str,
) -> list[NDArray[np.float32]]:
    """Return the features of each view of all images of the source.

    Parameters
    ----------
    tail : EfficientNetLite
        The trained layers.
    source : StoredMaps
        Their inputs.
    network : FeatureNetwork
        The whole network.
    before : sequence of ndarray of shape (n, d)
        Features of as many views, by the pretrained network; those of layers before `tail` stay.
    device : str
    """
    tail = tail.to(device, memory_format=torch.channels_last)
    is_last_layer_used = bool(network.layers) and network.layers[-1].startswith(f"block{tail.first_block}.")
    views = []
    for number, old in enumerate(before):
        features = np.array(old, np.float32)
        for start in range(0, len(features), _N_AT_ONCE):
            rows = np.arange(start, min(start + _N_AT_ONCE, len(features)))
            vectors, statistics = _computed(tail, source.views(rows, np.full(len(rows), number), 0), device)
            if network.base.normalize:
                vectors = unit_length(vectors)
            features[rows, : network.base.dim] = vectors
            if is_last_layer_used:
                features[rows, -statistics.shape[1] :] = statistics
        views.append(features)
    return views


def _computed(
    tail: EfficientNetLite, maps: NDArray[np.float32], device: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors, and mean and standard deviation of the last block, of its inputs."""
    inputs = torch.from_numpy(maps).to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        last = tail.last_maps(inputs)
        spread = last.std(dim=(2, 3), correction=0)
        statistics = torch.cat([last.mean(dim=(2, 3)), spread], dim=1)
        vectors = tail.pooled(last)
    return vectors.cpu().numpy(), statistics.cpu().numpy()
