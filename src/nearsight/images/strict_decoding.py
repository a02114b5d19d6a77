"""Hold Pillow's decoders to two rules of ours: finish in time, and finish or fail."""

import io
import time
from typing import Any

from PIL import Image, ImageFile

from nearsight.images.limits import Limits


class BrokenError(ValueError):
    """The image breaks a rule; its text is for a person. `decode` adds the path."""


def check_pixels(width: int, height: int, n_pixels: int, limits: Limits) -> None:
    """Raise `BrokenError` where decoding would keep more pixels than the limit."""
    if width < 1 or height < 1:
        raise BrokenError(f"is empty: {width}×{height} pixels")
    if n_pixels > limits.max_pixels:
        raise BrokenError(
            f"{width}×{height} = {n_pixels:,} pixels to decode, more than Limits.max_pixels = "
            f"{limits.max_pixels:,}; raise the limit if the image is meant to be this large"
        )


class TimedReader(io.BytesIO):
    """The image's bytes as a file that refuses to be read once the deadline has passed."""

    def __init__(self, data: bytes, deadline: float) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like `io.BytesIO`; raises `BrokenError` after the deadline."""
        if time.monotonic() > self._deadline:
            raise BrokenError("takes too long to decode; raise Limits.max_seconds if it is meant to")
        return super().read(size)


class _StrictDecoder(ImageFile.PyDecoder):
    """Pillow's own decoder, which must reach the end of the image without an error.

    Pillow pads what is missing when the host application has set `ImageFile.LOAD_TRUNCATED_IMAGES`.
    That is one switch for the whole process, so it can be neither trusted nor changed here; a decoder
    of our own name that wraps the original needs neither.
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
            raise BrokenError(f"the compressed image is damaged (codec error {error})")
        self._finished = self._finished or n_consumed < 0 or self.pulls_fd
        return n_consumed, error

    def cleanup(self) -> None:
        self._inner.cleanup()
        if not self._finished:
            raise BrokenError("the image is cut off: its data ends too early")


_STRICT = "nearsight-strict"
Image.register_decoder(_STRICT, _StrictDecoder)


def make_strict(image: ImageFile.ImageFile) -> None:
    """Wrap the decoders of an opened, not yet loaded image."""
    image.tile = [
        tile._replace(codec_name=_STRICT, args=(tile.codec_name, *_as_tuple(tile.args)))
        for tile in image.tile
    ]


def _as_tuple(args: Any) -> tuple[Any, ...]:
    if args is None:
        return ()
    return args if isinstance(args, tuple) else (args,)
