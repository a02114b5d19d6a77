"""Detectors that score every cell of three grids: SCRFD and YuNet, from the user's own file.

*Method*: SCRFD, Guo et al. 2021 (arXiv 2105.04714): distances from a cell to the four sides and offsets to
the landmarks, with strides of 8, 16 and 32 pixels. YuNet, Wu et al. 2023 (doi 10.1007/s11633-023-1423-y), as
OpenCV's model zoo publishes it: center and logarithm of the size.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.faces.models.base import Candidates, DetectorSpec
from nearsight.models.runtimes.onnx import OnnxNetwork

_STRIDES_PX = (8, 16, 32)
_MIN_SCORE = 0.2


class GridDetector:
    """A face detector of either layout.

    Parameters
    ----------
    spec : DetectorSpec
        Its `layout` is ``scrfd`` or ``yunet``.
    network : Network

    Raises
    ------
    WeightsError
        Its outputs have another layout.
    """

    def __init__(self, spec: DetectorSpec, network: OnnxNetwork) -> None:
        self.spec = spec
        self._network = network
        (self._input, shape), *_ = network.inputs.items()
        height, width = shape[2:]
        fixed = isinstance(height, int) and isinstance(width, int)
        self.input_px = (int(height), int(width)) if fixed else None

    def find(self, pixels: NDArray[np.uint8]) -> Candidates:
        """Detect faces in an RGB raster."""
        yunet = self.spec.layout == "yunet"
        # YuNet was trained on OpenCV's BGR order, and on values that are not normalized.
        values = pixels[:, :, ::-1].astype(np.float32) if yunet else (pixels - np.float32(127.5)) / 128
        inputs = {self._input: np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32)}
        out = self._network.run_all(list(self._network.outputs), inputs)
        return (decode_yunet if yunet else decode_scrfd)(out, pixels.shape[:2])


def decode_scrfd(outputs: Mapping[str, NDArray[np.float32]], size: tuple[int, ...]) -> Candidates:
    """Decode SCRFD's nine outputs to detections.

    Parameters
    ----------
    outputs : mapping of str to ndarray
        For each stride, (cells, 1) scores, (cells, 4) distances and (cells, 10) offsets, with or without a
        leading axis of 1.
    size : tuple of int
        Height and width of the raster.
    """
    by_width: dict[int, list[NDArray[np.float32]]] = {}
    for values in outputs.values():
        by_width.setdefault(values.shape[-1], []).append(values.reshape(-1, values.shape[-1]))
    if {width: len(values) for width, values in by_width.items()} != {1: 3, 4: 3, 10: 3}:
        shapes = {name: values.shape for name, values in outputs.items()}
        raise WeightsError(
            f"the outputs {shapes} are not those of SCRFD with landmarks (three of 1, 4 and 10 columns each)"
        )
    # Smaller strides have more cells.
    levels = [sorted(by_width[width], key=len, reverse=True) for width in (1, 4, 10)]
    parts = []
    for stride, scores, sides, points in zip(_STRIDES_PX, *levels, strict=True):
        cells, n_anchors = _grid_cells(size, stride, len(scores))
        detected = np.flatnonzero(scores[:, 0] > _MIN_SCORE)
        at = cells[detected // n_anchors] * stride
        sides = sides[detected] * stride
        boxes = np.concatenate([at - sides[:, :2], at + sides[:, 2:]], axis=1)
        landmarks = at[:, None] + points[detected].reshape(-1, 5, 2) * stride
        parts.append(Candidates(boxes, landmarks, scores[detected, 0]))
    return Candidates.joined(parts)


def decode_yunet(outputs: Mapping[str, NDArray[np.float32]], size: tuple[int, ...]) -> Candidates:
    """Decode YuNet's twelve outputs to detections.

    Parameters
    ----------
    outputs : mapping of str to ndarray
        ``cls_8``, ``obj_8``, ``bbox_8``, ``kps_8`` and those of 16 and 32, each (1, cells, columns).
    size : tuple of int
        Height and width of the raster.
    """
    parts = []
    for stride in _STRIDES_PX:
        try:
            cls, obj, box, kps = (
                outputs[f"{name}_{stride}"].reshape(-1, n)
                for name, n in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
            )
        except (KeyError, ValueError) as error:
            raise WeightsError(f"the outputs {', '.join(outputs)} are not those of YuNet: {error}") from error
        cells, _ = _grid_cells(size, stride, len(cls))
        scores = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        detected = np.flatnonzero(scores > _MIN_SCORE)
        centers = (cells[detected] + box[detected, :2]) * stride
        halves = np.exp(np.minimum(box[detected, 2:], 10)) * stride / 2
        landmarks = (cells[detected][:, None] + kps[detected].reshape(-1, 5, 2)) * stride
        boxes = np.concatenate([centers - halves, centers + halves], axis=1)
        parts.append(Candidates(boxes, landmarks, scores[detected]))
    return Candidates.joined(parts)


def _grid_cells(size: tuple[int, ...], stride: int, n_values: int) -> tuple[NDArray[np.float32], int]:
    """Return x and y of each cell of a grid, row by row, and the number of values for each."""
    height, width = size[0] // stride, size[1] // stride
    n_cells = height * width
    if n_cells == 0 or n_values % n_cells:
        raise WeightsError(f"{n_values} values do not fit a grid of {height}×{width} cells")
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32), n_values // n_cells
