"""Heatmaps as they are kept: small, since they are smooth."""

import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Values a side.
_HEAT_SIDE = 128


def packed(heatmap: NDArray[np.float32]) -> bytes:
    """Return a heatmap as bytes, at most 128 values a side: width, height, and compressed half floats."""
    height, width = heatmap.shape
    factor = min(1.0, _HEAT_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # A box covers every place, so that nothing small falls between the grid's points.
    small = Image.fromarray(np.ascontiguousarray(heatmap, np.float32)).resize(size, Image.Resampling.BOX)
    values = np.clip(np.asarray(small), -60_000, 60_000).astype("<f2")
    return np.array(size, "<u2").tobytes() + zlib.compress(values.tobytes(), 6)


def unpacked(data: bytes) -> NDArray[np.float32]:
    """Return the (height, width) heatmap that `packed` made small."""
    width, height = np.frombuffer(data[:4], "<u2")
    values = np.frombuffer(zlib.decompress(data[4:]), "<f2")
    return values.reshape(int(height), int(width)).astype(np.float32)
