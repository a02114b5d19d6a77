"""The document that describes a store in Milvus."""

import base64
import json
from dataclasses import dataclass, fields

import pyarrow as pa

#: From so many rows on, Milvus builds an index of a part of a table. Until it has, it may search the part by
#: a rough one, which loses neighbors.
ROUGH_ROWS = 1024
#: Where a row says how many flushes there were before it was written.
MARK = "_n_flushes"


def entry_of(name: str) -> str:
    """Return the name of the document that describes a store."""
    return f"store {name}"


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """What the document says.

    Attributes
    ----------
    schema : pa.Schema
        The columns, with the vector of the type that was asked for.
    version : int
        Grows with every change.
    incarnation : str
        No other store has the same.
    index : str
        One of `INDEXES`.
    n_unsealed : int
        At most so many rows were written since the last flush.
    n_flushes, n_indexed : int
        How many flushes there were, and up to which of them all rows are known to be in the index.
    is_marked : bool
        Whether every row that may not be in the index has the mark of its flush; rows of earlier versions
        have none.
    """

    schema: pa.Schema
    version: int
    incarnation: str
    index: str
    n_unsealed: int = 0
    n_flushes: int = 0
    n_indexed: int = 0
    is_marked: bool = True

    def encode(self) -> bytes:
        """Return the document."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        facts["schema"] = base64.b64encode(self.schema.serialize().to_pybytes()).decode()
        return json.dumps(facts).encode()

    @classmethod
    def decode(cls, content: bytes) -> "StoreEntry":
        """Return what a document says; for those of earlier versions nobody counted or marked rows."""
        facts = {"n_unsealed": ROUGH_ROWS, "is_marked": False, **json.loads(content)}
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(facts.pop("schema"))))
        return cls(schema, **facts)

    @property
    def public_schema(self) -> pa.Schema:
        """The columns, with the vector in float32."""
        vector = self.schema.field("vector")
        public = vector.with_type(pa.list_(pa.float32(), vector.type.list_size))
        return self.schema.set(self.schema.get_field_index("vector"), public)

    @property
    def has_many_unsealed(self) -> bool:
        """Whether a part without an index may be so large that Milvus searches it roughly."""
        return self.index != "FLAT" and self.n_unsealed >= ROUGH_ROWS
