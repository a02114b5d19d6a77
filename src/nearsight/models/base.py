"""The protocols that models implement, and the entry that a plugin registers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.models.model_name import ModelVariant
from nearsight.models.spec import ModelSpec


@runtime_checkable
class Backend(Protocol):
    """Turns images into vectors in two steps, `prepare` and `embed`.

    Several threads call both methods at once. The vector of an image does not depend on the other images of
    its batch (to 1e-5). A backend can be pickled; unpickling loads the model again.
    """

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        ...

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        ...

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB image into an item for `embed`."""
        ...

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return the vectors of prepared images in order: (n, dim) float32, also for n = 0."""
        ...


class Preparation(Protocol):
    """The half of a backend that runs before the network."""

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        ...

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB image into an item for `Backend.embed`."""
        ...


@runtime_checkable
class SeparableBackend(Backend, Protocol):
    """A backend whose images other processes can prepare, while the network runs here."""

    @property
    def preparation(self) -> Preparation:
        """What `prepare` does, as a small object that can be pickled and that opens no network."""
        ...


@runtime_checkable
class MultiDeviceBackend(Backend, Protocol):
    """A backend on the processor that can also run on other devices."""

    @property
    def offered_devices(self) -> Sequence[str]:
        """Devices of the installed runtime that ``auto`` may use, the best first."""
        ...

    def to_device(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> Backend:
        """Return the same model on a device; its property `device` names the device.

        Parameters
        ----------
        device : str
            One of `devices.DEVICES` except ``auto``, with a number where there are several.
        cache_dir : Path
            Directory for what is compiled for the device.
        spec : ModelSpec, optional
            Facts of the returned backend, where its vectors need their own fingerprint.

        Raises
        ------
        DeviceError
            The device is missing or cannot run the model.
        """
        ...

    def idle_gpu_hint(self) -> str:
        """Name a GPU that the runtime cannot use, with the command that changes that; empty if none."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Compares texts with the image vectors of one model.

    The similarity of an image and a text is the cosine of `to_text_space` of the image vector and `embed` of
    the text.
    """

    @property
    def spec(self) -> ModelSpec:
        """The model of the image vectors."""
        ...

    @property
    def shares_space(self) -> bool:
        """Whether texts and images share one space: `to_text_space` and `to_image_space` change nothing."""
        ...

    @property
    def prompt(self) -> str:
        """Template that turns a label into a text; ``{}`` stands for the label."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, d) vectors of texts, unit length."""
        ...

    def to_text_space(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (n, dim) image vectors to the space of text vectors: (n, d), unit length."""
        ...

    def to_image_space(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map text vectors to (n, dim) image vectors whose neighbors are good candidates for the texts."""
        ...

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds that texts describe images, up to a constant per image."""
        ...


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What a plugin registers: the facts of a model, and how to load it.

    Attributes
    ----------
    spec : ModelSpec
        The facts; they are known without loading the model.
    load : callable
        Returns the backend, given the cache directory. Put heavy imports inside.
    available : callable
        Whether `load` would work offline on this machine now.
    install : str
        The command that makes the model available; empty where there is none.
    load_text_encoder : callable, optional
        Returns the text encoder, given the cache directory and the spec of a variant of this model; None
        for models without texts.
    variants : ModelVariants, optional
        The model's other variants; None where it has only one.
    load_on_device : callable, optional
        Returns the backend on a device, given the cache directory and the requested device. For variants
        that belong to a device or whose fingerprint is known only after a measurement. None for models that
        `load` puts on the processor and that move from there.
    trainable : TrainableNetwork, optional
        The network's weights, where its layers can be trained.
    """

    spec: ModelSpec
    load: Callable[[Path], Backend]
    available: Callable[[], bool]
    install: str = ""
    load_text_encoder: Callable[[Path, ModelSpec], TextEncoder] | None = None
    variants: "ModelVariants | None" = None
    load_on_device: Callable[[Path, str], Backend] | None = None
    trainable: "TrainableNetwork | None" = None


class TrainableNetwork(Protocol):
    """A network of inverted residual blocks whose weights can be trained and written again."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the weights by name."""
        ...

    def build(self, state: Mapping[str, NDArray[Any]]) -> bytes:
        """Return the network with other weights of the same names and shapes, as ONNX bytes."""
        ...

    @property
    def blocks(self) -> Sequence[tuple[int, int]]:
        """Kernel size in pixels and stride of each block, in order."""
        ...


class ModelVariants(Protocol):
    """The variants of one model: other layers, other pooling, other precision."""

    def variant_entry(self, variant: ModelVariant) -> ModelEntry:
        """Return the entry of a variant."""
        ...

    def layers(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the output shape, for one image, of each layer that can give a vector."""
        ...
