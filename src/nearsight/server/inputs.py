"""What clients send to be embedded: images as bytes, base64, data URIs or URLs, and texts."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from nearsight.server.errors import Problem

_DATA_URI = re.compile(r"data:(?P<media>[\w.+-]+/[\w.+-]+)?(?P<rest>(?:;[^,;]*)*),", re.IGNORECASE)
# How base64 of JPEG, PNG, GIF, WebP and TIFF begins.
_BASE64_IMAGES = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK")
_DIGITS = re.compile("[0-9]{1,18}")
# A body of more bytes is parsed in a thread: it would hold up the others.
_PARSED_AT_ONCE_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An encoded image."""

    data: bytes


@dataclass(frozen=True, slots=True)
class UrlInput:
    """An image at a URL."""

    url: str


@dataclass(frozen=True, slots=True)
class TextInput:
    """A text."""

    text: str


#: One thing to embed.
Input = ImageInput | UrlInput | TextInput


def image_of(value: Any, position: int) -> ImageInput | UrlInput:
    """Return the image that a JSON value stands for: a data URI, a URL, or bare base64.

    Raises
    ------
    Problem
        400: it is none of these.
    """
    if not isinstance(value, str) or not value:
        raise _bad(position, "an image is a data URI, a URL, or base64, as a text")
    if value[:5].lower() == "data:":
        match = _DATA_URI.match(value[:256])
        if match is None:
            raise _bad(position, "the data URI is not valid; it must be data:image/TYPE;base64,DATA")
        if ";base64" not in match["rest"].lower():
            raise _bad(position, "the data URI must be base64: data:image/TYPE;base64,DATA")
        return ImageInput(_from_base64(value[match.end() :], position))
    if "://" in value[:64]:
        return UrlInput(value)
    return ImageInput(_from_base64(value, position))


def is_digits(value: object) -> bool:
    """Whether a field of a form is a whole number; not the likes of "²", and none too long to be read.

    >>> [is_digits(value) for value in ("16", 16, "²", "9" * 5000, "")]
    [True, False, False, False, False]
    """
    return isinstance(value, str) and _DIGITS.fullmatch(value) is not None


def text_of(value: Any, position: int) -> TextInput:
    """Return the text that a JSON value stands for.

    Raises
    ------
    Problem
        400: it is no text, or it is an image in base64, whose vector as a text would mean nothing.
    """
    if not isinstance(value, str):
        raise _bad(position, "a text is a string")
    if len(value) > 64 and value.startswith(_BASE64_IMAGES):
        raise _bad(
            position, 'this text is an image in base64; send it as {"image": ...}, or set "modality": "image"'
        )
    if not value.strip():
        raise _bad(position, "the text is empty")
    return TextInput(value)


async def read_json(request: Request) -> dict[str, Any]:
    """Return the body, which must be a JSON object.

    Raises
    ------
    Problem
        400: it is not.
    """
    body = await request.body()
    try:
        if len(body) > _PARSED_AT_ONCE_BYTES:
            document = await request.app.state.service.in_thread(orjson.loads, body)
        else:
            document = orjson.loads(body)
    except ValueError:
        raise Problem(400, "the body is not valid JSON", param="body") from None
    if not isinstance(document, dict):
        raise Problem(400, "the body must be a JSON object", param="body")
    return document


async def read_form(request: Request, *, max_files: int) -> FormData:
    """Return the fields and files of a multipart body.

    Raises
    ------
    Problem
        400: it is damaged, or has too many parts.
    """
    return await request.form(max_files=max_files, max_fields=100)


async def files_of(form: FormData, name: str) -> list[bytes]:
    """Return the content of all files of a form that have a name."""
    return [await file.read() for file in form.getlist(name) if isinstance(file, UploadFile)]


def media_type(request: Request) -> str:
    """Return the media type of the body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_images(images: Sequence[bytes], *, max_bytes: int) -> None:
    """Refuse an image that is too large.

    Raises
    ------
    Problem
        413.
    """
    for position, data in enumerate(images):
        if len(data) > max_bytes:
            raise Problem(
                413,
                f"image {position} has {len(data) / 2**20:.1f} MB; at most {max_bytes / 2**20:g} MB are "
                f"allowed "
                "(--max-image-mb)",
                errors=[{"index": position, "detail": "too large"}],
            )


def _from_base64(text: str, position: int) -> bytes:
    try:
        compact = text.strip().replace("\n", "").replace("\r", "")
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _bad(position, "the image is not valid base64") from None


def _bad(position: int, detail: str) -> Problem:
    return Problem(
        400, f"input {position}: {detail}", param="input", errors=[{"index": position, "detail": detail}]
    )
