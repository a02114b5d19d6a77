"""Tables that clients send, or that lie below a root of the service."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from nearsight.errors import MetadataError
from nearsight.server.errors import Problem
from nearsight.server.inputs import media_type, read_form, read_json
from nearsight.server.service import Service
from nearsight.server.uploads import write_file
from nearsight.text_format import printable


@dataclass(frozen=True, slots=True)
class SentTable:
    """A table that can be read.

    Attributes
    ----------
    path : Path
        Of the file on this machine.
    title : str
        Its name for clients.
    is_upload : bool
        Whether it was stored for this request.
    also : bytes
        The other file of the request; empty if there was none.
    """

    path: Path
    title: str
    is_upload: bool
    also: bytes = b""

    def job_args(self) -> dict[str, Any]:
        """Return what a job is told of it; see `analysis_jobs.table_of`."""
        return {"table": str(self.path), "title": self.title, "is_upload": self.is_upload}

    def public(self, error: Exception) -> str:
        """Return what clients may read of an error about the table."""
        return str(error).replace(str(self.path), self.title)


async def sent_table(
    request: Request, collection: str, read: Callable[[Path], object], *, also: str = ""
) -> SentTable:
    """Store the table of a request, or find the one that it names, and read it once.

    Parameters
    ----------
    request : Request
    collection : str
        The table is stored with what the service keeps for it.
    read : callable
        Raises `MetadataError` or `OSError` if the table is wrong.
    also : str, optional
        The name of another file that the request may hold.

    Raises
    ------
    Problem
        400: there is no table, or it is wrong.
    """
    service: Service = request.app.state.service
    title, content, other = await _table(request, also)
    if content is None:
        path = await service.in_thread(service.catalog.file, title)
    else:
        # The same request, sent again with its key, names the same file; any other request does not.
        salt = request.headers.get("idempotency-key") or secrets.token_hex(8)
        digest = hashlib.sha256(salt.encode() + content).hexdigest()[:16]
        path = (await service.in_thread(service.catalog.table_file, collection, digest)).absolute()
        await service.in_thread(write_file, path, content)
    table = SentTable(path, title, content is not None, other)
    try:
        await service.in_thread(read, path)
    except (MetadataError, OSError) as error:
        if table.is_upload:
            path.unlink(missing_ok=True)
        raise Problem(400, table.public(error), code="MetadataError", param="file") from None
    return table


async def _table(request: Request, also: str) -> tuple[str, bytes | None, bytes]:
    """Return the name and the content (None: a file of the server) of a table, and the other file."""
    media = media_type(request)
    if media == "text/csv":
        return "the table", await request.body(), b""
    if media == "multipart/form-data":
        form = await read_form(request, max_files=2 if also else 1)
        try:
            file, other = form.get("file"), form.get(also)
            if isinstance(file, UploadFile):
                title = printable(file.filename or "the table")
                return title, await file.read(), await other.read() if isinstance(other, UploadFile) else b""
        finally:
            await form.close()
    else:
        named = (await read_json(request)).get("file")
        if isinstance(named, str) and named:
            return named, None, b""
    raise Problem(
        400,
        "there is no table; send a file named 'file', text/csv, or JSON with a file of the server",
        param="file",
    )
