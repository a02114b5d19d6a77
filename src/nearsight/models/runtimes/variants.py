"""Other forms of an ONNX model: another layer, another way of pooling, float16, bfloat16, int8."""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nearsight.errors import UnknownModelError, WeightsError
from nearsight.models.base import Backend, ModelEntry
from nearsight.models.cache import kept
from nearsight.models.model_name import Variant, split_variant
from nearsight.models.onnx_graph import Shape, inspect, layer_shapes, tap
from nearsight.models.precision import float16, int8
from nearsight.models.precision.bias_correction import rounded
from nearsight.models.precision.parity import require_parity
from nearsight.models.preprocess import fit
from nearsight.models.runtimes import openvino
from nearsight.models.runtimes.devices import PROVIDERS, split_device
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.runtimes.placement import computed_by, device_within, place_arithmetic, place_for_good
from nearsight.models.spec import ModelSpec
from nearsight.models.synthetic_images import builtin_images

#: Part of the fingerprint: raise it whenever bfloat16 vectors would be others.
_ROUNDING_VERSION = 1
# Int8 without a user's images: the ranges of activations come from these.
_N_CALIBRATING, _SEED = 48, 33


@dataclass(frozen=True)
class OnnxForms:
    """The forms of one ONNX model.

    Attributes
    ----------
    spec : ModelSpec
        The model as its name alone stands for it.
    graph : callable
        Returns the model; given the cache directory, or None to keep nothing.
    sensitive : sequence of str
        Operations that stay in float32 when the rest is bfloat16.
    sensitive_fp16 : sequence of str
        Operations that stay in float32 when the rest is float16.
    sensitive_int8 : sequence of str
        Operations that stay in float32 when the rest is int8.
    """

    spec: ModelSpec
    graph: Callable[[Path | None], Path | bytes]
    sensitive: Sequence[str] = ()
    sensitive_fp16: Sequence[str] = ()
    sensitive_int8: Sequence[str] = ()

    def vary(self, variant: Variant) -> ModelEntry:
        """Return the model in that form, as the registry asks for it.

        Raises
        ------
        UnknownModelError
            There is no such layer, and the message suggests the nearest; or the model is not in full
            precision.
        WeightsError
            The length of the layer's vectors does not follow from the graph.
        """
        name = variant.applied_to(self.spec.id)
        spec = replace(self.spec, id=name, identity=self.spec.identity or self.spec.id)
        if variant.layer and variant.layer != spec.layer:
            spec = replace(spec, layer=variant.layer, dim=self._dim(variant.layer), pooling="mean")
        if variant.pooling:
            spec = replace(spec, pooling=variant.pooling)
        if variant.precision:
            spec = replace(spec, precision=self._precision(variant.precision))
        if variant.device:
            spec = self._at(spec, variant)
        by_itself = variant.precision == "fp16" if not variant.device else variant.device in PROVIDERS
        return ModelEntry(
            spec,
            partial(self.load, spec),
            lambda: True,
            load_on=partial(self.load_on, spec) if by_itself else None,
        )

    def layers(self) -> dict[str, Shape]:
        """Return the shape of every layer that a vector can be taken from, for one image."""
        shapes = layer_shapes(self.graph(None), self.spec.input_px)
        return {name: shape for name, shape in shapes.items() if _length(shape) is not None}

    def load(self, spec: ModelSpec, cache_dir: Path) -> Backend:
        """Return a form of this model; on the processor, unless it belongs to a device."""
        return self.load_on(spec, cache_dir, "cpu")

    def load_on(self, spec: ModelSpec, cache_dir: Path, device: str) -> Backend:
        """Return a form of this model on the device that is asked for, as far as it can choose."""
        form = split_variant(spec.id)[1]
        exact, graph = self.exact(spec, cache_dir)
        if form.precision == "fp16" and not form.device:
            return place_arithmetic(
                spec,
                partial(self._fp16, exact.spec, cache_dir),
                exact,
                device,
                cache_dir,
                own=partial(self._own_fp16, spec, cache_dir),
                on_cores="" if openvino.has_float16() else float16.SLOWER,
            )
        if form.device in PROVIDERS:
            device = device_within(spec.id, form.device, device)
            if not form.precision:
                return place_for_good(exact, device, cache_dir, spec)
        elif not form.precision:
            return exact
        if form.precision == "fp16":
            backend = self._fp16(spec, cache_dir, device)
            require_parity(backend, exact, cache_dir, runtime=device)
            return backend
        run = self._int8 if form.precision.startswith("int8") else self._bf16
        backend = run(spec, graph, cache_dir, partial(self.load, spec, cache_dir))
        require_parity(backend, exact, cache_dir)
        return backend

    def exact(self, spec: ModelSpec, cache_dir: Path) -> tuple[OnnxBackend, Path | bytes]:
        """Return a form in full precision, and its graph, which ends where the vector is taken."""
        graph = self._cut(spec, cache_dir)
        form = replace(split_variant(spec.id)[1], precision="", device="")
        full = replace(spec, precision=self.spec.precision, id=form.applied_to(self.spec.id))
        if not form:
            full = self.spec
        return OnnxBackend(full, graph, reload=partial(self.load, full, cache_dir)), graph

    def _fp16(self, spec: ModelSpec, cache_dir: Path, device: str) -> Backend:
        keep = self.sensitive_fp16
        # By what it is, whether its vectors turned out to be those of full precision or not.
        own = replace(spec, precision=self._precision("fp16"))
        return float16.open_half(
            spec,
            self._cut(spec, cache_dir),
            device,
            cache_dir,
            stem=f"fp16-{own.fingerprint.digest}",
            keep=keep,
            reload=partial(self._fp16, spec, cache_dir, device),
        )

    def _own_fp16(self, spec: ModelSpec, cache_dir: Path, device: str) -> Backend:
        return self.load_on(computed_by(spec, split_device(device)[0]), cache_dir, device)

    def _at(self, spec: ModelSpec, variant: Variant) -> ModelSpec:
        """Return the facts of a form that belongs to a device."""
        if variant.precision in ("", "fp16") and variant.device in PROVIDERS:
            return computed_by(spec, variant.device)
        if variant.precision == "fp16" and variant.device == "cpu":
            return computed_by(spec, "cpu")
        raise UnknownModelError(
            f"{self.spec.id} has no form {variant}: only fp16 and full precision are told apart by device. "
            f"Leave {variant.device} away"
        )

    def _bf16(
        self, spec: ModelSpec, graph: Path | bytes, cache_dir: Path, reload: Callable[[], Backend]
    ) -> Backend:
        openvino.require_bfloat16()
        stem = f"bf16-{spec.fingerprint.digest}"
        near = kept(cache_dir / "models", stem, ".onnx", lambda: self._rounded(spec, graph))
        return openvino.OpenVinoBackend(spec, near, keep=self.sensitive, precision="bf16", reload=reload)

    def _int8(
        self, spec: ModelSpec, graph: Path | bytes, cache_dir: Path, reload: Callable[[], Backend]
    ) -> Backend:
        def build() -> bytes:
            if split_variant(spec.id)[1].precision != "int8":
                raise WeightsError(
                    f"{spec.id} is not on this machine. Make it again from the same images: nearsight"
                    f" models quantize {self.spec.id} --calibration DIR"
                )
            images = [fit(image, spec) for image in builtin_images(_N_CALIBRATING, seed=_SEED)]
            return int8.quantized(graph, spec, images, keep=self.sensitive_int8)

        near = kept(cache_dir / "models", int8_stem(spec), ".onnx", build)
        return OnnxBackend(spec, near, reload=reload)

    def _precision(self, name: str) -> str:
        """Name the arithmetic: which operations are exact, and what it was calibrated on, are parts of it."""
        if self.spec.precision != "float32":
            raise UnknownModelError(
                f"{self.spec.id} is in {self.spec.precision}, and {name} is made out of float32; leave it "
                "away, or name the model in full precision"
            )
        if name.startswith("int8="):
            return f"int8-{name.removeprefix('int8=')}"
        facts = {
            "bf16": (_ROUNDING_VERSION, sorted(self.sensitive)),
            "fp16": (float16.VERSION, sorted(self.sensitive_fp16)),
            "int8": (int8.VERSION, sorted(self.sensitive_int8)),
        }[name]
        return f"{name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"

    def _cut(self, spec: ModelSpec, cache_dir: Path | None) -> Path | bytes:
        graph = self.graph(cache_dir)
        facts = inspect(graph)
        alone = list(facts.outputs) == [spec.layer] and len(facts.inputs) == 1
        return graph if alone else tap(graph, spec.layer)

    def _rounded(self, spec: ModelSpec, graph: Path | bytes) -> bytes:
        return rounded(graph, spec, keep=self.sensitive)

    def _dim(self, layer: str) -> int:
        graph = self.graph(None)
        names = inspect(graph).layers
        if layer not in names:
            near = difflib.get_close_matches(layer, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "nearsight models NAME lists them."
            raise UnknownModelError(f"{self.spec.id} has no layer {layer!r}; {hint}")
        dim = _length(layer_shapes(graph, self.spec.input_px).get(layer, ()))
        if dim is None:
            raise WeightsError(
                f"{layer!r} of {self.spec.id} has no shape that a vector can be taken from; choose another"
            )
        return dim


def int8_stem(spec: ModelSpec) -> str:
    """Return how the file of a form in int8 is called in the cache."""
    return f"int8-{spec.fingerprint.digest}"


def _length(shape: Shape) -> int | None:
    """Return how long a vector out of a layer is: its channels, or its last axis."""
    if len(shape) == 4:
        return shape[1]
    return shape[-1] if len(shape) in (2, 3) else None


def in_file(path: Path, cache_dir: Path | None) -> Path:
    """Return the graph that is a file already; a lambda in its stead could not be pickled."""
    return path
