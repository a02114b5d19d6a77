"""Faces: accuracy of identification and verification, false match rates, and speed.

FOLDER has a folder of photographs for each person, one face in each. Each figure has a 95 % interval from
resampled persons (bootstrap, 1,000 times), or its range over random splits:

*rank-1*: with 1, 3 and 5 enrolled images per person, the share of all other images whose most similar
person is correct; the mean over 20 random choices of the enrolled images.
*verification*: over all pairs, the balanced accuracy at a threshold chosen on other persons (ten folds), and
the true accept rate (TAR) at a false accept rate (FAR) of 1 %.
*open set*: half of the persons are enrolled with 5 images each; the others are unknown. Three thresholds: for
1 % from the shipped impostor scores, on the persons that are not in them (``--impostor-persons`` are); for
1 % from the impostor scores of the other half of the persons, for each half in turn; and for 5 % from the
bank itself, for which 20 persons suffice. The figures are the share of enrolled persons that are identified
correctly, and the false match rate, with the stated rate and its interval for so many unknown faces; the mean
over 20 random splits.

With ``--peer``, the same with dlib's own detector (HOG), alignment (five points) and the same network; an
image without a detected face counts as an error. With ``--photos``, the images per second of detection and
embedding, compared with face_recognition 1.3.0 (HOG, upsampled once, five points, one jitter) on the same
files, in turns. face_recognition uses one thread; nearsight is measured on all cores and on one. Both need
dlib-bin. ::

    python -m benchmarks.faces ../shared/data/faces-orl --impostor-persons s{1..20} --peer --photos FOLDER
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from nearsight.errors import ImageFailure
from nearsight.estimators.faces.identifier import FaceIdentifier
from nearsight.faces import FaceReader
from nearsight.faces.impostor_scores import impostor_similarities
from nearsight.faces.models.weights import DLIB
from nearsight.images import FileSource, decode

N_SPLITS = 20
RATE = 0.01


class Peer:
    """What face_recognition calls, in the same order and with its defaults."""

    def __init__(self) -> None:
        import dlib

        folder = DLIB.locate().parent  # type: ignore[union-attr]  # installed, or nothing here works
        self.hog = dlib.get_frontal_face_detector()
        self.points = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self.network = dlib.face_recognition_model_v1(str(folder / DLIB.file.rpartition("/")[2]))

    def faces(self, path: str) -> list[np.ndarray]:
        pixels = np.asarray(decode(FileSource(path, path)).image)
        found = [self.points(pixels, box) for box in self.hog(pixels, 1)]
        return [np.array(self.network.compute_face_descriptor(pixels, points, 1)) for points in found]


def read_folder(reader: FaceReader, folder: Path) -> tuple[np.ndarray, np.ndarray, list[str], int]:
    vectors, persons, paths, missed = [], [], [], 0
    for reading in reader.read_all(folder):
        if isinstance(reading, ImageFailure) or not reading.faces:
            missed += 1
            continue
        vectors.append(reading.faces[0].vector)
        paths.append(reading.source.path)
        persons.append(Path(reading.source.path).parent.name)
    return np.array(vectors), np.array(persons), paths, missed


def interval(values: np.ndarray, persons: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Return the 95 % interval of a mean over faces, with whole persons drawn anew."""
    names = np.unique(persons)
    sums = np.array([values[persons == name].sum() for name in names])
    counts = np.array([(persons == name).sum() for name in names])
    drawn = rng.integers(0, len(names), (1000, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [round(float(v), 4) for v in np.quantile(means, [0.025, 0.975])]


def rank_1(X: np.ndarray, y: np.ndarray, n_enrolled: int) -> dict[str, Any]:
    hits, asked = [], []
    for seed in range(N_SPLITS):
        rng = np.random.default_rng(seed)
        known = np.concatenate([rng.permutation(np.flatnonzero(y == p))[:n_enrolled] for p in np.unique(y)])
        rest = np.setdiff1d(np.arange(len(y)), known)
        found = FaceIdentifier().fit(X[known], y[known]).identify(X[rest])
        hits.append(found.persons == y[rest])
        asked.append(y[rest])
    right, persons = np.concatenate(hits), np.concatenate(asked)
    return {
        "rank_1": round(float(right.mean()), 4),
        "interval": interval(right.astype(float), persons, np.random.default_rng(0)),
    }


def verification(X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    similarity = X @ X.T
    names = np.unique(y)

    def rates(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.concatenate([np.flatnonzero(y == name) for name in chosen])
        pairs = similarity[np.ix_(rows, rows)]
        first, second = np.triu_indices(len(rows), 1)
        # A person drawn twice is not a pair of different persons, and an image is not a pair with itself.
        same = y[rows][first] == y[rows][second]
        real = rows[first] != rows[second]
        return pairs[first, second][same & real], pairs[first, second][~same]

    def tar(chosen: np.ndarray, far: float) -> float:
        true, false = rates(chosen)
        return float((true > np.quantile(false, 1 - far)).mean())

    order = np.random.default_rng(0).permutation(names)
    accuracies = []
    for part in np.array_split(order, min(10, len(order) // 2)):
        true, false = rates(np.setdiff1d(names, part))
        cuts = np.unique(np.quantile(np.concatenate([true, false]), np.linspace(0, 1, 2000)))
        balanced = [((true > cut).mean() + (false <= cut).mean()) / 2 for cut in cuts]
        cut = cuts[int(np.argmax(balanced))]
        true, false = rates(part)
        accuracies.append(((true > cut).mean() + (false <= cut).mean()) / 2)
    rng = np.random.default_rng(1)
    drawn = [tar(rng.choice(names, len(names)), RATE) for _ in range(200)]
    return {
        "accuracy": round(float(np.mean(accuracies)), 4),
        "accuracy_of_parts": [round(float(min(accuracies)), 4), round(float(max(accuracies)), 4)],
        "tar_at_far_1_percent": round(tar(names, RATE), 4),
        "interval": [round(float(v), 4) for v in np.quantile(drawn, [0.025, 0.975])],
        "tar_at_far_0.1_percent": round(tar(names, RATE / 10), 4),
    }


def open_set(
    X: np.ndarray, y: np.ndarray, impostors: np.ndarray | None, rate: float = RATE, n_enrolled: int = 5
) -> dict[str, Any]:
    identified, false_matches, inside, band = [], [], [], (0.0, 1.0)
    for seed in range(N_SPLITS):
        rng = np.random.default_rng(seed)
        order = rng.permutation(np.unique(y))
        persons = order[: len(order) // 2]
        enrolled = np.concatenate([rng.permutation(np.flatnonzero(y == p))[:n_enrolled] for p in persons])
        queries = np.setdiff1d(np.flatnonzero(np.isin(y, persons)), enrolled)
        unknown = np.flatnonzero(~np.isin(y, persons))
        identifier = FaceIdentifier(false_match_rate=rate, impostor_similarities=impostors)
        identifier.fit(X[enrolled], y[enrolled])
        if identifier.threshold_ is None:
            return {"refused": identifier.reason_}
        result = identifier.identify(X[queries])
        identified.append((~result.unknown & (result.persons == y[queries])).mean())
        false_matches.append((~identifier.identify(X[unknown]).unknown).mean())
        band = identifier.threshold_.observed_rate_interval(len(unknown))
        inside.append(band[0] <= false_matches[-1] <= band[1])
    return {
        "persons": len(persons),
        "enrolled": n_enrolled,
        "threshold_from": "bank" if impostors is None else "impostor scores",
        "identified": round(float(np.mean(identified)), 4),
        "identified_range": [round(float(min(identified)), 4), round(float(max(identified)), 4)],
        "unknown": len(unknown),
        "false_matches": round(float(np.mean(false_matches)), 4),
        "stated": rate,
        "band": [round(v, 4) for v in band],
        "splits_inside_band": f"{sum(inside)} of {len(inside)}",
    }


def impostor_pairs(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(len(X), 1)
    return (X @ X.T)[first, second][y[first] != y[second]]


def peer_quality(peer: Peer, paths: list[str], y: np.ndarray) -> dict[str, Any]:
    vectors = [(faces[0] if faces else None) for faces in map(peer.faces, paths)]
    found = np.array([vector is not None for vector in vectors])
    X = np.array([vector / np.linalg.norm(vector) for vector in vectors if vector is not None])
    result: dict[str, Any] = {"faces_missed": int((~found).sum()), "verification": verification(X, y[found])}
    for n in (1, 3, 5):
        plain = rank_1(X, y[found], n)["rank_1"]
        result[f"rank_1 of {n}, missed faces counted"] = round(plain * float(found.mean()), 4)
    return result


def speed(folder: Path, peer: Peer, rounds: int) -> dict[str, Any]:
    paths = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    readers = {"all cores": FaceReader(progress=False), "one core": FaceReader(progress=False, n_threads=1)}
    n_faces, seconds = {}, {name: [] for name in (*readers, "face_recognition")}
    for reader in readers.values():
        list(reader.read_all(paths[:1]))
    for _ in range(rounds):
        for name, reader in readers.items():
            started = time.perf_counter()
            results = list(reader.read_all(paths))
            seconds[name].append(time.perf_counter() - started)
            n_faces[name] = sum(len(r.faces) for r in results if not isinstance(r, ImageFailure))
        started = time.perf_counter()
        n_faces["face_recognition"] = sum(len(peer.faces(path)) for path in paths)
        seconds["face_recognition"].append(time.perf_counter() - started)
    theirs = np.array(seconds["face_recognition"])
    return {
        "images": len(paths),
        "faces": n_faces,
        "images_per_second": {
            name: round(len(paths) / float(np.median(s)), 2) for name, s in seconds.items()
        },
        "times_as_fast": {
            name: round(float(np.median(theirs / np.array(seconds[name]))), 1) for name in readers
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--impostor-persons", nargs="*", default=[])
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    reader = FaceReader()
    X, y, paths, missed = read_folder(reader, options.folder)
    result: dict[str, Any] = {
        "persons": len(np.unique(y)),
        "images": len(y),
        "without_a_face": missed,
        **{f"rank_1 of {n}": rank_1(X, y, n) for n in (1, 3, 5)},
        "verification": verification(X, y),
        "open set at 5 %, bank": open_set(X, y, None, rate=0.05),
    }
    halves = np.isin(y, np.unique(y)[::2])
    for name, half in (("first", halves), ("second", ~halves)):
        result[f"open set at 1 %, {name} half"] = open_set(
            X[half], y[half], impostor_pairs(X[~half], y[~half])
        )
    apart = ~np.isin(y, options.impostor_persons)
    if apart.any():
        result["verification, without impostor persons"] = verification(X[apart], y[apart])
        result["open set at 1 %, shipped impostor scores"] = open_set(
            X[apart], y[apart], impostor_similarities(reader.fingerprint)
        )
    if options.peer:
        result["dlib's own way"] = peer_quality(Peer(), paths, y)
    for folder in options.photos:
        result[f"speed on {re.sub(r'.*/', '', str(folder))}"] = speed(folder, Peer(), options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name}: {json.dumps(value) if isinstance(value, dict) else value}")


if __name__ == "__main__":
    main()
