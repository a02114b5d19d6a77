"""Write a collection to a file for other tools, streamed, whole or not at all."""

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nearsight.collection import rows
from nearsight.errors import InvalidParameterError
from nearsight.images import decode_path
from nearsight.store import Filter, VectorStore


def export(store: VectorStore, file: Path, where: Filter | None, extra: dict[str, str]) -> int:
    """Write rows to a ``.parquet`` or ``.npz`` file; return how many.

    Parquet holds every column but the thumbnails, metadata under ``metadata.KEY``, and the model's
    fingerprint in the file's own metadata. npz holds ``vectors`` (n, dim) float32, ``ids`` and ``paths``.
    Memory stays bounded whatever the number of rows; a crash leaves no half-written file.
    """
    writers: dict[str, Callable[..., int]] = {".parquet": _parquet, ".npz": _npz}
    write = writers.get(file.suffix.lower())
    if write is None:
        raise InvalidParameterError(f"cannot export to {file}: the name must end in .parquet or .npz")
    with whole_file(file) as temporary:
        return write(store, temporary, where, extra)


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Give a temporary name to write to, which becomes `file` once all went well."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-", suffix=file.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's mode is private; an exported file gets what any new file would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _parquet(store: VectorStore, file: Path, where: Filter | None, extra: dict[str, str]) -> int:
    columns = [name for name in store.schema.names if name not in ("thumbnail", "keys", "stamps")]
    schema = pa.schema(
        [store.schema.field(c).with_name(_public_name(c)) for c in columns],
        metadata={f"nearsight.{key}": value for key, value in extra.items()},
    )
    n_rows = 0
    with pq.ParquetWriter(file, schema) as writer:
        for batch in store.scan(columns, where):
            n_rows += len(batch)
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
    return n_rows


def _npz(store: VectorStore, file: Path, where: Filter | None, extra: dict[str, str]) -> int:
    ids: list[str] = []
    paths: list[str] = []
    dim = store.schema.field("vector").type.list_size
    # The header of an .npy file needs the number of rows, which is known once they were read.
    with tempfile.TemporaryFile(dir=file.parent) as raw:
        for batch in store.scan(["id", "path", "vector"], where):
            ids += batch.column("id").to_pylist()
            paths += [decode_path(path) for path in batch.column("path").to_pylist()]
            raw.write(np.ascontiguousarray(batch.column("vector").flatten(), dtype=np.float32).tobytes())
        raw.seek(0)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open("vectors.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(ids), dim)}
                np.lib.format.write_array_header_2_0(member, header)
                while chunk := raw.read(1 << 20):
                    member.write(chunk)
            for name, values in (("ids", ids), ("paths", paths), *((k, v) for k, v in extra.items())):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(values, dtype=np.str_), allow_pickle=False)
    return len(ids)


def _public_name(column: str) -> str:
    return f"metadata.{column.removeprefix(rows.PREFIX)}" if column.startswith(rows.PREFIX) else column
