"""Face recognizers in ONNX files: dlib's network, ArcFace and SFace."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.pooling import check_and_normalize
from nearsight.models.runtimes.onnx import OnnxNetwork
from nearsight.models.spec import ModelSpec

#: Positions of eyes, nose and corners of the mouth in the 112×112 pixels of ArcFace and OpenCV's SFace
#: (Deng et al. 2019, arXiv 1801.07698, as published with its code).
ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


class OnnxRecognizer:
    """A face recognizer in an ONNX file, run on the calling thread.

    The faces of a batch are computed one by one: on a processor two in one batch took as long as two batches
    of one, and so a vector does not depend on its batch.

    Parameters
    ----------
    spec : ModelSpec
        Its facts. `mean` and `std` are on RGB values in 0..1.
    model : bytes
        The file's content: one input (1 or n, 3, H, W), and an output (n, dim) called `spec.layer`.
    template : array of shape (5, 2)
        Positions of the landmarks in its input, in pixels.
    weights : array of shape (5,)
        Weight of each landmark in the alignment.

    Raises
    ------
    WeightsError
        The file is damaged, or has other inputs or outputs.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: bytes,
        *,
        template: Sequence[tuple[float, float]] = ARCFACE_TEMPLATE,
        weights: Sequence[float] = (1, 1, 1, 1, 1),
    ) -> None:
        self.spec = spec
        self.template = np.array(template, np.float32)
        self.weights = np.array(weights, np.float32)
        self._network = OnnxNetwork(spec.id, model)
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
        """Embed aligned faces.

        Parameters
        ----------
        chips : sequence of ndarray of uint8, each of shape (H, W, 3)
            RGB, as `alignment.chip` returns them.

        Returns
        -------
        ndarray of float32, shape (n, dim)
            Unit length.
        """
        vectors = np.empty((len(chips), self.spec.dim), np.float32)
        for vector, chip in zip(vectors, chips, strict=True):
            vector[:] = self._raw(chip)
        return check_and_normalize(vectors, self.spec)

    def _raw(self, chip: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = ((chip - self._mean) / self._std).astype(np.float32).transpose(2, 0, 1)[None]
        output: NDArray[np.float32] = self._network.run(
            self.spec.layer, {self._input: np.ascontiguousarray(pixels)}
        )
        if output.shape != (1, self.spec.dim):
            raise WeightsError(f"{self.spec.id} returned {output.shape}; it must return (1, {self.spec.dim})")
        vector: NDArray[np.float32] = output[0]
        return vector
