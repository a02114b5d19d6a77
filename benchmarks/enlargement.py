"""Whether an enlarged image is told from a larger original by their pixels alone.

Photographs of FOLDER, reduced to 640 pixels, are larger originals: as they are, and blurred by 0.8, 1.3 and
2 pixels. Each gets smaller copies by four filters, some with another aspect. Smaller versions are enlarged by
four filters and factors of 1.3 to 3, and then left as they are, sharpened, given noise or other tones, or
their contrast doubled. All are stored as PNG, or as JPEG of quality 60 to 95. The report gives the share of
larger originals, and of enlargements, that are said to have detail of their own
(`nearsight.analyses.resolution_comparison.has_own_detail`).

    python -m benchmarks.enlargement FOLDER [--seconds S] [--seed N] [--json]
"""

import argparse
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.duplicates import IMAGES, wilson
from nearsight.analyses.image_difference import Framing
from nearsight.analyses.resolution_comparison import has_own_detail
from nearsight.images.enlargement import added_detail
from nearsight.images.quality import measure_quality

MAX_SIDE = 640
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "Lanczos": Image.Resampling.LANCZOS,
    "repeated": Image.Resampling.NEAREST,
}
Rng = np.random.Generator
Pair = tuple[str, bytes, bytes]


def encoded(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality) if quality else image.save(file, "PNG")
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def clipped(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def noisy(image: Image.Image, rng: Rng) -> Image.Image:
    return clipped(np.asarray(image, np.float32) + rng.normal(0, 4, (image.height, image.width, 3)))


AFTER: dict[str, Callable[[Image.Image, Rng], Image.Image]] = {
    "enlarged": lambda image, rng: image,
    "enlarged, sharpened": lambda image, rng: image.filter(ImageFilter.UnsharpMask(2, 150, 0)),
    "enlarged, noise": noisy,
    "enlarged, other tones": lambda image, rng: image.point(lambda v: int(255 * (v / 255) ** 0.7)),
    "enlarged, contrast doubled": lambda image, rng: clipped((np.asarray(image, np.float32) - 128) * 2 + 128),
}


def pairs_of(image: Image.Image, rng: Rng) -> Iterator[Pair]:
    """Yield the kind of each larger image, itself, and the smaller one."""
    width, height = image.size
    blurred = {blur: image.filter(ImageFilter.GaussianBlur(blur)) for blur in (0, 0.8, 1.3, 2)}
    for blur, original in blurred.items():
        large = encoded(original, int(rng.choice([0, 75, 92])))
        for how in (*list(FILTERS.values())[:3], Image.Resampling.BOX):
            share = rng.choice([0.3, 0.47, 0.5, 0.62, 0.75])
            size = round(width * share), round(height * share * rng.choice([1, 1, 1.3]))
            small = decoded(large).resize(size, how)
            yield f"original, blurred by {blur:g}", large, encoded(small, int(rng.choice([60, 75, 90])))
    for blur, share in ((0, 0.6), (0.8, 0.8)):
        reduced = blurred[blur].resize((round(width * share), round(height * share)), FILTERS["Lanczos"])
        small = encoded(reduced, int(rng.choice([75, 92])))
        for how in FILTERS.values():
            factor = rng.choice([1.3, 1.6, 2, 2.13, 3])
            size = round(reduced.width * factor), round(reduced.height * factor)
            for name, edit in AFTER.items():
                large = edit(decoded(small).resize(size, how), rng)
                yield name, encoded(large, int(rng.choice([0, 60, 85, 95]))), small


def is_own(large: bytes, small: bytes) -> bool:
    grays = [np.asarray(decoded(data).convert("L")) for data in (large, small)]
    compressions = [measure_quality(data).compression for data in (large, small)]
    return has_own_detail(Framing(), partial(added_detail, *grays, *compressions))


def run(options: argparse.Namespace) -> dict[str, object]:
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in IMAGES)
    started, n_images = time.monotonic(), 0
    found: dict[str, list[bool]] = defaultdict(list)
    for at in np.random.default_rng(options.seed).permutation(len(paths)):
        if time.monotonic() - started > options.seconds:
            break
        image = Image.open(paths[at]).convert("RGB")
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        n_images += 1
        for kind, large, small in pairs_of(image, np.random.default_rng([options.seed, at])):
            found[kind].append(is_own(large, small))
    rows = {
        kind: {
            "pairs": len(own),
            "own detail": sum(own) / len(own),
            "interval_95": wilson(sum(own), len(own)),
        }
        for kind, own in found.items()
    }
    return {"images": n_images, **rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=120, help="begin no further image after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    result = run(options)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, row in result.items():
        print(f"{name:28} {row}")


if __name__ == "__main__":
    main()
