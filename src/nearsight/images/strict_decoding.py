"""Pillow's decoders with two more rules: they finish in time, and fail on damaged or missing data."""

import io
import time
from typing import Any

from PIL import Image, ImageFile

from nearsight.images.limits import Limits


class DecodingError(ValueError):
    """An image cannot be decoded, for a reason that a person understands. `decode` adds the path."""


class DamagedError(DecodingError):
    """An image is cut off or damaged."""

    def __str__(self) -> str:
        return f"{super().__str__()}; restore the file"


def check_pixels(width: int, height: int, n_pixels: int, limits: Limits) -> None:
    """Raise `DecodingError` if an image is empty, or needs more pixels than the limit."""
    if width < 1 or height < 1:
        raise DecodingError(f"is empty: {width}×{height} pixels")
    if n_pixels > limits.max_pixels:
        raise DecodingError(
            f"{width}×{height} = {n_pixels:,} pixels to decode, more than Limits.max_pixels = "
            f"{limits.max_pixels:,}; raise the limit (--max-pixels, max_pixels) to decode it"
        )


class TimedReader(io.BytesIO):
    """An image's bytes as a file that cannot be read after a deadline."""

    def __init__(self, data: bytes, deadline: float) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like `io.BytesIO`; raises `DecodingError` after the deadline."""
        if time.monotonic() > self._deadline:
            raise DecodingError("takes too long to decode; raise Limits.max_seconds to wait longer")
        return super().read(size)


class _StrictDecoder(ImageFile.PyDecoder):
    """One of Pillow's decoders, which must reach the end of the image without an error.

    Pillow pads missing data if the host application has set `ImageFile.LOAD_TRUNCATED_IMAGES`. That is one
    switch for the whole process, so this library can neither rely on it nor change it. A decoder that wraps
    Pillow's does not depend on it.
    """

    def __init__(self, mode: str, codec: str, *args: Any) -> None:
        super().__init__(mode)
        self._inner = Image._getdecoder(mode, codec, args)
        self._finished = False

    @property
    def pulls_fd(self) -> bool:
        return bool(self._inner.pulls_fd)

    def setimage(self, im: Any, extents: tuple[int, int, int, int] | None = None) -> None:
        self._inner.setimage(im, extents)

    def setfd(self, fd: Any) -> None:
        self._inner.setfd(fd)

    def decode(self, buffer: Any) -> tuple[int, int]:
        n_consumed, error = self._inner.decode(buffer)
        if error < 0:
            raise DamagedError(f"the compressed image is damaged (codec error {error})")
        self._finished = self._finished or n_consumed < 0 or self.pulls_fd
        return n_consumed, error

    def cleanup(self) -> None:
        self._inner.cleanup()
        if not self._finished:
            raise DamagedError("the image is cut off: its data ends too early")


_STRICT = "nearsight-strict"
Image.register_decoder(_STRICT, _StrictDecoder)


def make_strict(image: ImageFile.ImageFile) -> None:
    """Wrap the decoders of an opened image whose pixels were not loaded."""
    image.tile = [
        tile._replace(codec_name=_STRICT, args=(tile.codec_name, *_as_tuple(tile.args)))
        for tile in image.tile
    ]


def _as_tuple(args: Any) -> tuple[Any, ...]:
    if args is None:
        return ()
    return args if isinstance(args, tuple) else (args,)
