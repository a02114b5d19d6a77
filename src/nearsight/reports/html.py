"""HTML from the package's templates.

A page loads nothing from the network. From the disk it loads its own folder of thumbnails, if it has one, and
the original of an image that a reader enlarges.
"""

import base64
import hashlib
import io
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from PIL import Image

from nearsight.artifacts import exported
from nearsight.text_format import printable


def render(template: str, **context: Any) -> str:
    """Return the HTML of a template; every text in `context` is escaped."""
    return _environment().get_template(template).render(context)


def write_html(file: Path, html: str) -> None:
    """Replace a file by a report, whole or not at all.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    with exported(file) as handle:
        handle.write(html.encode("utf-8"))


def template_source(name: str) -> Markup:
    """Return the text of a script or a style sheet as it is, unescaped."""
    return Markup(_loader().get_source(_environment(), name)[0])


@cache
def _loader() -> jinja2.PackageLoader:
    return jinja2.PackageLoader("nearsight.reports")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=_loader(),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # File names may hold control characters and bytes that are no UTF-8.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def jpeg_uri(jpeg: bytes) -> Markup:
    """Return the ``data:`` address of a JPEG image."""
    return Markup("data:image/jpeg;base64,") + Markup(base64.b64encode(jpeg).decode("ascii"))


def policy_hash(script: str) -> str:
    """Return the source expression that lets a browser run this very script, and no other."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def smaller_jpeg(jpeg: bytes, side_px: int) -> bytes:
    """Return a thumbnail whose longer side has at most `side_px` pixels."""
    with Image.open(io.BytesIO(jpeg)) as image:
        image.thumbnail((side_px, side_px))
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=78)
    return out.getvalue()


def link(path: str) -> str | None:
    """Return the address of an original in a browser, or None where a browser cannot open it.

    Examples
    --------
    >>> link("https://example.org/a b.jpg"), link("s3://bucket/a.jpg")
    ('https://example.org/a%20b.jpg', None)
    """
    scheme, separator, _ = path.partition("://")
    if not separator:
        return Path(path).absolute().as_uri() if path else None
    if scheme.lower() not in ("http", "https"):
        return None
    return quote(path, safe=":/?#[]@!$&'()*+,;=%~", errors="surrogateescape")
