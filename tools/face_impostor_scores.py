"""Compute the impostor scores of `faces.impostor_scores`: similarities of faces of different persons.

It writes similarities only, no vectors and no images. The one that is shipped was computed on persons s1 to
s20 of the ORL set (AT&T Laboratories Cambridge; 10 gray photographs of each); persons s21 to s40 had no part
in it, so that figures can be measured on them. ::

    python tools/face_impostor_scores.py ../shared/data/faces-orl --persons s1 s2 ... --out FILE.npz
"""

import argparse
from pathlib import Path

import numpy as np

from nearsight.errors import ImageFailure
from nearsight.faces import FaceReader

# Written upwards, so that rounding makes no pair seem less alike than it is.
_STEPS = 4096


def main() -> None:
    """Write the file and print what is in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder with one folder of photographs for each person")
    parser.add_argument("--persons", nargs="+", default=[f"s{i}" for i in range(1, 21)])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    reader = FaceReader()
    vectors, persons = [], []
    for reading in reader.read_all([options.folder / person for person in options.persons]):
        if isinstance(reading, ImageFailure) or not reading.faces:
            continue
        vectors.append(reading.faces[0].vector)
        persons.append(Path(reading.source.path).parent.name)
    X, y = np.array(vectors), np.array(persons)
    first, second = np.triu_indices(len(X), 1)
    pairs = np.sort((X @ X.T)[first, second][y[first] != y[second]])
    steps = np.ceil(pairs * _STEPS).astype(np.int16)
    np.savez_compressed(options.out, similarities=steps, steps=_STEPS, fingerprint=reader.fingerprint.digest)
    print(f"{len(pairs)} pairs of {len(set(persons))} persons, fingerprint {reader.fingerprint.digest}")
    print("quantiles .5 .99 .999 .9999:", np.quantile(pairs, [0.5, 0.99, 0.999, 0.9999]).round(4).tolist())


if __name__ == "__main__":
    main()
