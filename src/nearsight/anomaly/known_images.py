"""Short hashes that tell images that were learned from new ones."""

from PIL import Image

from nearsight.images import content_id

# Digits of a hash that are kept: 64 bits.
_N_DIGITS = 16


def image_hashes(data: bytes, image: Image.Image) -> frozenset[int]:
    """Return the hash of a file, and that of its pixels, which is the same whatever file holds them.

    Examples
    --------
    >>> gray = Image.new("RGB", (4, 3), "gray")
    >>> len(image_hashes(b"one file", gray) & image_hashes(b"another", gray))
    1
    """
    pixels = f"{image.mode} {image.size}".encode() + image.tobytes()
    return frozenset(int(content_id(content)[:_N_DIGITS], 16) for content in (data, pixels))
