"""What is left to see of images of every kind after decoding.

Each photograph is stored in kinds that archives and laboratories have. An image counts as shown if its
luminance correlates with the photograph's by 0.9 or more, in either direction, and spans 32 of 256 levels; as
refused, if decoding fails; and else as erased.

Run: python -m benchmarks.decoding [FOLDER] [--images 100]
"""

import argparse
import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from benchmarks import sample_images
from nearsight.errors import ImageError
from nearsight.images import decode, find

_SIDE_PX = 256
_MIN_CORRELATION, _MIN_LEVELS = 0.9, 32


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    """Return the image as a file."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def _tiff(values, **tags) -> bytes:
    return encoded(Image.fromarray(values), "TIFF", tiffinfo={int(k[1:]): v for k, v in tags.items()})


def _ink(shade: int) -> Callable[[Image.Image], bytes]:
    """Return a maker of drawings in one shade, whose transparency holds the photograph."""

    def make(photo):
        alpha = photo.convert("L")
        return encoded(Image.merge("LA", (Image.new("L", photo.size, shade), alpha)), "PNG")

    return make


def _deep(photo):
    return np.asarray(photo.convert("L")).astype(np.float64) / 255


def _transparent(photo):
    clear = photo.convert("RGBA")
    clear.putalpha(0)
    return encoded(clear, "PNG")


def _hot(photo):
    values = np.rint(_deep(photo) * 4095).astype(np.uint16)
    values[0, :3] = 65535
    return _tiff(values)


def _lab(photo):
    profiles = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
    return encoded(ImageCms.applyTransform(photo, ImageCms.buildTransform(*profiles, "RGB", "LAB")), "TIFF")


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda photo: encoded(photo, "JPEG"),
    "palette": lambda photo: encoded(photo.quantize(64), "PNG"),
    "CMYK": lambda photo: encoded(photo.convert("CMYK"), "TIFF"),
    "Lab": _lab,
    "16 bits": lambda photo: encoded(Image.fromarray(np.rint(_deep(photo) * 65535).astype(np.uint16)), "PNG"),
    "black ink on transparent": _ink(0),
    "white ink on transparent": _ink(255),
    "transparent throughout": _transparent,
    "12 bits in 16": lambda photo: encoded(
        Image.fromarray(np.rint(_deep(photo) * 4095).astype(np.uint16)), "PNG"
    ),
    "12 bits in 16, hot pixels": _hot,
    "range of 2,000 in 16 bits": lambda photo: _tiff((30000 + 2000 * _deep(photo)).astype(np.uint16)),
    "range in ImageJ's tags": lambda photo: _tiff(
        (8000 + 500 * _deep(photo)).astype(np.uint16), t270="ImageJ=1.54\nmin=8000\nmax=8500\n"
    ),
    "signed 16 bits (tomography)": lambda photo: _tiff((4000 * _deep(photo) - 1024).astype(np.int32)),
    "floating point, 0 to 0.02": lambda photo: _tiff((0.02 * _deep(photo)).astype(np.float32)),
    "floating point, meters": lambda photo: _tiff((2500 * _deep(photo) - 80).astype(np.float32)),
}


def outcome(photo: Image.Image, data: bytes) -> str:
    """Return shown, refused or erased."""
    try:
        image = decode(data).image
    except ImageError:
        return "refused"
    values, expected = (np.asarray(i.convert("L")).astype(float).ravel() for i in (image, photo))
    if np.ptp(values) < _MIN_LEVELS:
        return "erased"
    return "shown" if abs(np.corrcoef(values, expected)[0, 1]) >= _MIN_CORRELATION else "erased"


def photographs(folder: Path | None, n_images: int) -> Iterator[Image.Image]:
    """Yield small photographs: evenly from the folder, or those of installed packages."""
    if folder is None:
        images = sample_images.photographs()
    else:
        sources = list(find(folder))
        images = [decode(source).image for source in sources[:: max(1, len(sources) // n_images)][:n_images]]
    for image in images[:n_images]:
        small = image.convert("RGB")
        small.thumbnail((_SIDE_PX, _SIDE_PX))
        yield small


def main() -> None:
    """Print the outcomes of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    photos = list(photographs(arguments.folder, arguments.images))
    print(f"{len(photos)} photographs, %\n{'kind':32}{'shown':>8}{'refused':>9}{'erased':>8}")
    for kind, make in KINDS.items():
        counts = Counter(outcome(photo, make(photo)) for photo in photos)
        shares = [100 * counts[name] / len(photos) for name in ("shown", "refused", "erased")]
        print(f"{kind:32}{shares[0]:8.0f}{shares[1]:9.0f}{shares[2]:8.0f}")


if __name__ == "__main__":
    main()
