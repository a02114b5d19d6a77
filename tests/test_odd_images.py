"""The whole road, with the real model, over every kind of image and trouble that folders hold."""

import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageDraw, ImageFilter

from nearsight import Collection, Embedder


def photo(width: int = 1200, height: int = 900) -> Image.Image:
    """Return an image with a clear upside: sky over hills, a sun to the left, a house to the right."""
    y, x = np.mgrid[:height, :width] / height
    sky = np.stack([90 + 90 * y, 140 + 60 * y, 230 - 30 * y], -1)
    hills = np.stack([60 + 40 * x, 120 - 30 * y, 50 + 0 * x], -1)
    ground = y > 0.6 + 0.1 * np.sin(5 * x)
    noise = np.random.default_rng(5).normal(0, 2, (height, width, 1))
    image = Image.fromarray(np.clip(np.where(ground[..., None], hills, sky) + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((120, 90, 300, 270), fill=(255, 220, 60))
    draw.rectangle((720, 420, 990, 690), fill=(190, 70, 50))
    draw.polygon([(690, 420), (855, 270), (1020, 420)], fill=(90, 40, 30))
    return image.filter(ImageFilter.GaussianBlur(0.7))


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture(scope="module")
def upright(embedder: Embedder) -> np.ndarray:
    return embedder.embed([photo()]).vectors[0]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def vector(embedder: Embedder, data: bytes) -> np.ndarray:
    return embedder.embed([data], on_error="raise").vectors[0]


# How the stored pixels must be turned for a viewer who obeys the tag to see the photo upright.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(embedder: Embedder, orientation: int) -> None:
    upright = vector(embedder, saved(photo(), "JPEG", quality=97, subsampling=0))
    image = photo() if STORED[orientation] is None else photo().transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Compression treats turned pixels a little differently; at this quality that is far below the bound.
    assert vector(embedder, saved(image, "JPEG", quality=97, subsampling=0, exif=exif)) @ upright >= 0.999
    if orientation in (3, 4, 6, 8):
        ignored = vector(embedder, saved(image, "JPEG", quality=97))
        assert ignored @ upright < 0.99, "the photo looks the same turned, and proves nothing"


def gray16() -> bytes:
    gray = np.asarray(photo().convert("L"), np.uint16) * 257
    return saved(Image.fromarray(gray), "PNG")


def palette_with_transparency() -> bytes:
    image = photo().convert("P", palette=Image.Palette.ADAPTIVE, colors=255)
    return saved(image, "PNG", transparency=255)


def animation() -> bytes:
    frames = [photo().convert("P", palette=Image.Palette.ADAPTIVE), Image.new("P", (1200, 900))]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def heic() -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(photo()).save(buffer, quality=90)
    return buffer.getvalue()


KINDS: dict[str, tuple[Callable[[], bytes], float]] = {
    "cmyk.jpg": (lambda: saved(photo().convert("CMYK"), "JPEG", quality=95), 0.99),
    "gray16.png": (gray16, 0.8),
    "palette.png": (palette_with_transparency, 0.95),
    "animation.gif": (animation, 0.95),
    "photo.heic": (heic, 0.98),
    "photo.avif": (lambda: saved(photo(), "AVIF", quality=90), 0.98),
    "photo.webp": (lambda: saved(photo(), "WEBP", quality=90), 0.98),
    "photo.tiff": (lambda: saved(photo(), "TIFF", compression="tiff_lzw"), 0.9999),
    "photo.bmp": (lambda: saved(photo(), "BMP"), 0.9999),
    "alpha.png": (lambda: saved(photo().convert("RGBA"), "PNG"), 0.9999),
    "progressive.jpg": (lambda: saved(photo(), "JPEG", progressive=True, quality=95), 0.99),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_images_look_alike(embedder: Embedder, upright: np.ndarray, name: str) -> None:
    make, least = KINDS[name]
    assert vector(embedder, make()) @ upright >= least


def test_sixteen_bits_are_as_eight(embedder: Embedder) -> None:
    assert vector(embedder, gray16()) @ vector(embedder, saved(photo().convert("L"), "PNG")) >= 0.9999


def test_what_is_transparent_everywhere_is_seen(embedder: Embedder) -> None:
    clear = photo().convert("RGBA")
    clear.putalpha(0)
    assert vector(embedder, saved(clear, "PNG")) @ vector(embedder, saved(photo(), "PNG")) >= 0.9999


def test_transparent_is_white(embedder: Embedder) -> None:
    clear = Image.new("RGBA", (1200, 900), (0, 0, 0, 0))
    white = Image.new("RGB", clear.size, "white")
    assert vector(embedder, saved(clear, "PNG")) @ vector(embedder, saved(white, "PNG")) >= 0.9999


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_extreme_shapes_have_a_vector(embedder: Embedder, size: tuple[int, int]) -> None:
    result = vector(embedder, saved(Image.new("RGB", size, (200, 30, 30)), "PNG"))
    assert np.linalg.norm(result) == pytest.approx(1, abs=1e-5)


def bomb() -> bytes:
    """30,000 x 30,000 pixels in some 100 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate = zlib.compressobj(9)
    row = bytes(1 + 30_000 // 8)
    body = b"".join(deflate.compress(row) for _ in range(30_000)) + deflate.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    good = saved(photo(), "JPEG")
    broken_png = bytearray(saved(photo(), "PNG"))
    broken_png[len(broken_png) // 2] ^= 0x55
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (folder / "broken.png").write_bytes(broken_png)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("Dear diary, no image today.")
    (folder / "dangling.jpg").symlink_to(folder / "nothing.jpg")
    (folder / "loop-a.jpg").symlink_to(folder / "loop-b.jpg")
    (folder / "loop-b.jpg").symlink_to(folder / "loop-a.jpg")
    (folder / "directory.jpg").mkdir()
    (folder / "directory.jpg" / "inside.jpg").write_bytes(saved(photo(), "JPEG", quality=60))
    (folder / "round").mkdir()
    (folder / "round" / "again").symlink_to(folder)
    (folder / "new\nline.jpg").write_bytes(saved(photo(), "JPEG", quality=50))
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(saved(photo(), "JPEG", quality=40))
    (folder / "good.jpg").write_bytes(good)
    return folder


GOOD = {"good.jpg", "inside.jpg", "new\nline.jpg", os.fsdecode(b"caf\xe9.jpg")}
BAD = {
    "bomb.png",
    "truncated.jpg",
    "broken.png",
    "empty.jpg",
    "text.jpg",
    "dangling.jpg",
    "loop-a.jpg",
    "loop-b.jpg",
}


@pytest.mark.slow
def test_a_folder_of_trouble(zoo: Path, tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "collection")
    report = collection.add(zoo)
    assert {Path(failure.path).name for failure in report.failed} == BAD
    assert all(failure.reason for failure in report.failed)
    assert {Path(item.path).name for item in collection.items()} == GOOD
    for item in collection.items():
        assert Path(item.path).exists(), "a name did not survive the way into the collection and back"
    again = collection.add(zoo)
    assert (again.unchanged, again.embedded, len(again.failed)) == (len(GOOD), 0, len(BAD))
    found = {Path(match.path).name for match in collection.search(zoo / "good.jpg", k=4)}
    assert found == GOOD


def test_without_permission(zoo: Path, tmp_path: Path) -> None:
    """As somebody who may not read a file: another user, since modes do not bind root."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "open.jpg").write_bytes((zoo / "good.jpg").read_bytes())
    (folder / "secret.jpg").write_bytes((zoo / "good.jpg").read_bytes())
    (folder / "secret.jpg").chmod(0)
    (folder / "closed").mkdir(mode=0)
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.owner() == tmp_path.owner() and parent != Path(parent.anchor):
            parent.chmod(parent.stat().st_mode | 0o055) if parent.stat().st_uid == os.getuid() else None
    script = """
        import os, sys
        from nearsight.images import find
        from nearsight import Limits
        from nearsight.errors import ImageError
        if os.getuid() == 0:
            os.setgid(65534); os.setuid(65534)
        for source in find(sys.argv[1]):
            try:
                print(os.path.basename(source.path), len(source.read(Limits())) > 0)
            except (ImageError, AttributeError):
                print(os.path.basename(source.path), "failed")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.splitlines()) == ["closed failed", "open.jpg True", "secret.jpg failed"]
