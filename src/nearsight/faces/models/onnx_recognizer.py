"""Turns aligned faces into vectors with an ONNX file, whichever family it is of."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.pooling import finished
from nearsight.models.runtimes.onnx import Network
from nearsight.models.spec import ModelSpec

#: Where ArcFace, and OpenCV's SFace, expect eyes, nose and corners of the mouth in 112×112 pixels
#: (Deng et al. 2019, arXiv 1801.07698, as published with its code).
ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


class OnnxRecognizer:
    """A face network in an ONNX file, run on the calling thread.

    *Method*: the vector of a face is that of its aligned image or, with `is_mirrored`, the mean of that and
    of its mirror image's, so that what a network has learned of left and right cancels out. On the first half
    of the ORL persons that took a third more time and told persons apart no better, so it is off.

    Parameters
    ----------
    spec : ModelSpec
        Its facts. `mean` and `std` are on RGB values in 0..1.
    model : bytes
        The file's content: one input (1 or n, 3, H, W), and an output (n, dim) called `spec.layer`.
    template : array of shape (5, 2)
        Where landmarks lie in its input, in pixels.
    weights : array of shape (5,)
        How much each counts in getting there.
    is_mirrored : bool, default False
        Whether the mirror image counts as well; embedding then takes twice the time.

    Raises
    ------
    WeightsError
        The file is no sound ONNX model, or has other inputs or outputs.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: bytes,
        *,
        template: Sequence[tuple[float, float]] = ARCFACE_TEMPLATE,
        weights: Sequence[float] = (1, 1, 1, 1, 1),
        is_mirrored: bool = False,
    ) -> None:
        self.spec = spec
        self.template = np.array(template, np.float32)
        self.weights = np.array(weights, np.float32)
        self.is_mirrored = is_mirrored
        self._network = Network(spec.id, model)
        inputs = self._network.inputs
        if len(inputs) != 1 or spec.layer not in self._network.outputs:
            raise WeightsError(
                f"{spec.id} takes {inputs} and gives {self._network.outputs}; a face recognizer takes one "
                f"image and gives {spec.layer!r}"
            )
        (self._input,) = inputs
        self._mean = 255 * np.array(spec.mean, np.float32)
        self._std = 255 * np.array(spec.std, np.float32)

    def embed(self, chips: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the vectors of aligned faces.

        Parameters
        ----------
        chips : sequence of ndarray of uint8, each of shape (H, W, 3)
            RGB, as `align.chip` returns them.

        Returns
        -------
        ndarray of float32, shape (n, dim)
            Unit length.
        """
        vectors = np.empty((len(chips), self.spec.dim), np.float32)
        for vector, chip in zip(vectors, chips, strict=True):
            vector[:] = self._raw(chip)
            if self.is_mirrored:
                vector += self._raw(chip[:, ::-1])
        return finished(vectors, self.spec)

    def _raw(self, chip: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = ((chip - self._mean) / self._std).astype(np.float32).transpose(2, 0, 1)[None]
        found: NDArray[np.float32] = self._network.run(
            self.spec.layer, {self._input: np.ascontiguousarray(pixels)}
        )
        if found.shape != (1, self.spec.dim):
            raise WeightsError(f"{self.spec.id} should give (1, {self.spec.dim}), but gives {found.shape}")
        vector: NDArray[np.float32] = found[0]
        return vector
