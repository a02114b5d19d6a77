"""Short names of well-known models on the Hugging Face hub, such as ``clip-vit-base-patch32``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """What is known of a model on the hub before it is downloaded.

    Attributes
    ----------
    name : str
        The short name.
    repository : str
        ``ORG/REPO``; the ONNX files are community exports of the published weights.
    revision : str
        The commit; empty where none is known. Then the commit that is downloaded first is kept.
    dim : int
        Length of the vectors.
    license : str
        License of the original weights; some exports state none of their own.
    accuracy : str
        Published accuracy of the original weights, with its kind and source.
    reads_text : bool
        Whether it comes with a text encoder.
    """

    name: str
    repository: str
    revision: str = ""
    dim: int
    license: str
    accuracy: str
    reads_text: bool = False

    @property
    def source(self) -> str:
        """The name of the model with its repository, and with its commit if that is known."""
        return f"hub:{self.repository}" + (f"@{self.revision}" if self.revision else "")


KNOWN_MODELS = (
    KnownModel(
        name="clip-vit-base-patch32",
        repository="Xenova/clip-vit-base-patch32",
        revision="d15189d7028b43f1d3e65039190477f6af591c2a",
        dim=512,
        license="MIT",
        accuracy="ImageNet zero-shot 63.2 % (arXiv:2103.00020, table 11)",
        reads_text=True,
    ),
    KnownModel(
        name="clip-vit-large-patch14",
        repository="Xenova/clip-vit-large-patch14",
        dim=768,
        license="MIT",
        accuracy="ImageNet zero-shot 75.3 % (arXiv:2103.00020, table 11)",
        reads_text=True,
    ),
    KnownModel(
        name="siglip2-base-patch16-224",
        repository="onnx-community/siglip2-base-patch16-224-ONNX",
        revision="ba1f3b0843f24bc5417d38e19c37b287d719b2f4",
        dim=768,
        license="Apache-2.0",
        accuracy="ImageNet zero-shot 78.2 % (google-research/big_vision, README_siglip2)",
        reads_text=True,
    ),
    KnownModel(
        name="dinov2-small",
        repository="onnx-community/dinov2-small",
        revision="8b1f705a3a7f6f062f6bdd21986c1583d3ef105d",
        dim=384,
        license="Apache-2.0",
        accuracy="ImageNet k-NN 79.0 % (facebookresearch/dinov2, README)",
    ),
    KnownModel(
        name="dinov2-base",
        repository="onnx-community/dinov2-base",
        revision="31ef06cac16d5d301c5930d147002a058c85a5e4",
        dim=768,
        license="Apache-2.0",
        accuracy="ImageNet k-NN 82.1 % (facebookresearch/dinov2, README)",
    ),
    KnownModel(
        name="dinov3-small",
        repository="onnx-community/dinov3-vits16-pretrain-lvd1689m-ONNX",
        dim=384,
        license="DINOv3 License",
        accuracy="ImageNet-ReaL linear 87.0 % (facebookresearch/dinov3, MODEL_CARD)",
    ),
    KnownModel(
        name="dinov3-convnext-tiny",
        repository="onnx-community/dinov3-convnext-tiny-pretrain-lvd1689m-ONNX",
        revision="4294cd5539afe2380d859e21e1e7925c127f2dfc",
        dim=768,
        license="DINOv3 License",
        accuracy="ImageNet-ReaL linear 86.6 % at 256 px (facebookresearch/dinov3, MODEL_CARD)",
    ),
    KnownModel(
        name="mobileclip-s0",
        repository="Xenova/mobileclip_s0",
        dim=512,
        license="apple-amlr",
        accuracy="ImageNet zero-shot 67.8 % (apple/ml-mobileclip, README)",
        reads_text=True,
    ),
)

_BY_NAME = {model.name: model for model in KNOWN_MODELS}


def hub_name(name: str) -> str:
    """Return the name with ``hub:`` that a short name stands for; other names are returned unchanged.

    Parameters
    ----------
    name : str
        A model name; what follows a ``#`` is kept.

    Examples
    --------
    >>> hub_name("dinov2-small#quantized")
    'hub:onnx-community/dinov2-small@8b1f705a3a7f6f062f6bdd21986c1583d3ef105d#quantized'
    >>> hub_name("efficientnet-lite0")
    'efficientnet-lite0'
    """
    base, sign, rest = name.partition("#")
    model = _BY_NAME.get(base)
    return name if model is None else f"{model.source}{sign}{rest}"


def keeps_first_commit(repository: str) -> bool:
    """Whether a repository has a short name without a commit, so that its first download is kept."""
    return any(model.repository == repository and not model.revision for model in KNOWN_MODELS)
