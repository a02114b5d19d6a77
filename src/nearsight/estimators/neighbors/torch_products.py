"""All similarities by PyTorch, on an accelerator: exact, and faster there than any index on a processor."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.neighbors.best_rows import BestRows
from nearsight.estimators.neighbors.similarities import ProgressCallback

Ints = NDArray[np.int64]
Floats = NDArray[Any]

# Queries and references of a block of products: 1 GB in float32.
_QUERY_ROWS, _REFERENCE_ROWS = 2048, 131_072


@cache
def accelerator() -> str | None:
    """Return the name of the accelerator that PyTorch can use, if there is one.

    PyTorch takes seconds to import, so it is not, where there is no NVIDIA driver.
    """
    if not Path("/proc/driver/nvidia").exists() or find_spec("torch") is None:
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def search_with_torch(
    queries: Floats,
    references: Floats,
    best: BestRows,
    *,
    own: Ints,
    offsets: Floats | None,
    min_similarity: float,
    device: str,
    progress: ProgressCallback | None = None,
) -> None:
    """Compare each query with all references, block by block.

    Parameters
    ----------
    queries : ndarray of shape (n, d)
    references : ndarray of shape (m, d)
    best : BestRows
        Of the queries; changed in place. Of equally similar references any may be among the last.
    own : ndarray of shape (n,), int64
        The reference that each query is itself, or -1.
    offsets : ndarray of shape (m,), optional
        Is taken off the similarities to each reference.
    min_similarity : float
        Less similar references are left out.
    device : str
        PyTorch's name of it.
    progress : callable, optional
        Called with numbers of queries.
    """
    import torch

    def there(values: Floats) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    k = best.rows.shape[1]
    shard_rows = _rows_on(device, references)
    for shard in range(0, len(references), shard_rows):
        # References cross to the accelerator once; queries once for each shard, which is nearly always one.
        parts = [
            (first, there(references[first : first + _REFERENCE_ROWS]))
            for first in range(shard, min(shard + shard_rows, len(references)), _REFERENCE_ROWS)
        ]
        for start in range(0, len(queries), _QUERY_ROWS):
            block = slice(start, min(start + _QUERY_ROWS, len(queries)))
            lines, self_rows = there(queries[block]), there(own[block])
            similarities, rows = there(best.similarities[block]), there(best.rows[block])
            for first, part in parts:
                products = lines @ part.T
                if offsets is not None:
                    products -= there(offsets[first : first + len(part)])
                [is_here] = torch.where((self_rows >= first) & (self_rows < first + len(part)))
                products[is_here, self_rows[is_here] - first] = -torch.inf
                values, columns = products.topk(min(k, len(part)), dim=1)
                similarities, order = torch.cat([similarities, values], dim=1).topk(k, dim=1)
                rows = torch.cat([rows, columns + first], dim=1).gather(1, order)
            best.similarities[block], best.rows[block] = similarities.cpu().numpy(), rows.cpu().numpy()
            if progress is not None and shard + shard_rows >= len(references):
                progress(block.stop - block.start)
    is_missing = ~(best.similarities >= min_similarity) | np.isneginf(best.similarities)
    best.rows[is_missing], best.similarities[is_missing] = -1, -np.inf


def _rows_on(device: str, references: Floats) -> int:
    """Return how many references are held at once: they take half of the accelerator's free memory."""
    import torch

    if device != "cuda":
        return len(references)
    n_free, _ = torch.cuda.mem_get_info()
    n_rows = int(n_free // 2 // max(1, references[:1].nbytes))
    return max(1, n_rows // _REFERENCE_ROWS) * _REFERENCE_ROWS
