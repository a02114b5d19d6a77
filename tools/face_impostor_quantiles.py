"""Compute the quantiles of `faces.impostor_quantiles`: how similar a face is to other persons' mean faces.

It writes figures only, no vectors and no images. For each number n of enrolled images, every person with at
least n images is enrolled with n of them, drawn at random, and one image of each other person is compared
with the mean; with several draws where few persons have that many images. ::

    python tools/face_impostor_quantiles.py FOLDER --source "..." --license "..." --out FILE.json

FOLDER has one folder of photographs for each person. The shipped file was computed in this way on one half of
the persons of Labeled Faces in the Wild, 1,201 of whom have a usable image.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from nearsight.errors import ImageFailure
from nearsight.estimators.faces.identifier import mean_faces
from nearsight.faces import FaceReader
from nearsight.faces.impostor_quantiles import models_digest

N_ENROLLED = (1, 2, 3, 5)
N_DRAWS = (1, 3, 3, 3)
RATES = 10 ** -np.arange(0.3, 5.35, 0.1)


def impostor_similarities(
    X: np.ndarray, y: np.ndarray, n_enrolled: int, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the similarities of one face of each person to the mean faces of all others."""
    names, persons = np.unique(y, return_inverse=True)
    enrolled = np.flatnonzero(np.bincount(persons) >= n_enrolled)
    found = []
    for _ in range(n_draws):
        rows = [rng.permutation(np.flatnonzero(persons == person)) for person in range(len(names))]
        chosen = np.concatenate([rows[person][:n_enrolled] for person in enrolled])
        means = mean_faces(X[chosen], np.repeat(np.arange(len(enrolled)), n_enrolled), len(enrolled))
        strangers = X[[own[0] for own in rows]]
        similarities = strangers @ means.T
        similarities = similarities[np.arange(len(names))[:, None] != enrolled[None]]
        found.append(similarities)
    return np.concatenate(found)


def main() -> None:
    """Write the file and print what is in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", required=True, help="where the photographs are from")
    parser.add_argument("--license", required=True, help="the license of the photographs, or 'none stated'")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    reader, rng = FaceReader(), np.random.default_rng(0)
    vectors, persons = [], []
    for reading in reader.read_all(options.folder):
        if not isinstance(reading, ImageFailure) and reading.faces:
            vectors.append(reading.faces[0].vector)
            persons.append(Path(reading.source.path).parent.name)
    X, y = np.array(vectors), np.array(persons)
    columns = []
    for n, n_draws in zip(N_ENROLLED, N_DRAWS, strict=True):
        values = impostor_similarities(X, y, n, n_draws, rng)
        print(f"{n} enrolled: {len(values):,} comparisons")
        columns.append((np.quantile(values, 1 - RATES).round(4).tolist(), len(values)))
    facts = {
        "what": "cosine of a face to the unit mean of n faces of another person, exceeded at each rate",
        "source": options.source,
        "license": options.license,
        "detector": reader.detector.spec.id,
        "recognizer": reader.recognizer.spec.id,
        "models": models_digest(reader.fingerprint),
        "n_enrolled": N_ENROLLED,
        "n_pairs": [n_pairs for _, n_pairs in columns],
        "rates": [float(f"{rate:.3g}") for rate in RATES],
        "similarities": [similarities for similarities, _ in columns],
    }
    options.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
