"""The page: its files as the package holds them, under an address that changes with their content."""

import gzip
import hashlib
import re
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from nearsight import web
from nearsight.server.errors import Problem

router = APIRouter(include_in_schema=False)

_MEDIA = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_IMMUTABLE = "public, max-age=31536000, immutable"


class PageFile(NamedTuple):
    """A file of the page, as it is and compressed."""

    content: bytes
    compressed: bytes
    media: str


@cache
def page_files() -> dict[str, PageFile]:
    """Return all files that a browser may load, by their path below the page's folder."""
    files = {}
    for path, content in web.files():
        media = _MEDIA.get(PurePosixPath(path).suffix)
        if media is not None:
            files[path] = PageFile(content, gzip.compress(content, mtime=0), f"{media}; charset=utf-8")
    return files


@cache
def version() -> str:
    """Return 8 digits that change when any file of the page does."""
    digest = hashlib.sha256()
    for path, file in sorted(page_files().items()):
        digest.update(path.encode() + b"\0" + file.content)
    return digest.hexdigest()[:8]


@cache
def index() -> str:
    """Return the page, its links leading to the files of this version.

    It names all modules: a browser asks for them at once, not for each after the one that imports it.
    """
    html = dict(web.files())["index.html"].decode("utf-8")
    modules = (path for path in sorted(page_files()) if path.endswith(".js"))
    links = "".join(f'<link rel="modulepreload" href="{path}">\n' for path in modules)
    html = html.replace("<script", links + "<script", 1)
    return re.sub(r'(href|src)="(?=[\w-]+[/.])', rf'\1="/static/{version()}/', html)


@router.get("/", response_class=HTMLResponse)
async def get_page() -> HTMLResponse:
    """Return the page."""
    return HTMLResponse(index(), headers={"Cache-Control": "no-cache"})


@router.get("/favicon.ico")
async def get_icon() -> Response:
    """Return the icon that browsers ask for by themselves."""
    return Response(page_files()["icon.svg"].content, media_type="image/svg+xml")


@router.get("/static/{digest}/{path:path}")
async def get_file(request: Request, digest: str, path: str) -> Response:
    """Return one file of the page."""
    file = page_files().get(path)
    if file is None or digest != version():
        raise Problem(404, "the page has changed; load it again", code="page_changed")
    headers = {"Cache-Control": _IMMUTABLE, "Vary": "Accept-Encoding"}
    if not _takes_gzip(request.headers.get("accept-encoding", "")):
        return Response(file.content, media_type=file.media, headers=headers)
    return Response(file.compressed, media_type=file.media, headers={**headers, "Content-Encoding": "gzip"})


def _takes_gzip(header: str) -> bool:
    """Return whether an ``Accept-Encoding`` takes gzip; ``q=0`` says that it does not."""
    weights = {}
    for part in header.lower().split(","):
        name, _, rest = part.partition(";")
        weight = re.search(r"\bq=([0-9.]+)", rest)
        weights[name.strip()] = weight is None or bool(weight[1].strip("0."))
    return weights.get("gzip", weights.get("*", False))
