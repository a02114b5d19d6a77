"""Different documents and products that look alike, and their copies: are the two told apart?

Makes pages of text in four layouts, forms in two, screenshots in two, products of five outlines on white, and
screenshots of five further programs, which nothing was set by.
Within a layout everything but the words is the same; within an outline everything but color and print. Half
of the images also come scanned again (turned by up to 2 degrees, cropped by up to 1.5 % on each side, 50 to
90 % of the size, other brightness and contrast, noise, JPEG at quality 40 to 80) and at a quarter of the
size. All images of a kind are searched for duplicates together. The report gives the images that are
grouped with a different one, and the share of copies that are grouped with their original; both also for
groups of the tier `certain` only.

With --folder, the images of FOLDER, all different, are a kind of their own; small ones are enlarged first.
Of Debian's dataset-fashion-mnist, a file of images in IDX format may be named instead.

    python -m benchmarks.duplicates_documents [--images N] [--folder FOLDER ...] [--json]
"""

import argparse
import gzip
import json
import string
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks import screenshots
from benchmarks.duplicates import IMAGES, rescan, wilson
from nearsight import Collection

# Longest side that images of a folder are enlarged to.
_ENLARGED_PX = 300

Rng = np.random.Generator
Draw = ImageDraw.ImageDraw


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype(f"DejaVu{name}.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


@cache
def vocabulary() -> list[str]:
    """Return made-up words of the lengths that English words have."""
    rng = np.random.default_rng(1)
    letters = np.array(list(string.ascii_lowercase))
    lengths = 1 + rng.poisson(3.8, 4000)
    return ["".join(rng.choice(letters, length)) for length in lengths]


def words(rng: Rng, n: int) -> str:
    return " ".join(rng.choice(vocabulary(), n))


def paragraphs(
    draw: Draw, rng: Rng, box: tuple[int, int, int, int], name: str, size: int, *, justified: bool
) -> None:
    """Fill a box with lines of words."""
    left, top, right, bottom = box
    face = font(name, size)
    for y in range(top, bottom - size, round(1.45 * size)):
        line = words(rng, 1)
        while draw.textlength(longer := f"{line} {words(rng, 1)}", font=face) < right - left:
            line = longer
        parts = line.split()
        ends_paragraph = rng.random() < 0.12
        gap = draw.textlength(" ", font=face)
        if justified and not ends_paragraph and len(parts) > 1:
            gap += (right - left - draw.textlength(line, font=face)) / (len(parts) - 1)
        x = float(left)
        for part in parts[: 1 + len(parts) // 2] if ends_paragraph else parts:
            draw.text((x, y), part, fill=25, font=face)
            x += draw.textlength(part, font=face) + gap


def page(rng: Rng, layout: int) -> Image.Image:
    image = Image.new("L", (1240, 1754), 255)
    draw = ImageDraw.Draw(image)
    if layout == 0:  # a book
        paragraphs(draw, rng, (150, 150, 1090, 1600), "Serif", 24, justified=True)
    elif layout == 1:  # a paper in two columns
        draw.text((300, 90), words(rng, 4).title(), fill=0, font=font("Sans-Bold", 36))
        paragraphs(draw, rng, (90, 190, 600, 1660), "Serif", 19, justified=True)
        paragraphs(draw, rng, (640, 190, 1150, 1660), "Serif", 19, justified=True)
    elif layout == 2:  # a letter
        draw.text((120, 90), "EXAMPLE & SONS", fill=60, font=font("Sans-Bold", 40))
        draw.line((120, 150, 1120, 150), fill=60, width=3)
        draw.multiline_text((120, 230), words(rng, 6).replace(" ", "\n", 2), fill=20, font=font("Sans", 24))
        paragraphs(draw, rng, (120, 460, 1120, int(rng.integers(900, 1500))), "Sans", 24, justified=False)
    else:  # a listing
        for y in range(100, 1660, 26):
            indent = 14 * 4 * int(rng.integers(4))
            line = words(rng, int(rng.integers(1, 8)))
            draw.text((110 + indent, y), line, fill=30, font=font("SansMono", 20))
    return image


def form(rng: Rng, layout: int) -> Image.Image:
    image = Image.new("L", (1240, 1754), 255)
    draw, printed = ImageDraw.Draw(image), np.random.default_rng(layout)
    draw.text((100, 70), words(printed, 4).upper(), fill=0, font=font("Sans-Bold", 38))
    if layout == 0:  # boxes to fill in
        for y in range(170, 1600, 110):
            edges = np.linspace(100, 1140, int(printed.integers(2, 5))).round().astype(int).tolist()
            for left, right in pairwise(edges):
                draw.rectangle((left, y, right, y + 96), outline=0, width=2)
                draw.text((left + 8, y + 5), words(printed, 2), fill=80, font=font("Sans", 17))
                entry = words(rng, int(rng.integers(1, max(2, (right - left) // 150))))
                draw.text((left + 18, y + 42), entry, fill=10, font=font("Sans-Oblique", 30))
    else:  # an invoice
        for row, y in enumerate(range(300, 1560, 60)):
            draw.line((100, y + 52, 1140, y + 52), fill=120)
            draw.text((110, y + 10), f"{row + 1}", fill=0, font=font("Sans", 24))
            draw.text((180, y + 10), words(rng, int(rng.integers(1, 6))), fill=0, font=font("Sans", 24))
            draw.text((980, y + 10), f"{rng.uniform(1, 2000):9.2f}", fill=0, font=font("SansMono", 24))
        for x in (100, 165, 960, 1140):
            draw.line((x, 300, x, 1552), fill=120)
    return image


def screenshot(rng: Rng, layout: int) -> Image.Image:
    image = Image.new("RGB", (1440, 900), (250, 250, 250))
    draw, printed = ImageDraw.Draw(image), np.random.default_rng(layout)
    draw.rectangle((0, 0, 1440, 56), fill=(40, 60, 90))
    for x in range(20, 1000, 140):
        draw.text((x, 16), words(printed, 1), fill="white", font=font("Sans", 20))
    if layout == 0:  # a spreadsheet
        for y in range(56, 900, 32):
            draw.line((0, y, 1440, y), fill=(200, 200, 200))
            for x in range(60, 1440, 138):
                if rng.random() < 0.8:
                    draw.text((x + 8, y + 6), f"{rng.normal() * 1000:10.2f}", fill=0, font=font("Sans", 17))
        for x in range(60, 1440, 138):
            draw.line((x, 56, x, 900), fill=(200, 200, 200))
    else:  # messages
        draw.rectangle((0, 56, 300, 900), fill=(230, 230, 235))
        for y in range(80, 880, 50):
            draw.text((24, y), words(printed, 2), fill=(60, 60, 60), font=font("Sans", 20))
        for y in range(80, 860, 90):
            left = 330 if rng.random() < 0.5 else 700
            draw.rounded_rectangle((left, y, left + 680, y + 78), 16, fill=(222, 236, 252))
            paragraphs(draw, rng, (left + 16, y + 8, left + 660, y + 90), "Sans", 20, justified=False)
    return image


def product(rng: Rng, outline: int) -> Image.Image:
    side = 600
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    if outline == 0:  # a carton
        draw.polygon([(120, 160), (420, 110), (500, 180), (500, 500), (210, 550), (120, 470)], fill=255)
    elif outline == 1:  # a can
        draw.rectangle((190, 110, 410, 490), fill=255)
        draw.ellipse((190, 80, 410, 140), fill=255)
        draw.ellipse((190, 460, 410, 520), fill=255)
    elif outline == 2:  # a bag
        draw.rectangle((130, 220, 470, 540), fill=255)
        draw.arc((210, 80, 390, 360), 180, 360, fill=255, width=22)
    elif outline == 3:  # a sweater
        draw.polygon([(200, 90), (400, 90), (560, 380), (490, 410), (410, 270), (410, 530), (190, 530),
                      (190, 270), (110, 410), (40, 380)], fill=255)  # fmt: skip
    else:  # a plate
        draw.ellipse((60, 60, 540, 540), fill=255)
    light = 1 - 0.3 * np.abs(np.linspace(-0.8, 1, side))
    body = light[None, :, None] * rng.integers(40, 240, 3) + rng.normal(size=(side, side, 1)) * 2
    printed = Image.fromarray(np.clip(body, 0, 255).astype(np.uint8))
    draw, color = ImageDraw.Draw(printed), tuple(rng.integers(0, 256, 3).tolist())
    kind = int(rng.integers(4))
    if kind == 0:
        label = "\n".join(words(rng, 2) for _ in range(int(rng.integers(1, 5)))).upper()
        place = (220, int(rng.integers(220, 320)))
        draw.multiline_text(place, label, fill=color, font=font("Sans-Bold", int(rng.integers(20, 40))))
    elif kind == 1:
        step = int(rng.integers(24, 90))
        for at in range(int(rng.integers(step)), side, step):
            draw.rectangle((0, at, side, at + step // 3), fill=color)
    elif kind == 2:
        for x, y in rng.uniform(0, side, (40, 2)).tolist():
            draw.regular_polygon((x, y, int(rng.integers(8, 30))), int(rng.integers(3, 7)), fill=color)
    return Image.composite(printed, Image.new("RGB", (side, side), "white"), mask)


MAKERS: dict[str, tuple[Callable[[Rng, int], Image.Image], int, float]] = {
    # The images as a multiple of --images, each layout with as many.
    "pages": (page, 4, 2.0),
    "forms": (form, 2, 1.0),
    "screenshots": (screenshot, 2, 1.0),
    "products": (product, 5, 1.0),
    "other screenshots": (screenshots.screenshot, 5, 1.0),
}


def crop_slightly(image: Image.Image, rng: Rng) -> Image.Image:
    left, top, right, bottom = rng.uniform(0, 0.015, 4)
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def originals(name: str, n: int) -> Iterator[Image.Image]:
    make, n_layouts, multiple = MAKERS[name]
    for number in range(round(n * multiple)):
        yield make(np.random.default_rng([number, len(name)]), number % n_layouts)


def images_of(path: Path, n: int) -> Iterator[Image.Image]:
    """Yield images of a folder, or of a file in IDX format, enlarged."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES)
        found = (on_white(Image.open(file)) for file in files[:n])
    else:
        data = gzip.decompress(path.read_bytes())
        pixels = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28)
        found = map(Image.fromarray, pixels[:n])
    for image in found:
        share = max(1, _ENLARGED_PX / max(image.size))
        size = round(image.width * share), round(image.height * share)
        yield image.resize(size, Image.Resampling.BICUBIC)


def on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")


def write(images: Iterator[Image.Image], folder: Path) -> int:
    """Write all images, and two copies of every second one; return how many images there are."""
    for number, image in enumerate(images):
        files = {"original": image}
        if number % 2:
            rng = np.random.default_rng(number)
            files["rescan"] = rescan(crop_slightly(image, rng), rng)
            files["small"] = image.resize((image.width // 4, image.height // 4), Image.Resampling.LANCZOS)
        for name, file in files.items():
            file.save(folder / f"{number:05}_{name}.jpg", quality=92)
    return number + 1


def judge(folder: Path, n_images: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        collection = Collection.create(Path(directory, "collection"))
        collection.add(folder)
        groups = collection.find_duplicates(progress=False).groups
    names = [[tuple(Path(item.path).stem.split("_")) for item in group.items] for group in groups]
    result: dict[str, object] = {"images": n_images}
    for tier, is_in in (("all", lambda group: True), ("certain", lambda group: group.certain)):
        of_tier = [own for own, group in zip(names, groups, strict=True) if is_in(group)]
        wrong = [own for own in of_tier if len({number for number, _ in own}) > 1]
        group_of = {name: at for at, own in enumerate(of_tier) for name in own}
        result[tier] = {"groups": len(of_tier), "false groups": len(wrong), "wrong": wrong[:5]}
        for copy in ("rescan", "small"):
            numbers = [f"{number:05}" for number in range(1, n_images, 2)]
            right = sum(
                group_of.get((number, copy), -1) == group_of.get((number, "original"), -2)
                for number in numbers
            )
            result[tier] |= {copy: right / len(numbers), f"{copy}_95": wilson(right, len(numbers))}
    return result


def shown(row: dict[str, object], copy: str) -> str:
    low, high = row[f"{copy}_95"]  # type: ignore[misc]  # it is an interval
    return f"{row[copy]:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100, help="of each kind; twice as many pages")
    parser.add_argument("--kinds", nargs="*", default=[*MAKERS], help="kinds to make")
    parser.add_argument("--folder", type=Path, nargs="*", default=[], help="images that are all different")
    parser.add_argument("--most", type=int, default=1000, help="images of a folder")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    sources = {name: partial(originals, name, options.images) for name in options.kinds}
    sources |= {str(path): partial(images_of, path, options.most) for path in options.folder}
    results = {}
    for name, source in sources.items():
        with tempfile.TemporaryDirectory() as directory:
            results[name] = judge(Path(directory), write(source(), Path(directory)))
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name, result in results.items():
        print(f"{name}: {result['images']} different images")
        for tier in ("all", "certain"):
            row = result[tier]
            assert isinstance(row, dict)
            print(
                f"    {tier:8} {row['groups']:4} groups, {row['false groups']} false;"
                f" rescans {shown(row, 'rescan')}, small copies {shown(row, 'small')}"
            )


if __name__ == "__main__":
    main()
