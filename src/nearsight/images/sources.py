"""Sources of images: files and memory."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH116

import os
import stat
import time
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image

from nearsight.errors import ImageError
from nearsight.images.in_memory import InMemoryImage, from_array, from_image
from nearsight.images.limits import Limits, Stat, stamp_of
from nearsight.images.path_encoding import describe_error
from nearsight.images.strict_decoding import DecodingError

_CHUNK_BYTES = 4 << 20
_OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class ImageSource(Protocol):
    """One image that was found, and not yet read."""

    @property
    def path(self) -> str:
        """The name in messages: the path as it was passed; absolute for an image of a folder."""

    @property
    def key(self) -> str:
        """The absolute path or URL; empty for an image in memory."""

    def stat(self) -> Stat:
        """Return size and time, which show whether the image changed; raises `ImageError`."""

    def read(self, limits: Limits) -> bytes:
        """Return its bytes; raises `ImageError`."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A local file."""

    path: str
    key: str

    def stat(self) -> Stat:
        """Return size and modification time."""
        try:
            info = os.stat(self.key)
        except (OSError, ValueError) as error:
            raise ImageError(self.path, _describe_missing(error, self.key)) from None
        return Stat(info.st_size, stamp_of(info.st_mtime_ns), info.st_mtime)

    def read(self, limits: Limits) -> bytes:
        """Read the file. A FIFO or a device is refused."""
        try:
            handle = os.open(self.key, _OPEN_FLAGS)
        except (OSError, ValueError) as error:
            raise ImageError(self.path, _describe_missing(error, self.key)) from None
        try:
            return self._read(handle, limits)
        except OSError as error:
            raise ImageError(self.path, describe_error(error, self.key)) from None
        finally:
            os.close(handle)

    def _read(self, handle: int, limits: Limits) -> bytes:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            kind = next((name for test, name in _KINDS if test(info.st_mode)), "special")
            raise ImageError(self.path, f"is not a file but {kind}")
        if info.st_size > limits.max_bytes:
            raise ImageError(self.path, too_large(info.st_size, limits))
        deadline = time.monotonic() + limits.max_seconds
        chunks, n_bytes = [], 0
        # One byte more than the size: a file that grows is still being written.
        while chunk := os.read(handle, min(_CHUNK_BYTES, info.st_size + 1 - n_bytes)):
            chunks.append(chunk)
            n_bytes += len(chunk)
            if n_bytes > info.st_size:
                break
            if time.monotonic() > deadline:
                raise ImageError(self.path, too_slow(limits))
        if n_bytes != info.st_size:
            raise ImageError(self.path, "changed while it was read; try again when it is complete")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@dataclass(frozen=True, slots=True)
class MemorySource:
    """An image in memory: encoded bytes, a PIL image or a uint8 array."""

    path: str
    image: bytes | Image.Image | np.ndarray[Any, Any] = field(repr=False)
    key: str = ""

    def stat(self) -> Stat:
        """Return the size; an image in memory has no modification time."""
        if isinstance(self.image, Image.Image):
            width, height = self.image.size
            return Stat(3 * width * height, 0, 0.0)
        return Stat(len(self.image) if isinstance(self.image, bytes) else self.image.nbytes, 0, 0.0)

    def read(self, limits: Limits) -> bytes:
        """Return the bytes, or the upright RGB pixels as `InMemoryImage`."""
        try:
            if isinstance(self.image, Image.Image):
                return from_image(self.image, limits)
            if isinstance(self.image, np.ndarray):
                return from_array(self.image, limits)
        except DecodingError as error:
            raise ImageError(self.path, str(error)) from None
        except Exception as error:  # a lazily opened PIL image raises exceptions of many types
            raise ImageError(self.path, f"is not a readable image: {error}") from error
        if isinstance(self.image, InMemoryImage):
            # Bytes from outside are decoded as a file, never taken for upright RGB pixels.
            return bytes(self.image)
        return self.image


def read_stream(file: IO[bytes], path: str, limits: Limits) -> bytes:
    """Read an open file of unknown length to its end, within the limits."""
    deadline = time.monotonic() + limits.max_seconds
    chunks, n_bytes = [], 0
    while chunk := file.read(min(_CHUNK_BYTES, limits.max_bytes + 1 - n_bytes)):
        chunks.append(chunk)
        n_bytes += len(chunk)
        if n_bytes > limits.max_bytes:
            raise ImageError(path, too_large(n_bytes, limits))
        if time.monotonic() > deadline:
            raise ImageError(path, too_slow(limits))
    return b"".join(chunks)


def too_large(n_bytes: int, limits: Limits) -> str:
    """Return why a file is refused for its size."""
    rule = f"Limits.max_bytes = {limits.max_bytes:,}"
    return f"{n_bytes:,} bytes or more, above {rule}; raise the limit to use it"


def too_slow(limits: Limits) -> str:
    """Return why a slow file is given up."""
    rule = f"Limits.max_seconds = {limits.max_seconds:g}"
    return f"takes longer to read than {rule}; raise the limit to wait longer"


def _describe_missing(error: OSError | ValueError, path: str) -> str:
    reason = describe_error(error, path)
    return "vanished before it was read" if reason == "does not exist" else reason
