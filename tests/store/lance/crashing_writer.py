"""Run by test_lance.py, to be killed: appends rows for ever and prints each id once it is saved.

    python crashing_writer.py DIRECTORY [optimize]

With ``optimize`` it compacts after every append as well.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from nearsight.store.lance.store import LanceStore


def main():
    store = LanceStore.open(Path(sys.argv[1]))
    dim = store.schema.field("vector").type.list_size
    number = store.count()
    while True:
        name = f"{number:08}"
        vector = pa.FixedSizeListArray.from_arrays(pa.array(np.full(dim, number + 1, np.float32)), dim)
        store.append(pa.table({"id": [name], "thumbnail": pa.array([bytes(5000)]), "vector": vector}))
        print(name, flush=True)
        if "optimize" in sys.argv:
            store.optimize()
        number += 1


if __name__ == "__main__":
    main()
