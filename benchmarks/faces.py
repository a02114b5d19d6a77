"""Faces: accuracy of identification and verification, false match rates, and speed.

FOLDER has a folder of photographs for each person, one face in each. Each figure has a 95 % interval from
resampled persons (bootstrap, 1,000 times), or its range over random splits:

*rank-1*: with 1, 3 and 5 enrolled images per person, the share of all other images whose most similar
person is correct; the mean over 20 random choices of the enrolled images.
*verification*: over all pairs, the balanced accuracy at a threshold chosen on other persons (ten folds), and
the true accept rate (TAR) at a false accept rate (FAR) of 1 %.
*open set*: half of the persons are enrolled with 1, 3 or 5 images each; the others are unknown. The threshold
is from the shipped quantiles, which are of other persons and other photographs, for 5, 1 and 0.1 %; and from
the bank itself for 5 %, for which 20 persons suffice. The figures are the share of enrolled persons that are
identified correctly, and the false match rate: means over 20 random splits, with the 95 % interval over whole
persons drawn anew, and the band that so many unknown faces give if the stated rate is true.
*grouping*: all faces, none enrolled, at 1 %: pairwise precision and recall, and the number of groups.
*album*: the same with half of the persons enrolled, at 1 %: faces that join the right person, and faces of
the others that join somebody.
*wrong photographs*: enrolled beside 2 or 5 others of the person: right ones that are doubted at 1 %, and
wrong ones that are not.
*mirror*: milliseconds of the processor for an image with and without the mirror image of each face, in turns
on one thread.

With ``--open-set 70x3``, open sets of so many persons with so many images each, for larger folders.
With ``--peer``, the same with dlib's own detector (HOG), alignment (five points) and the same network; an
image without a detected face counts as an error. With ``--photos``, the images per second of detection and
embedding, compared with face_recognition 1.3.0 (HOG, upsampled once, five points, one jitter) on the same
files, in turns. face_recognition uses one thread; nearsight is measured on all cores and on one. Both need
dlib-bin. ::

    python -m benchmarks.faces ../shared/data/faces-orl --peer --photos FOLDER
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from nearsight.errors import ImageFailure
from nearsight.estimators.faces.identifier import GUARD_PERSONS, FaceIdentifier
from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles
from nearsight.faces import FaceReader
from nearsight.faces.groups import group_faces, unnamed_groups
from nearsight.faces.impostor_quantiles import impostor_quantiles
from nearsight.faces.models.weights import DLIB
from nearsight.faces.schema import BankedFace
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


def at_shipped_threshold(X: np.ndarray, y: np.ndarray, quantiles: ImpostorQuantiles) -> dict[str, Any]:
    similarity = X @ X.T
    same = y[:, None] == y[None]
    off_diagonal, rng = ~np.eye(len(y), dtype=bool), np.random.default_rng(0)
    matched = similarity > quantiles.at_rate(RATE)

    def rate(of: np.ndarray) -> dict[str, Any]:
        shares = np.array([matched[i, of[i]].mean() for i in range(len(y))])
        return {"rate": round(float(shares.mean()), 4), "interval": interval(shares, y, rng)}

    return {"true accepts": rate(same & off_diagonal), "false accepts": rate(~same)}


def open_set(
    X: np.ndarray,
    y: np.ndarray,
    quantiles: ImpostorQuantiles | None,
    rate: float = RATE,
    n_enrolled: int = 5,
    n_persons: int | None = None,
) -> dict[str, Any]:
    names, sizes = np.unique(y, return_counts=True)
    can_be_enrolled = names[sizes > n_enrolled]
    n_persons = n_persons or len(names) // 2
    hits, asked, alarms, strangers, in_band, guards, band = [], [], [], [], [], [], (0.0, 1.0)
    full, exact = [], []
    for seed in range(N_SPLITS):
        rng = np.random.default_rng(seed)
        persons = rng.permutation(can_be_enrolled)[:n_persons]
        enrolled = np.concatenate([rng.permutation(np.flatnonzero(y == p))[:n_enrolled] for p in persons])
        queries = np.setdiff1d(np.flatnonzero(np.isin(y, persons)), enrolled)
        unknown = np.flatnonzero(~np.isin(y, persons))
        identifier = FaceIdentifier(false_match_rate=rate, impostor_quantiles=quantiles)
        identifier.fit(X[enrolled], y[enrolled])
        if identifier.threshold_ is None:
            return {"refused": identifier.reason_}
        result = identifier.identify(X[queries])
        hits.append(~result.unknown & (result.persons == y[queries]))
        asked.append(y[queries])
        alarms.append(~identifier.identify(X[unknown]).unknown)
        strangers.append(y[unknown])
        guards.append(identifier.guard_)
        others = identifier.identify(X[unknown]).similarity

        right = np.where(result.persons == y[queries], result.similarity, -1.0)
        # The guard without its factor for the number of persons.
        limit = identifier.threshold_.value + identifier.guard_ * GUARD_PERSONS / n_persons
        full.append(((right > limit).mean(), (others > limit).mean()))
        exact.append((right > np.quantile(others, 1 - rate)).mean())
        band = identifier.threshold_.observed_rate_interval(len(unknown))
        in_band.append(band[0] <= alarms[-1].mean() <= band[1])
    rng = np.random.default_rng(0)
    named, false_matches = np.concatenate(hits).astype(float), np.concatenate(alarms).astype(float)
    return {
        "persons": len(persons),
        "enrolled": n_enrolled,
        "threshold_from": "bank" if quantiles is None else "shipped quantiles",
        "identified": round(float(named.mean()), 4),
        "interval": interval(named, np.concatenate(asked), rng),
        "false_matches": round(float(false_matches.mean()), 4),
        "false_matches_interval": interval(false_matches, np.concatenate(strangers), rng),
        "stated": rate,
        "band": [round(v, 4) for v in band],
        "splits_in_band": f"{sum(in_band)} of {len(in_band)}",
        "guard": round(float(np.mean(guards)), 4),
        "identified and false matches with the whole guard": np.round(np.mean(full, 0), 4).tolist(),
        "identified at the exact rate": round(float(np.mean(exact)), 4),
    }


def grouping(X: np.ndarray, y: np.ndarray, quantiles: ImpostorQuantiles) -> dict[str, Any]:
    labels = unnamed_groups(X, [str(i) for i in range(len(X))], quantiles, np.empty(0), RATE)
    same, together = y[:, None] == y[None], labels[:, None] == labels[None]
    off_diagonal = ~np.eye(len(y), dtype=bool)
    hits, rng = same & together & off_diagonal, np.random.default_rng(0)

    def rate(of: np.ndarray) -> dict[str, Any]:
        n = (of & off_diagonal).sum(1)
        rows = n > 0
        weights = hits.sum(1)[rows] / n[rows]
        return {
            "mean over faces": round(float(weights.mean()), 4),
            "interval": interval(weights, y[rows], rng),
        }

    sizes = np.bincount(labels)
    return {
        "persons": len(np.unique(y)),
        "groups": int((sizes > 1).sum()),
        "alone": int((sizes == 1).sum()),
        "precision": rate(together),
        "recall": rate(same),
    }


def album(X: np.ndarray, y: np.ndarray, quantiles: ImpostorQuantiles, n_enrolled: int) -> dict[str, Any]:
    """Half of the persons are enrolled; which faces of an album with all persons join the right one?"""
    hits, known, alarms, strangers = [], [], [], []
    for seed in range(N_SPLITS):
        rng = np.random.default_rng(seed)
        order = rng.permutation(np.unique(y))
        persons = order[: len(order) // 2]
        enrolled = np.concatenate([rng.permutation(np.flatnonzero(y == p))[:n_enrolled] for p in persons])
        identifier = FaceIdentifier(false_match_rate=RATE, impostor_quantiles=quantiles)
        identifier.fit(X[enrolled], y[enrolled])
        names = np.full(len(y), "", y.dtype)
        names[enrolled] = y[enrolled]
        faces = [
            BankedFace(str(i), name, "", "", str(i), (0, 0, 1, 1), 1, 1, "", datetime.now(timezone.utc))
            for i, name in enumerate(names.tolist())
        ]
        groups, _ = group_faces(faces, X, identifier, quantiles, RATE)
        joined = np.full(len(y), "", y.dtype)
        for group in groups:
            joined[[int(face.id) for face in group.faces]] = group.person
        rest = np.setdiff1d(np.arange(len(y)), enrolled)
        queries, unknown = rest[np.isin(y[rest], persons)], rest[~np.isin(y[rest], persons)]
        hits.append(joined[queries] == y[queries])
        known.append(y[queries])
        alarms.append(joined[unknown] != "")
        strangers.append(y[unknown])
    rng = np.random.default_rng(0)
    right, wrong = np.concatenate(hits).astype(float), np.concatenate(alarms).astype(float)
    return {
        "joined the right person": round(float(right.mean()), 4),
        "interval": interval(right, np.concatenate(known), rng),
        "unknown persons' faces that joined": round(float(wrong.mean()), 4),
        "interval of those": interval(wrong, np.concatenate(strangers), rng),
    }


def wrong_photographs(X: np.ndarray, y: np.ndarray, quantiles: ImpostorQuantiles, n: int) -> dict[str, Any]:
    """A photograph beside n others of the person: how often is a right one doubted, and a wrong one not?"""
    doubted, passed, of = [], [], []
    for seed in range(N_SPLITS):
        rng = np.random.default_rng(seed)
        for person in np.unique(y):
            rows = rng.permutation(np.flatnonzero(y == person))
            others = X[rows[1 : n + 1]].sum(0)
            mean, limit = others / np.linalg.norm(others), quantiles.at_rate(RATE, n)
            doubted.append(X[rows[0]] @ mean <= limit)
            passed.append(X[rng.choice(np.flatnonzero(y != person))] @ mean > limit)
            of.append(person)
    rng, persons = np.random.default_rng(0), np.array(of)
    rates = {
        "right ones doubted": np.array(doubted, float),
        "wrong ones not doubted": np.array(passed, float),
    }
    return {
        name: [round(float(values.mean()), 4), interval(values, persons, rng)]
        for name, values in rates.items()
    }


class PlainReader(FaceReader):
    """A reader that leaves out the mirror image, to measure what it costs."""

    def embed(self, image: Any, detected: Any) -> list[Any]:
        return list(self.recognizer.embed([self._chip(image, face) for face in detected]))


def mirror_cost(paths: list[str], rounds: int) -> dict[str, float]:
    readers = {"with": FaceReader(n_threads=1), "without": PlainReader(n_threads=1)}
    images = [decode(FileSource(path, path)).image for path in paths[:60]]
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for reader in readers.values():
        reader.faces(images[0])
    for _ in range(rounds):
        for name, reader in readers.items():
            # Of the processor, since other programs may run beside this one.
            started = time.process_time()
            for image in images:
                reader.faces(image)
            seconds[name].append((time.process_time() - started) / len(images))
    return {f"ms {name}": round(1000 * float(np.median(values)), 1) for name, values in seconds.items()}


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
    jobs: dict[str, Callable[[], int]] = {
        name: lambda reader=reader: sum(
            len(r.faces) for r in reader.read_all(paths) if not isinstance(r, ImageFailure)
        )
        for name, reader in readers.items()
    }
    jobs["face_recognition"] = lambda: sum(len(peer.faces(path)) for path in paths)
    n_faces: dict[str, int] = {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for reader in readers.values():
        list(reader.read_all(paths[:1]))
    for _ in range(rounds):
        for name, job in jobs.items():
            started = time.perf_counter(), time.process_time()
            n_faces[name] = job()
            seconds[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    wall, processor = ({name: np.array(s)[:, i] for name, s in seconds.items()} for i in (0, 1))
    theirs = "face_recognition"
    return {
        "images": len(paths),
        "faces": n_faces,
        "images_per_second": {name: round(len(paths) / float(np.median(s)), 2) for name, s in wall.items()},
        "times_as_fast": {name: round(float(np.median(wall[theirs] / wall[name])), 1) for name in readers},
        "times_less_of_the_processor": {
            name: round(float(np.median(processor[theirs] / processor[name])), 1) for name in readers
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--open-set", nargs="*", default=[], metavar="PERSONSxIMAGES")
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
    quantiles = impostor_quantiles(reader.fingerprint)
    assert quantiles is not None, "the shipped quantiles are of other models"
    result["verification at the shipped threshold for 1 %"] = at_shipped_threshold(X, y, quantiles)
    for rate in (0.05, 0.01, 0.001):
        for n in (1, 3, 5):
            result[f"open set at {rate:.1%}, {n} enrolled"] = open_set(X, y, quantiles, rate, n)
    for wanted in options.open_set:
        n_persons, n = map(int, wanted.split("x"))
        for rate in (0.05, RATE):
            result[f"open set at {rate:.0%}, {wanted}"] = open_set(X, y, quantiles, rate, n, n_persons)
    result["grouping"] = grouping(X, y, quantiles)
    for n in (1, 3):
        result[f"album with half of the persons enrolled, {n} each"] = album(X, y, quantiles, n)
    for n in (2, 5):
        result[f"wrong photographs beside {n} others"] = wrong_photographs(X, y, quantiles, n)
    result["mirror"] = mirror_cost(paths, options.rounds)
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
