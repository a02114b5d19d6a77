"""How much of what vectors tell is left when they are shorter.

FOLDER has a folder of images for each class. Half of the images, chosen by their names' hash, teach the
projection; the other half are searched, each for its ten nearest among that half. Told are, for each
dimension: bytes of a vector, the share of the variance kept, the share of the full vectors' ten nearest that
are found, and the share of the ten nearest that are of the image's own class.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from nearsight import Embedder
from nearsight.models.pca import fit_projection


def nearest(X: np.ndarray, k: int = 10) -> np.ndarray:
    similarities = X @ X.T
    np.fill_diagonal(similarities, -np.inf)
    return np.argsort(-similarities, axis=1, kind="stable")[:, :k]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--dim", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    embedder = Embedder(options.model)
    found = embedder.embed(options.folder)
    y = np.array([Path(path).parent.name for path in found.paths])
    teaches = np.array(
        [int(hashlib.md5(Path(p).name.encode()).hexdigest(), 16) % 2 == 0 for p in found.paths]
    )
    X, y, taught = found.vectors[~teaches], y[~teaches], found.vectors[teaches]
    full = nearest(X)

    def row(dim: int, short: np.ndarray, kept: float) -> dict[str, float]:
        near = nearest(short)
        same = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near, full, strict=True)])
        own = float((y[near] == y[:, None]).mean())
        return {"dim": dim, "bytes": 4 * dim, "variance": kept, "same": float(same), "own_class": own}

    rows = [row(X.shape[1], X, 1.0)]
    for dim in sorted(options.dim, reverse=True):
        if dim < min(X.shape[1], len(taught)):
            projection = fit_projection(taught, dim, embedder.backend.spec)
            rows.append(row(dim, projection.apply(X), projection.variance_kept))
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{len(X)} images searched, {len(taught)} taught the projection")
    print(" dim  bytes  variance  same ten  own class")
    for r in rows:
        print("{dim:4}  {bytes:5}  {variance:8.3f}  {same:8.3f}  {own_class:9.3f}".format(**r))


if __name__ == "__main__":
    main()
