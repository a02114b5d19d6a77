"""The protocol every model stands behind, and what the registry knows before loading one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.models.model_name import Variant
from nearsight.models.spec import ModelSpec


@runtime_checkable
class Backend(Protocol):
    """Turns images into vectors, in two halves so that the first can run beside others.

    Both halves are called from several threads at once, and give the same vector for an image
    whatever batch it travels in (to 1e-5). A backend can be pickled: it loads again on the other side.
    """

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        ...

    @property
    def decode_px(self) -> int | None:
        """Shorter side, in pixels, that a decoded image must have at least; None for full size."""
        ...

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB image into what `embed` takes a sequence of."""
        ...

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return vectors of shape (n, dim), float32, in order; (0, dim) for nothing."""
        ...


@runtime_checkable
class Movable(Backend, Protocol):
    """A backend on the processor that can run on other devices too."""

    @property
    def devices(self) -> Sequence[str]:
        """What the installed runtime offers to `auto`, the best first."""
        ...

    def on(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> Backend:
        """Return the same model run on a device, telling that in its property `device`.

        Parameters
        ----------
        device : str
            One of `devices.DEVICES` but `auto`, with a number where there are several.
        cache_dir : Path
            Where what is compiled for the device may be kept.
        spec : ModelSpec, optional
            The facts it shall tell, where its vectors need a fingerprint of their own.

        Raises
        ------
        DeviceError
            The device is not there, or cannot run the model.
        """
        ...

    def idle_device(self) -> str:
        """Say what stands idle while the model runs on the processor, and how to use it; or nothing."""
        ...


@runtime_checkable
class TextTower(Protocol):
    """Compares texts with one model's image vectors.

    The similarity of an image and a text is the cosine of what `project` and `embed` make of them.
    """

    @property
    def spec(self) -> ModelSpec:
        """The model whose image vectors it compares texts with."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether texts and images share one space, so that `project` and `aim` change nothing."""
        ...

    @property
    def prompt(self) -> str:
        """How a bare name is best put, with ``{}`` for the name."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, d) vectors of texts, unit length."""
        ...

    def project(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring (n, dim) image vectors among texts: (n, d), unit length."""
        ...

    def aim(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (n, dim) image vectors whose neighbors are the best candidates for texts."""
        ...

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds, up to a constant an image, that texts name images."""
        ...


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What a plugin registers: the facts, and how to get the model.

    Attributes
    ----------
    spec : ModelSpec
        Known without loading anything.
    load : callable
        Given the cache directory, returns the backend. Heavy imports belong inside.
    available : callable
        Whether `load` would work offline on this machine now.
    install : str
        The command that makes it available; empty where there is none.
    load_text_encoder : callable, optional
        Given the cache directory and the spec of some form of this model, returns what compares texts with
        that form's vectors; None where nothing does.
    forms : Forms, optional
        The model's other forms; None where it has only one.
    load_on : callable, optional
        Given the cache directory and the device that is asked for, returns the backend there: of a form that
        belongs to a device, or of which only running it shows whose vectors it gives. None for models that
        are loaded and then moved.
    """

    spec: ModelSpec
    load: Callable[[Path], Backend]
    available: Callable[[], bool]
    install: str = ""
    load_text_encoder: Callable[[Path, ModelSpec], TextTower] | None = None
    forms: "Forms | None" = None
    load_on: Callable[[Path, str], Backend] | None = None


class Forms(Protocol):
    """The other forms of a model."""

    def vary(self, variant: Variant) -> ModelEntry:
        """Return the model in that form."""
        ...

    def layers(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the shape of every layer that a vector can be taken from, for one image."""
        ...
