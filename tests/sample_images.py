"""Makers of small test images: real encoders, no files in the repository."""

import io
import struct
import zlib
from functools import cache

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, ImageDraw, ImageFont

# EXIF orientation → what was done to the upright image to store it.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@cache
def scene(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    """Return a smooth colorful image without any symmetry, so that each wrong turn shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = [
        sum(
            rng.uniform(0.3, 1) * np.sin(rng.uniform(2, 14) * x + rng.uniform(2, 14) * y + rng.uniform(0, 6))
            for _ in range(4)
        )
        for _ in range(3)
    ]
    array = np.stack(planes, -1)
    array = (array - array.min()) / (array.max() - array.min()) * 255
    array[: height // 4, : width // 3] = (250, 20, 20)
    return Image.fromarray(np.rint(array).astype(np.uint8))


@cache
def texture(width: int = 240, height: int = 180, seed: int = 0) -> Image.Image:
    """Return noise of several scales, like a photograph's spectrum: full of details."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (4, 16, 64):
        cells = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        total += np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)) / 3
    return Image.fromarray(total.astype(np.uint8))


@cache
def page(seed: int, width: int = 620, height: int = 877) -> Image.Image:
    """Return a page of text: the lines are the same on every page, and the words are not."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (width, height), 255)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=12)
    for y in range(60, height - 60, 17):
        x = 60
        while x < width - 100:
            word = "".join(rng.choice(list("aeinorst"), rng.integers(2, 11)))
            draw.text((x, y), word, fill=20, font=font)
            x += round(draw.textlength(word + " ", font=font))
    return image


def rescanned(image: Image.Image, degrees: float = 1.0) -> Image.Image:
    """Return a gray image as a scanner would: turned a little, smaller, with noise and another contrast."""
    turned = image.convert("L").rotate(degrees, Image.Resampling.BICUBIC, fillcolor=250)
    smaller = turned.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
    pixels = np.asarray(smaller, np.float32) * 0.85 + 20
    pixels += np.random.default_rng(0).normal(size=pixels.shape) * 5
    return Image.open(io.BytesIO(encoded(Image.fromarray(pixels.astype(np.uint8)), "JPEG", quality=60)))


def product(color: str = "gray", label: str = "", size: int = 400) -> Image.Image:
    """Return something on white: the outline is always the same, the color and the label are not."""
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((size * 0.25, size * 0.1, size * 0.75, size * 0.9), size // 20, fill=color)
    lines = "\n".join(label[at : at + 8] for at in range(0, len(label), 8))
    draw.multiline_text(
        (size * 0.3, size * 0.2), lines, fill="black", font=ImageFont.load_default(size // 12)
    )
    return image


@cache
def photograph(width: int = 320, height: int = 256, seed: int = 0) -> Image.Image:
    """Return an image with the spectrum and the contrast of a photograph, in color, with a plain part."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / np.maximum(frequency, 0.01) ** 1.2
    light = np.fft.irfft2(spectrum, s=(height, width))
    colors = np.asarray(texture(width, height, seed + 1), np.float32) * 0.4
    pixels = 90 + 40 * light[..., None] / light.std() + colors
    pixels[:, : width * 3 // 10] = (90, 100, 110)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    """Encode with Pillow; HEIF with pillow-heif."""
    file = io.BytesIO()
    if image_format == "HEIF":
        pillow_heif.from_pillow(image).save(file, **options)
    else:
        image.save(file, image_format, **options)
    return file.getvalue()


def exif_block(orientation: int, *, kind: int = 3, endian: str = "<") -> bytes:
    """Return a minimal EXIF block, written by hand."""
    value = struct.pack(endian + {1: "B3x", 3: "H2x", 4: "L"}[kind], orientation)
    entry = struct.pack(endian + "HHL", 0x0112, kind, 1) + value
    head = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "L", 8)
    return b"Exif\0\0" + head + struct.pack(endian + "H", 1) + entry + bytes(4)


def turned(
    orientation: int, image_format: str = "JPEG", image: Image.Image | None = None, **options
) -> bytes:
    """Return the scene stored turned, with the EXIF orientation that turns it back."""
    image = image or scene()
    how = STORED_AS[orientation]
    stored = image if how is None else image.transpose(how)
    if image_format == "TIFF":
        return encoded(stored, "TIFF", tiffinfo={274: orientation}, **options)
    return encoded(stored, image_format, exif=exif_block(orientation), **options)


def png(width: int, height: int, bit_depth: int, color_type: int, rows: bytes, *extra: bytes) -> bytes:
    """Return a PNG of unfiltered rows, chunk by chunk, for what Pillow does not write."""
    header = struct.pack(">LLBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            *extra,
            png_chunk(b"IDAT", zlib.compress(rows, 9)),
            png_chunk(b"IEND", b""),
        )
    )


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return one PNG chunk with its checksum."""
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


@cache
def png_bomb(side_px: int = 30_000) -> bytes:
    """Return a valid PNG of side² black pixels in a few kilobytes: one bit each, all alike."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (side_px + 7) // 8)
    body = b"".join(packer.compress(row * 1000) for _ in range(side_px // 1000)) + packer.flush()
    header = struct.pack(">LLBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )


def profile(name: str) -> bytes:
    """Return an ICC profile: ``sRGB``, ``swapped`` (its red is blue) or ``gray`` (a linear gray)."""
    if name == "sRGB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if name == "swapped":
        data = bytearray(profile("sRGB"))
        # The tag table follows 128 bytes of header: exchange where the red and blue colorants lie.
        entries = {data[i : i + 4].decode(): i for i in range(132, 132 + 12 * data[131], 12)}
        red, blue = entries["rXYZ"], entries["bXYZ"]
        data[red + 4 : red + 12], data[blue + 4 : blue + 12] = (
            data[blue + 4 : blue + 12],
            data[red + 4 : red + 12],
        )
        return bytes(data)
    if name == "gray":
        white = b"XYZ \0\0\0\0" + struct.pack(">3l", 63190, 65536, 54061)
        curve = b"curv\0\0\0\0" + struct.pack(">L", 0)
        text = b"desc\0\0\0\0" + struct.pack(">L", 5) + b"gray\0" + bytes(78)
        parts, table, offset = [], b"", 128 + 4 + 3 * 12
        for tag, content in ((b"wtpt", white), (b"kTRC", curve), (b"desc", text)):
            content += bytes(-len(content) % 4)
            table += tag + struct.pack(">LL", offset, len(content))
            parts.append(content)
            offset += len(content)
        head = struct.pack(">L4sL4s4s4s", offset, b"none", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
        head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3l", 63190, 65536, 54061)
        return head.ljust(128, b"\0") + struct.pack(">L", 3) + table + b"".join(parts)
    raise ValueError(name)


@cache
def samples() -> dict[str, bytes]:
    """Return one valid small image of each format and variant, by name."""
    image = scene(64, 48)
    rgba = image.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(image.size))
    frames = [scene(64, 48, seed) for seed in (1, 2)]
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return {
        "jpeg": encoded(image, "JPEG", quality=90),
        "jpeg-exif": turned(6, image=image),
        "jpeg-progressive": encoded(image, "JPEG", progressive=True),
        "jpeg-gray": encoded(image.convert("L"), "JPEG"),
        "jpeg-cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "jpeg-restarts": encoded(image, "JPEG", restart_marker_blocks=2),
        "png": encoded(image, "PNG"),
        "png-palette": encoded(image.quantize(16), "PNG", transparency=3),
        "png-alpha": encoded(rgba, "PNG"),
        "png-16": encoded(deep, "PNG"),
        "apng": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2),
        "webp": encoded(image, "WEBP", quality=80),
        "webp-lossless": encoded(rgba, "WEBP", lossless=True, exif=exif_block(1)),
        "webp-animated": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "tiff": encoded(image, "TIFF"),
        "tiff-lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": encoded(image, "TIFF", compression="jpeg"),
        "tiff-pages": encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "bmp": encoded(image, "BMP"),
        "ppm": encoded(image, "PPM"),
        "jpeg2000": encoded(image, "JPEG2000"),
        "avif": encoded(image, "AVIF", speed=10),
        "heif": encoded(image, "HEIF", quality=60),
    }


def fabric(seed: int, size: tuple[int, int] = (96, 96)) -> np.ndarray:
    """Return woven noise: images of different seeds are alike, and never the same."""
    noise = np.random.default_rng(seed).normal(128, 25, size)
    noise[::4] += 30
    return np.clip(noise, 0, 255).astype(np.uint8)


def torn(seed: int, at: tuple[int, int] = (40, 30), size: tuple[int, int] = (96, 96)) -> np.ndarray:
    """Return fabric with a hole."""
    pixels = fabric(seed, size)
    pixels[at[0] : at[0] + 18, at[1] : at[1] + 18] = 250
    return pixels


def grainy(seed: int = 0, size: tuple[int, int] = (256, 192)) -> Image.Image:
    """Details of every scale, like a photograph."""
    base = np.asarray(texture(*size, seed), np.float32)
    edges = np.random.default_rng(seed).normal(0, 1, (size[1], size[0], 1))
    edges = np.cumsum(np.cumsum(edges, axis=0), axis=1)
    pixels = base + 12 * np.sin(edges / 20)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
