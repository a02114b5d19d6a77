"""Variants of an ONNX model: other layers, other pooling, float16, bfloat16 and int8."""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nearsight.errors import UnknownModelError, WeightsError
from nearsight.models.base import Backend, ModelEntry
from nearsight.models.cache import cached_bytes
from nearsight.models.layer_statistics import OUTPUT, layer_statistics_spec, with_layer_statistics
from nearsight.models.model_name import ModelVariant, split_model_name
from nearsight.models.onnx_graph import Shape, extract_layer, layer_shapes, read_graph_facts
from nearsight.models.precision import float16, int8
from nearsight.models.precision.bias_correction import round_to_bfloat16
from nearsight.models.precision.parity import require_parity
from nearsight.models.preprocess import resize_and_crop
from nearsight.models.runtimes import openvino
from nearsight.models.runtimes.devices import PROVIDERS, split_device
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.runtimes.placement import (
    device_specific_spec,
    pin_to_device,
    pinned_device,
    place_precision,
)
from nearsight.models.spec import ModelSpec
from nearsight.models.synthetic_images import synthetic_images

#: Part of the fingerprint: increase it whenever bfloat16 vectors change.
_ROUNDING_VERSION = 1
# Synthetic images that int8 is calibrated on without a user's images.
_N_CALIBRATION_IMAGES, _SEED = 48, 33


@dataclass(frozen=True)
class OnnxVariants:
    """The variants of one ONNX model.

    Attributes
    ----------
    spec : ModelSpec
        The facts of the model without a variant.
    graph : callable
        Returns the model, given the cache directory, or None to cache nothing.
    sensitive : sequence of str
        Operations that stay in float32 when the others are in bfloat16.
    sensitive_fp16 : sequence of str
        Operations that stay in float32 when the others are in float16.
    sensitive_int8 : sequence of str
        Operations that stay in float32 when the others are in int8.
    """

    spec: ModelSpec
    graph: Callable[[Path | None], Path | bytes]
    float32_in_bf16: Sequence[str] = ()
    float32_in_fp16: Sequence[str] = ()
    float32_in_int8: Sequence[str] = ()

    def variant_entry(self, variant: ModelVariant) -> ModelEntry:
        """Return the entry of a variant for the registry.

        Raises
        ------
        UnknownModelError
            There is no such layer (the message suggests similar names), or the model is not in full
            precision.
        WeightsError
            The length of the layer's vectors cannot be inferred from the graph.
        """
        name = variant.applied_to(self.spec.id)
        spec = replace(self.spec, id=name, identity=self.spec.identity or self.spec.id)
        if variant.layers:
            if variant.layer or variant.pooling or variant.precision:
                raise UnknownModelError(
                    f"{name}: #layers has a layer, a pooling and full precision of its own; give it without"
                    " layer=, pooling= and a precision"
                )
            spec = layer_statistics_spec(spec, self.graph(None))
        if variant.layer and variant.layer != spec.layer:
            spec = replace(spec, layer=variant.layer, dim=self._dim(variant.layer), pooling="mean")
        if variant.pooling:
            spec = replace(spec, pooling=variant.pooling)
        if variant.precision:
            spec = replace(spec, precision=self._precision(variant.precision))
        if variant.decode:
            spec = replace(spec, draft=False)
        if variant.device:
            spec = self._device_specific_spec(spec, variant)
        places_itself = variant.precision == "fp16" if not variant.device else variant.device in PROVIDERS
        return ModelEntry(
            spec,
            partial(self.load, spec),
            lambda: True,
            load_on_device=partial(self.load_on_device, spec) if places_itself else None,
        )

    def layers(self) -> dict[str, Shape]:
        """Return the output shape, for one image, of each layer that can give a vector."""
        shapes = layer_shapes(self.graph(None), self.spec.input_px)
        return {name: shape for name, shape in shapes.items() if _length(shape) is not None}

    def load(self, spec: ModelSpec, cache_dir: Path) -> Backend:
        """Return a variant on the processor, or on the device that it belongs to."""
        return self.load_on_device(spec, cache_dir, "cpu")

    def load_on_device(self, spec: ModelSpec, cache_dir: Path, device: str) -> Backend:
        """Return a variant on the requested device, or on the device that it belongs to."""
        variant = split_model_name(spec.id)[1]
        exact, graph = self.full_precision(spec, cache_dir)
        if variant.precision == "fp16" and not variant.device:
            return place_precision(
                spec,
                partial(self._open_fp16, exact.spec, cache_dir),
                exact,
                device,
                cache_dir,
                load_device_specific=partial(self._open_device_specific_fp16, spec, cache_dir),
                processor_note="" if openvino.has_float16() else float16.SLOW_PROCESSOR_NOTE,
            )
        if variant.device in PROVIDERS:
            device = pinned_device(spec.id, variant.device, device)
            if not variant.precision:
                return pin_to_device(exact, device, cache_dir, spec)
        elif not variant.precision:
            return exact
        if variant.precision == "fp16":
            backend = self._open_fp16(spec, cache_dir, device)
            require_parity(backend, exact, cache_dir, runtime=device)
            return backend
        run = self._open_int8 if variant.precision.startswith("int8") else self._open_bf16
        backend = run(spec, graph, cache_dir, partial(self.load, spec, cache_dir))
        require_parity(backend, exact, cache_dir)
        return backend

    def full_precision(self, spec: ModelSpec, cache_dir: Path) -> tuple[OnnxBackend, Path | bytes]:
        """Return a variant in full precision, and its graph, whose only output is the variant's layer."""
        graph = self._graph_to_layer(spec, cache_dir)
        variant = replace(split_model_name(spec.id)[1], precision="", device="")
        full = replace(spec, precision=self.spec.precision, id=variant.applied_to(self.spec.id))
        if not variant:
            full = self.spec
        return OnnxBackend(full, graph, reload=partial(self.load, full, cache_dir)), graph

    def _open_fp16(self, spec: ModelSpec, cache_dir: Path, device: str) -> Backend:
        # The cache file is named by the precision, whichever fingerprint the vectors get.
        fp16_spec = replace(spec, precision=self._precision("fp16"), draft=self.spec.draft)
        return float16.open_float16(
            spec,
            self._graph_to_layer(spec, cache_dir),
            device,
            cache_dir,
            # Cached graphs of earlier versions may have an operation twice.
            stem=f"fp16-g2-{fp16_spec.fingerprint.digest}",
            float32_operations=self.float32_in_fp16,
            reload=partial(self._open_fp16, spec, cache_dir, device),
        )

    def _open_device_specific_fp16(self, spec: ModelSpec, cache_dir: Path, device: str) -> Backend:
        return self.load_on_device(device_specific_spec(spec, split_device(device)[0]), cache_dir, device)

    def _device_specific_spec(self, spec: ModelSpec, variant: ModelVariant) -> ModelSpec:
        """Return the facts of a variant that belongs to a device."""
        if variant.precision in ("", "fp16") and variant.device in PROVIDERS:
            return device_specific_spec(spec, variant.device)
        if variant.precision == "fp16" and variant.device == "cpu":
            return device_specific_spec(spec, "cpu")
        raise UnknownModelError(
            f"{self.spec.id} has no variant {variant}: only fp16 and full precision can belong to a device. "
            f"Remove {variant.device}"
        )

    def _open_bf16(
        self, spec: ModelSpec, graph: Path | bytes, cache_dir: Path, reload: Callable[[], Backend]
    ) -> Backend:
        openvino.require_bfloat16()

        def build() -> bytes:
            return round_to_bfloat16(graph, spec, float32_operations=self.float32_in_bf16)

        stem = f"bf16-{replace(spec, draft=self.spec.draft).fingerprint.digest}"
        cached = cached_bytes(cache_dir / "models", stem, ".onnx", build)
        return openvino.OpenVinoBackend(
            spec, cached, float32_operations=self.float32_in_bf16, precision="bf16", reload=reload
        )

    def _open_int8(
        self, spec: ModelSpec, graph: Path | bytes, cache_dir: Path, reload: Callable[[], Backend]
    ) -> Backend:
        def build() -> bytes:
            if split_model_name(spec.id)[1].precision != "int8":
                raise WeightsError(
                    f"{spec.id} is not on this machine. Create it again from the same images: nearsight"
                    f" models quantize {self.spec.id} --calibration DIR"
                )
            images = [
                resize_and_crop(image, spec) for image in synthetic_images(_N_CALIBRATION_IMAGES, seed=_SEED)
            ]
            return int8.quantize_int8(graph, spec, images, float32_operations=self.float32_in_int8)

        # The graph does not depend on how images are decoded.
        stem = int8_cache_stem(replace(spec, draft=self.spec.draft))
        cached = cached_bytes(cache_dir / "models", stem, ".onnx", build)
        return OnnxBackend(spec, cached, reload=reload)

    def _precision(self, name: str) -> str:
        """Return the precision for the fingerprint, which includes the operations in float32."""
        if self.spec.precision != "float32":
            raise UnknownModelError(
                f"{self.spec.id} is in {self.spec.precision}, but {name} is computed from float32; "
                "remove it, or give the model in full precision"
            )
        if name.startswith("int8="):
            return f"int8-{name.removeprefix('int8=')}"
        facts = {
            "bf16": (_ROUNDING_VERSION, sorted(self.float32_in_bf16)),
            "fp16": (float16.VERSION, sorted(self.float32_in_fp16)),
            "int8": (int8.VERSION, sorted(self.float32_in_int8)),
        }[name]
        return f"{name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"

    def _graph_to_layer(self, spec: ModelSpec, cache_dir: Path) -> Path | bytes:
        graph = self.graph(cache_dir)
        if split_model_name(spec.id)[1].layers:
            stem = f"layers-{self.spec.fingerprint.digest}-{OUTPUT}"
            build = partial(with_layer_statistics, self.spec, graph)
            return cached_bytes(cache_dir / "models", stem, ".onnx", build)
        facts = read_graph_facts(graph)
        has_one_output = list(facts.outputs) == [spec.layer] and len(facts.inputs) == 1
        return graph if has_one_output else extract_layer(graph, spec.layer)

    def _dim(self, layer: str) -> int:
        graph = self.graph(None)
        names = read_graph_facts(graph).layers
        if layer not in names:
            cached = difflib.get_close_matches(layer, names, n=3)
            hint = f"did you mean {' or '.join(cached)}?" if cached else "nearsight models NAME lists them."
            raise UnknownModelError(f"{self.spec.id} has no layer {layer!r}; {hint}")
        dim = _length(layer_shapes(graph, self.spec.input_px).get(layer, ()))
        if dim is None:
            raise WeightsError(
                f"layer {layer!r} of {self.spec.id} has no shape that gives a vector; choose another layer"
            )
        return dim


def int8_cache_stem(spec: ModelSpec) -> str:
    """Return the name in the cache of a variant in int8."""
    return f"int8-{spec.fingerprint.digest}"


def _length(shape: Shape) -> int | None:
    """Return the length of a layer's vectors: its channels, or its last axis; None if unknown."""
    if len(shape) == 4:
        return shape[1]
    return shape[-1] if len(shape) in (2, 3) else None


def graph_file(path: Path, cache_dir: Path | None) -> Path:
    """Return the path of a graph that is a file; a function, because a lambda cannot be pickled."""
    return path
