"""The documents of a collection in Milvus, in one table for all collections of a database."""

import base64
import hashlib
import json
from typing import Any

from nearsight.errors import StorageError
from nearsight.store.milvus.expressions import among
from nearsight.store.milvus.server import MAX_TEXT_BYTES, Server

_TABLE = "nearsight_documents"
# Milvus wants a vector in every table.
_NO_VECTOR = [1.0, 0.0]
# So many characters of base64 fit into a row, and so many such rows are sent at once.
_MAX_CHARACTERS, _ROWS_AT_ONCE = MAX_TEXT_BYTES // 4 * 4, 64
# How often a document is read again that is replaced while it is read.
_N_TRIES = 8


class MilvusDocuments:
    """Reads, writes and deletes documents.

    A row is a key and the document in base64. A document that is too long for a row is split: its parts are
    rows of their own, and the row of its key, the head, is JSON that names them. Parts are named by their
    content, so those of another document are never overwritten. They are written before the head, and those
    that no head names any more are deleted after it. So a document is whole whenever a writer dies.

    Parameters
    ----------
    server : Server
    collection : str
    """

    def __init__(self, server: Server, collection: str) -> None:
        self._server = server
        self._collection = collection
        self._is_there = False

    def read(self, name: str) -> bytes | None:
        """Return a document, or None if there is none."""
        if not self._has_table():
            return None
        key = self._key(name)
        for _ in range(_N_TRIES):
            rows = self._server.read(_TABLE, among([key]), ["content"])
            if not rows:
                return None
            head = rows[0]["content"]
            if not head.startswith("{"):
                return base64.b64decode(head)
            content = self._join(key, json.loads(head))
            if content is not None:
                return content
            # It was replaced since its head was read.
        raise StorageError(
            f"{self._server.address.shown}: parts of the document {name!r} are missing; restore the table"
            f" {_TABLE} from a backup"
        )

    def write(self, name: str, content: bytes) -> None:
        """Write a document, whole or not at all."""
        if not self._has_table():
            self._server.create(_TABLE, {"content": "text"}, len(_NO_VECTOR))
            self._is_there = True
        key, text = self._key(name), base64.b64encode(content).decode()
        if len(text) <= _MAX_CHARACTERS:
            self._write_rows({key: text})
            # Parts of a longer one stay until the document is deleted, or long again: few ever have parts,
            # and to look for them would make each write wait for the server's clock.
            return
        starts = range(0, len(text), _MAX_CHARACTERS)
        head = {"digest": hashlib.sha256(content).hexdigest()[:16], "n_parts": len(starts)}
        texts = [text[start : start + _MAX_CHARACTERS] for start in starts]
        keys = _part_keys(key, head)
        self._write_rows(dict(zip(keys, texts, strict=True)))
        self._write_rows({key: json.dumps(head)})
        self._delete_parts(key, but=set(keys))

    def delete(self, name: str) -> None:
        """Delete a document, if there is one."""
        if self._has_table():
            key = self._key(name)
            self._server.delete(_TABLE, among([key]))
            self._delete_parts(key, but=set())

    def seal(self, *, patiently: bool) -> None:
        """Have the server seal all documents; see `Server.flush`."""
        if self._has_table():
            self._server.flush(_TABLE, patiently=patiently)

    def _has_table(self) -> bool:
        self._is_there = self._is_there or self._server.has(_TABLE)
        return self._is_there

    def _key(self, name: str) -> str:
        return hashlib.sha256(f"{self._collection}/{name}".encode()).hexdigest()[:32]

    def _write_rows(self, contents: dict[str, str]) -> None:
        rows = [{"key": key, "content": content, "vector": _NO_VECTOR} for key, content in contents.items()]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            self._server.write(_TABLE, rows[start : start + _ROWS_AT_ONCE])

    def _join(self, key: str, head: dict[str, Any]) -> bytes | None:
        """Return the document of a head, or None if parts of it are not there any more."""
        keys = _part_keys(key, head)
        found: dict[str, str] = {}
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            own = among(keys[start : start + _ROWS_AT_ONCE])
            found |= {
                row["key"]: row["content"] for row in self._server.read(_TABLE, own, ["key", "content"])
            }
        if len(found) < len(keys):
            return None
        return base64.b64decode("".join(found[key] for key in keys))

    def _delete_parts(self, key: str, *, but: set[str]) -> None:
        """Delete the parts of a document that its head does not name."""
        # A part's key is that of the head, and hexadecimal digits.
        expression = f'key > "{key}" and key < "{key}g"'
        there = [row["key"] for page in self._server.pages(_TABLE, expression, []) for row in page]
        if left := [part for part in there if part not in but]:
            self._server.delete(_TABLE, among(left))


def _part_keys(key: str, head: dict[str, Any]) -> list[str]:
    return [f"{key}{head['digest']}{number:06x}" for number in range(head["n_parts"])]
