"""Runs ONNX files with ONNX Runtime on the processor."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import WeightsError
from nearsight.models.backend import Backend
from nearsight.models.preprocess import fit, normalise
from nearsight.models.spec import ModelSpec


class OnnxBackend:
    """An image tower in an ONNX file, run on the calling thread.

    One session serves all threads. Each call keeps to the thread it came from, because n threads with a
    picture each finish more pictures than n threads sharing one. Pictures of a batch go through one by
    one: on a processor that is as quick as any batch (the network's inner arrays then stay in the cache),
    needs no copy into one array, and makes a vector independent of its batch to the last bit.

    Parameters
    ----------
    spec : ModelSpec
        The model's facts. `spec.layer` names the graph's output.
    model : Path or bytes
        The file, or its content. It takes one input (n, 3, H, W) and gives (n, dim), or as many places
        (n, dim, h, w) or tokens (n, t, dim), which are pooled as `spec.pooling` says.
    reload : callable, optional
        Returns the same backend; what a pickle holds. Without it the pickle holds `model` itself.

    Raises
    ------
    WeightsError
        The file is not a sound ONNX model, or does not fit `spec`.
    """

    def __init__(
        self, spec: ModelSpec, model: Path | bytes, *, reload: Callable[[], Backend] | None = None
    ) -> None:
        self._spec = spec
        self._recipe: tuple[Any, ...] = (reload, ()) if reload else (OnnxBackend, (spec, model))
        self._session = _open_session(spec.id, model)
        self._input, self._dtype = _checked_input(spec, self._session)

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._spec

    @property
    def decode_px(self) -> int | None:
        """Shorter side, in pixels, that a decoded picture must have at least; None for full size."""
        return decode_px(self._spec)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one upright RGB picture to (H, W, 3) uint8.

        Normalisation waits for `embed`: bytes are a quarter of the size while they queue.
        """
        return fit(image, self._spec)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the vectors of prepared pictures.

        Parameters
        ----------
        prepared : sequence of ndarray of uint8, each of shape (H, W, 3)
            What `prepare` returned.

        Returns
        -------
        ndarray of float32, shape (n, dim)
            In order, of length 1 where `spec.normalize` says so. A picture in which the network sees
            nothing at all, so that every feature is 0, has no direction: its vector stays 0, and its
            similarity to anything is 0.

        Raises
        ------
        WeightsError
            The network gave a number that is not finite.
        """
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        pixels = np.empty((1, 3, *self._spec.input_px), np.float32)
        for vector, picture in zip(vectors, prepared, strict=True):
            normalise(picture, self._spec, pixels[0])
            given = {self._input: pixels.astype(self._dtype, copy=False)}
            (output,) = self._session.run([self._spec.layer], given)
            vector[:] = pooled(output[0], self._spec)
        return finished(vectors, self._spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._recipe


class Network:
    """A graph of any inputs, run on the calling thread; several threads may share it.

    Parameters
    ----------
    name : str
        What errors call it.
    model : Path or bytes
        The file, or its content.

    Raises
    ------
    WeightsError
        It is not a sound ONNX model.
    """

    def __init__(self, name: str, model: Path | bytes) -> None:
        self.name = name
        self._session = _open_session(name, model)

    @property
    def inputs(self) -> dict[str, list[Any]]:
        """Shapes by name; an axis that takes any length is no number."""
        return {value.name: list(value.shape) for value in self._session.get_inputs()}

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """Shapes by name, as for `inputs`."""
        return {value.name: list(value.shape) for value in self._session.get_outputs()}

    def run(self, output: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return one output."""
        return self.run_all([output], inputs)[output]

    def run_all(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return some outputs by name."""
        found = self._session.run(list(outputs), dict(inputs)) if outputs else []
        return dict(zip(outputs, found, strict=True))


def decode_px(spec: ModelSpec) -> int | None:
    """Return the shorter side that a decoded picture must have at least for this model."""
    if not spec.draft:
        return None
    return max(spec.input_px) if spec.resize_mode == "squash" else spec.resize_px


def _open_session(name: str, model: Path | bytes) -> Any:
    # Here, since listing models must not pay for a runtime.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings are about graph details nobody here can act on
    for pool in ("intra", "inter"):
        options.add_session_config_entry(f"session.{pool}_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    # The runtime's own exceptions share no base but this one.
    except Exception as error:
        place = "its content" if isinstance(model, bytes) else model
        raise WeightsError(f"ONNX Runtime cannot load {name} from {place}: {error}") from error


def _checked_input(spec: ModelSpec, session: Any) -> tuple[str, str]:
    """Return name and dtype of the graph's input once the graph is known to fit the spec."""
    inputs, outputs = session.get_inputs(), {output.name: output for output in session.get_outputs()}
    if len(inputs) != 1 or not _fits(inputs[0].shape, (3, *spec.input_px)):
        found = ", ".join(f"{i.name} {i.shape}" for i in inputs)
        raise WeightsError(f"{spec.id} should take one input (n, 3, {spec.input_px}), but takes {found}.")
    if spec.layer not in outputs:
        raise WeightsError(f"{spec.id} has no output {spec.layer!r}; it has {', '.join(sorted(outputs))}.")
    shape = outputs[spec.layer].shape
    # A layer inside the graph may be declared without any shape; its vectors are then checked as they come.
    if shape and not any(_fits(shape, wanted) for wanted in _vector_shapes(spec)):
        raise _misshapen(spec, shape)
    return str(inputs[0].name), "float16" if inputs[0].type == "tensor(float16)" else "float32"


def _vector_shapes(spec: ModelSpec) -> list[tuple[int | None, ...]]:
    shapes: list[tuple[int | None, ...]] = [(spec.dim,), (None, spec.dim)]
    # Places have no first one that stands for all.
    return shapes if spec.pooling == "cls" else [*shapes, (spec.dim, None, None)]


def pooled(output: NDArray[Any], spec: ModelSpec) -> NDArray[np.float32]:
    """Return one vector of one picture's output."""
    values = output.astype(np.float32, copy=False)
    if values.ndim == 3 and spec.pooling != "cls":
        values = values.mean((1, 2))
    elif values.ndim == 2:
        if spec.pooling == "patches":
            # What comes first is no place: the class token, and DINO's registers.
            values = values[len(values) - math.isqrt(len(values)) ** 2 :]
        values = values[0] if spec.pooling == "cls" else values.mean(0)
    if values.shape != (spec.dim,):
        raise _misshapen(spec, [1, *output.shape])
    return values


def _misshapen(spec: ModelSpec, shape: list[Any]) -> WeightsError:
    places = f", (n, {spec.dim}, h, w)" if spec.pooling != "cls" else ""
    return WeightsError(
        f"{spec.id} should give (n, {spec.dim}), (n, t, {spec.dim}){places} with pooling={spec.pooling!r}, "
        f"but {spec.layer!r} is {shape}. Correct dim or layer."
    )


def _fits(shape: list[Any], wanted: tuple[int | None, ...]) -> bool:
    """Whether the graph takes or gives one picture of that shape; an axis without a number takes any."""
    return len(shape) == 1 + len(wanted) and all(
        not isinstance(n, int) or m is None or n == m for n, m in zip(shape, (1, *wanted), strict=True)
    )


def finished(vectors: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32]:
    """Check what a network gave, and bring it to unit length where the model's vectors are."""
    if not np.isfinite(vectors).all():
        raise WeightsError(
            f"{spec.id} gave numbers that are not finite. Its file is damaged, or its arithmetic "
            f"({spec.precision}) overflows: use the float32 version of the model."
        )
    return _unit(vectors) if spec.normalize else vectors


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return vectors
