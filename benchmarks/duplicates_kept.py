"""Which image is kept beside an edit that makes its file larger and worse.

Originals are the photographs that scikit-image ships, and some of FOLDER, evenly spread. Each gets edits
that a measure of worth by pixels, bytes or crispness takes for an improvement: gray, sepia, few colors,
enlarged and sharpened, noise, stored without loss after JPEG at quality 15 to 40, blur, clipped tones, a
border, ...; and a few honest copies (smaller, compressed, stored again). Each edit is searched for together
with its original alone, as a pair, and `duplicates` says which is kept:

- kept: the original is kept;
- review: the edit is kept, but the group is to be reviewed, so that no file is listed as redundant;
- lost: the original would be listed as redundant. The goal is 0;
- certain: the original is kept, and the edit is listed as redundant without a look;
- not found: the pair is no duplicate by its pixels.

Files have the same time stamp, so that age decides nothing; `--ages` lets each edit be newer, as edits are.
The originals are taken in random order (--seed) until the time (--seconds) is used up; the report
says how many were. An original takes 10 to 25 seconds.

    python -m benchmarks.duplicates_kept FOLDER [--originals N] [--folder-only] [--ages] [--seconds S]
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from scipy.stats import binomtest

from nearsight import Collection
from nearsight.analyses import kept_image
from nearsight.images.quality import measure_quality

BUNDLED = (
    *(
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "rocket.jpg",
        "motorcycle_left.png",
        "hubble_deep_field.jpg",
    ),
    *("retina.jpg", "ihc.png", "camera.png", "brick.png", "grass.png", "coins.png", "moon.png"),
)
# Larger photographs are reduced to this, to save time.
MAX_SIDE = 640
SHARPEN = ImageFilter.UnsharpMask(2, 150, 0)

Edit = Callable[[Image.Image], tuple[str, bytes]]


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def jpeg(image: Image.Image, quality: int) -> tuple[str, bytes]:
    return "jpg", encoded(image, "JPEG", quality=quality)


def png(image: Image.Image) -> tuple[str, bytes]:
    return "png", encoded(image, "PNG", compress_level=1)


def stored(image: Image.Image, image_format: str) -> tuple[str, bytes]:
    return image_format.lower(), encoded(image, image_format)


def compressed(image: Image.Image, quality: int, image_format: str = "JPEG") -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, image_format, quality=quality))).convert("RGB")


def scaled(
    image: Image.Image, factor: float, how: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), how)


def clipped(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def noisy(image: Image.Image, deviation: float) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    return clipped(pixels + np.random.default_rng(0).normal(0, deviation, pixels.shape))


def sepia(image: Image.Image) -> Image.Image:
    return clipped(np.asarray(image.convert("L"), np.float32)[..., None] * np.array([1.07, 0.95, 0.75]))


def contrast(image: Image.Image, factor: float) -> Image.Image:
    return clipped((np.asarray(image, np.float32) - 128) * factor + 128)


def blurred(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def cropped(image: Image.Image, left: float) -> Image.Image:
    x, y = (round(side * (1 - left) / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def screenshot(image: Image.Image) -> Image.Image:
    width, height = image.size
    canvas = Image.new("RGB", (round(width * 1.3), round(height * 1.3)), (240, 240, 240))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, canvas.width, height // 12), fill=(60, 60, 70))
    draw.text((10, 4), "Viewer  File Edit View Help", fill="white")
    canvas.paste(image, (round(width * 0.15), round(height * 0.15)))
    return canvas


def marked(image: Image.Image) -> Image.Image:
    layer = Image.new("RGBA", image.size)
    draw, font = ImageDraw.Draw(layer), ImageFont.load_default(size=max(10, image.width // 9))
    for line in range(3):
        place = (image.width * 0.05, image.height * (0.1 + 0.3 * line))
        draw.text(place, "© EXAMPLE 2026", font=font, fill=(255, 255, 255, 140))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def palette(image: Image.Image) -> Image.Image:
    return image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).convert("RGB")


_LANCZOS, _NEAREST = Image.Resampling.LANCZOS, Image.Resampling.NEAREST

WORSE: dict[str, Edit] = {
    "gray, PNG": lambda i: png(i.convert("L").convert("RGB")),
    "gray, q98": lambda i: jpeg(i.convert("L"), 98),
    "gray, enlarged 2, q95": lambda i: jpeg(scaled(i.convert("L"), 2), 95),
    "sepia, q98": lambda i: jpeg(sepia(i), 98),
    "colors at 15 %, q98": lambda i: jpeg(ImageEnhance.Color(i).enhance(0.15), 98),
    "3 bits a channel, PNG": lambda i: png(ImageOps.posterize(i, 3)),
    "3 bits a channel, q98": lambda i: jpeg(ImageOps.posterize(i, 3), 98),
    "32 colors, PNG": lambda i: png(i.quantize(32).convert("RGB")),
    "256 colors, BMP": lambda i: stored(palette(i), "BMP"),
    "enlarged 2, PNG": lambda i: png(scaled(i, 2, _LANCZOS)),
    "enlarged 2, sharpened, q98": lambda i: jpeg(scaled(i, 2).filter(SHARPEN), 98),
    "enlarged 1.5, q95": lambda i: jpeg(scaled(i, 1.5), 95),
    "enlarged 3, repeated, PNG": lambda i: png(scaled(i, 3, _NEAREST)),
    "enlarged 2, noise, q95": lambda i: jpeg(noisy(scaled(i, 2), 5), 95),
    "enlarged 2, sharpened, noise": lambda i: png(noisy(scaled(i, 2).filter(SHARPEN), 4)),
    "half, enlarged 2, sharpened": lambda i: png(scaled(i, 0.5, _LANCZOS).resize(i.size).filter(SHARPEN)),
    "half, enlarged 4, sharpened": lambda i: jpeg(scaled(scaled(i, 0.5, _LANCZOS), 4).filter(SHARPEN), 98),
    "noise 6, PNG": lambda i: png(noisy(i, 6)),
    "noise 12, q98": lambda i: jpeg(noisy(i, 12), 98),
    "q20, PNG": lambda i: png(compressed(i, 20)),
    "q20, BMP": lambda i: stored(compressed(i, 20), "BMP"),
    "q20, TIFF": lambda i: stored(compressed(i, 20), "TIFF"),
    "q40, PNG": lambda i: png(compressed(i, 40)),
    "q15, q98": lambda i: jpeg(compressed(i, 15), 98),
    "q15, enlarged 2, q95": lambda i: jpeg(scaled(compressed(i, 15), 2), 95),
    "WebP q15, PNG": lambda i: png(compressed(i, 15, "WEBP")),
    "blur 1.2, PNG": lambda i: png(blurred(i, 1.2)),
    "blur 1.5, enlarged 2, q95": lambda i: jpeg(scaled(blurred(i, 1.5), 2), 95),
    "blur 2, noise, PNG": lambda i: png(noisy(blurred(i, 2), 5)),
    "median 5, PNG": lambda i: png(i.filter(ImageFilter.MedianFilter(5))),
    "contrast 0.4, PNG": lambda i: png(contrast(i, 0.4)),
    "contrast 2, q98": lambda i: jpeg(contrast(i, 2), 98),
    "38 tones, stretched, PNG": lambda i: png(contrast(contrast(i, 0.15), 1 / 0.15)),
    "highlights clipped, PNG": lambda i: png(clipped(np.asarray(i, np.float32) * 1.6)),
    "sharpened, q98": lambda i: jpeg(i.filter(SHARPEN), 98),
    "screenshot, PNG": lambda i: png(screenshot(i)),
    "crop, enlarged, q98": lambda i: jpeg(cropped(i, 0.85).resize((i.width * 3 // 2, i.height * 3 // 2)), 98),
    "soft, enlarged 1.6, q90": lambda i: jpeg(scaled(blurred(i, 0.8), 1.6, _LANCZOS), 90),
    "enlarged 2.13, tones, q92": lambda i: jpeg(
        scaled(i, 2.13).point(lambda v: int(255 * (v / 255) ** 0.8)), 92
    ),
    "turned 6 degrees, PNG": lambda i: png(i.rotate(6, Image.Resampling.BICUBIC, expand=True)),
    "watermark, PNG": lambda i: png(marked(i)),
}
COPIES: dict[str, Edit] = {
    "square, sharpened, q75": lambda i: jpeg(i.resize((min(i.size) * 5 // 8,) * 2).filter(SHARPEN), 75),
    "half, q90": lambda i: jpeg(scaled(i, 0.5, _LANCZOS), 90),
    "0.8, q85": lambda i: jpeg(scaled(i, 0.8, _LANCZOS), 85),
    "q60": lambda i: jpeg(i, 60),
    "q95": lambda i: jpeg(i, 95),
    "WebP q80": lambda i: ("webp", encoded(i, "WEBP", quality=80)),
    "same pixels, PNG": png,
    "mirrored, q90": lambda i: jpeg(ImageOps.mirror(i), 90),
}


def originals(folder: Path, n: int, with_bundled: bool = True) -> list[Path]:
    import skimage.data

    bundled = [Path(skimage.data.__file__).parent / name for name in BUNDLED][: n * with_bundled]
    paths = sorted(path for path in folder.rglob("*") if path.suffix in {".jpg", ".jpeg", ".png"})
    n_others = max(0, n - len(bundled))
    return bundled + [paths[at] for at in np.linspace(0, len(paths) - 1, n_others).astype(int)]


def judge(path: Path, edits: dict[str, Edit], directory: Path, ages: bool) -> dict[str, str]:
    """Return what became of the original beside each of its edits."""
    data, suffix = path.read_bytes(), path.suffix
    image = Image.open(path).convert("RGB")
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        suffix, data = ".jpg", encoded(image, "JPEG", quality=92)
        image = Image.open(io.BytesIO(data)).convert("RGB")
    original = directory / f"original{suffix}"
    original.write_bytes(data)
    files = {}
    for number, (name, edit) in enumerate(edits.items()):
        kind, content = edit(image)
        files[name] = directory / f"{number:02}.{kind}"
        files[name].write_bytes(content)
    for file in (original, *files.values()):
        os.utime(file, (1_600_000_000 + 60 * (ages and file != original),) * 2)
    collection = Collection.create(directory / "collection")
    collection.add([original, *files.values()], progress=False)
    return {name: _outcome(collection, original, file) for name, file in files.items()}


def _outcome(collection: Collection, original: Path, edit: Path) -> str:
    result = collection.find_duplicates(where=f"path = '{original}' OR path = '{edit}'", progress=False)
    if not result.groups:
        return "not found"
    [group] = result.groups
    if group.keep.path == str(original):
        return "certain" if group.certain else "kept"
    return "lost" if str(original) in group.redundant else "review"


def run(options: argparse.Namespace) -> dict[str, object]:
    # Each file takes part in many pairs.
    kept_image.measure_quality = lru_cache(64)(measure_quality)  # type: ignore[attr-defined]  # it imports it
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in (*WORSE, *COPIES)}
    paths = originals(options.folder, options.originals, not options.folder_only)
    order, started = np.random.default_rng(options.seed).permutation(len(paths)), time.monotonic()
    losers, n_used = [], 0
    for path in (paths[at] for at in order):
        if time.monotonic() - started > options.seconds:
            break
        n_used += 1
        with tempfile.TemporaryDirectory() as directory:
            for name, outcome in judge(path, WORSE | COPIES, Path(directory), options.ages).items():
                outcomes[name][outcome] += 1
                if outcome == "lost":
                    losers.append(f"{path.name}: {name}")
    result: dict[str, object] = {"originals": n_used, "lost": losers}
    for title, edits in (("worse", WORSE), ("copies", COPIES)):
        total = sum((outcomes[name] for name in edits), Counter[str]())
        n = total.total() - total["not found"]
        shares = {}
        for label, n_good in (
            ("original kept", total["kept"] + total["certain"]),
            ("original safe", n - total["lost"]),
            ("certain", total["certain"]),
        ):
            interval = binomtest(n_good, n).proportion_ci(method="wilson")
            shares[label] = [n_good / n, interval.low, interval.high]
        result[title] = {"groups": n, "not found": total["not found"], **shares}
        result[f"{title}, each"] = {name: dict(outcomes[name]) for name in edits}
    return result


def show(result: dict[str, object]) -> None:
    print(f"{result['originals']} originals")
    for title in ("worse", "copies"):
        summary = result[title]
        print(title)
        for name, value in summary.items():  # type: ignore[attr-defined]  # it is a row
            shown = f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]" if isinstance(value, list) else value
            print(f"  {name:30} {shown}")
        for name, counts in result[f"{title}, each"].items():  # type: ignore[attr-defined]  # it is a table
            print(f"    {name:30} {counts}")
    print("lost:", result["lost"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--originals", type=int, default=21)
    parser.add_argument("--folder-only", action="store_true", help="without those of scikit-image")
    parser.add_argument(
        "--seconds", type=float, default=150, help="begin no further original after this time"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ages", action="store_true", help="edits are newer than their originals")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    result = run(options)
    print(json.dumps(result, indent=2)) if options.json else show(result)


if __name__ == "__main__":
    main()
