"""Measures for half a minute what images of a user cost on this machine."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nearsight import images
from nearsight.errors import ImageError, ImageFailure
from nearsight.models import Backend, load_model

# Quantile of the normal distribution for a limit of 95 %.
_Z = 1.645
_MAX_SECONDS = 25.0
_NETWORK_SECONDS, _NETWORK_BATCH = 4.0, 8


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured.

    Attributes
    ----------
    n_images, n_failed : int
    megapixels : float or None
        Mean of an image.
    decoded_per_core, network_per_core : float or None
        Images that one core decodes in a second, and for which it runs the network.
    thumbnail_bytes : float or None
        Mean.
    """

    n_images: int = 0
    n_failed: int = 0
    megapixels: float | None = None
    decoded_per_core: float | None = None
    network_per_core: float | None = None
    thumbnail_bytes: float | None = None

    @property
    def max_failure_rate(self) -> float:
        """Upper limit of the share of images that cannot be read: Wilson's, at 95 %."""
        n = max(1, self.n_images)
        share = self.n_failed / n
        root = math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        return (share + _Z**2 / (2 * n) + _Z * root) / (1 + _Z**2 / n)


def measure(
    inputs: Sequence[str],
    model: str,
    *,
    cache_dir: Path | None = None,
    seconds: float = _MAX_SECONDS,
    network: bool = True,
) -> Sample:
    """Measure the decoding of some images, and the network on a core of this machine.

    Parameters
    ----------
    inputs : sequence of str
        See `images.find`; without any, no decoding is measured.
    model : str
    cache_dir : Path, optional
        For converted models.
    seconds : float, default 25
        For the images, at most; the network takes four more.
    network : bool, default True
        Whether to measure the network; where GPUs run it, a core says nothing of it.
    """
    backend = load_model(model, device="cpu", cache_dir=cache_dir)
    network_rate = _network_rate(backend) if network else None
    if not inputs:
        return Sample(network_per_core=network_rate)
    n_images = n_failed = 0
    pixels: list[int] = []
    sizes: list[int] = []
    cpu_s, end = 0.0, time.monotonic() + seconds
    for source in images.find(list(inputs)):
        if time.monotonic() > end:
            break
        n_images += 1
        started = time.thread_time()
        try:
            if isinstance(source, ImageFailure):
                raise ImageError(source.path, source.reason)
            image = images.decode(source, min_side_px=backend.decode_px)
            small = images.thumbnail(image.image)
            backend.prepare(image.image)
        except ImageError:
            n_failed += 1
            continue
        cpu_s += time.thread_time() - started
        pixels.append(image.width * image.height)
        sizes.append(len(small))
    if not pixels:
        return Sample(n_images=n_images, n_failed=n_failed, network_per_core=network_rate)
    return Sample(
        n_images=n_images,
        n_failed=n_failed,
        megapixels=float(np.mean(pixels)) / 1e6,
        decoded_per_core=len(pixels) / cpu_s,
        network_per_core=network_rate,
        thumbnail_bytes=float(np.mean(sizes)),
    )


def _network_rate(backend: Backend) -> float:
    """Return for how many images per second a core runs the network, by the time that all cores spend."""
    prepared = [backend.prepare(Image.effect_noise((256, 256), 64).convert("RGB"))] * _NETWORK_BATCH
    backend.embed(prepared)
    n_images, cpu_started, end = 0, time.process_time(), time.monotonic() + _NETWORK_SECONDS
    while not n_images or time.monotonic() < end:
        backend.embed(prepared)
        n_images += len(prepared)
    return n_images / max(1e-9, time.process_time() - cpu_started)
