"""Make as many different photographs as a benchmark needs from the few that scikit-image ships."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

_PHOTOGRAPHS = [
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "retina.jpg",
]


def photographs() -> list[Image.Image]:
    """Return scikit-image's photographs (public domain or CC0)."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is needed: pip install 'nearsight[demo]'")
    folder = Path(spec.origin).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in _PHOTOGRAPHS if (folder / name).exists()]


def make(folder: Path, n: int, size: tuple[int, int], quality: int = 90) -> Path:
    """Write `n` JPEGs of `size` (width, height): crops of photographs, relit, with sensor noise.

    The noise gives a file as many bytes as a camera's, which is what decoding time depends on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    originals = photographs()

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        photo = originals[seed % len(originals)]
        scale = rng.uniform(0.5, 0.95)
        width, height = int(photo.width * scale), int(photo.height * scale)
        x, y = rng.integers(photo.width - width), rng.integers(photo.height - height)
        image = photo.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + width, y + height))
        noise = rng.integers(-6, 7, (min(size[1], 512), min(size[0], 512), 1), np.int16)
        tiles = (-(-size[1] // noise.shape[0]), -(-size[0] // noise.shape[1]), 1)
        pixels = np.asarray(image, np.int16) + np.tile(noise, tiles)[: size[1], : size[0]]
        pixels = np.clip(pixels * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:06}.jpg", quality=quality)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(n)))
    return folder
