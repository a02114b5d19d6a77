"""Whether the images that a collection gets are still like those that it had, and what to do if not."""

import heapq
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from nearsight.artifacts import replacing
from nearsight.collection import Collection, Item
from nearsight.collection.arrays import VectorTable, items_by_id, sample_vectors
from nearsight.collection.schema import ESTIMATED_KEY
from nearsight.errors import InvalidParameterError, StorageError
from nearsight.evaluation import holm
from nearsight.training.drift import ChangedMix, UnknownKinds, changed_mix, unknown_kinds

#: Results of earlier runs, in the collection's directory.
HISTORY = "monitor.json"
#: A run is an alarm at this p; two in a row are reported as a change.
ALARM_P = 0.01
_MAX_ROWS = 2000
_N_SHOWN = 60
_N_EMBEDDED_AGAIN = 20
_MIN_COSINE = 0.999


@dataclass(frozen=True, slots=True)
class Growth:
    """A value of a metadata key, such as a cluster, that is more frequent among new images.

    Attributes
    ----------
    value : str
    known_share, new_share : float
    p : float
        Fisher's exact test, one-sided, adjusted for the number of values (Holm).
    """

    value: str
    known_share: float
    new_share: float
    p: float


@dataclass(frozen=True)
class Monitoring:
    """New images beside known ones.

    Attributes
    ----------
    n_known, n_new : int
        Images that were compared: at most 2,000 of either, chosen at random.
    unknown : UnknownKinds
    unknown_items : list of Item
        Images of unknown kinds, the most unusual first.
    mix : ChangedMix
    growth : list of Growth
        What became more frequent, the most first.
    lowest_cosine : float or None
        Of known images and the same files embedded again; None if no file is there any more.
    unknown_in_a_row, mix_in_a_row : bool
        Whether this run and the one before, of other new images, are alarms.
    """

    n_known: int
    n_new: int
    unknown: UnknownKinds
    unknown_items: list[Item]
    mix: ChangedMix
    growth: list[Growth]
    lowest_cosine: float | None
    unknown_in_a_row: bool
    mix_in_a_row: bool

    @property
    def pipeline_changed(self) -> bool:
        """Whether files that did not change are embedded otherwise than before."""
        return self.lowest_cosine is not None and self.lowest_cosine < _MIN_COSINE

    @property
    def advice(self) -> list[str]:
        """What to do, in sentences."""
        advice = []
        if self.pipeline_changed:
            advice.append(
                "Files that are in the collection are embedded differently now (cosine"
                f" {self.lowest_cosine:.4f}). Install the versions it was made with, or index everything"
                " again."
            )
        if self.unknown.p < ALARM_P:
            share = f"{self.unknown.share:.0%} of the new images lie beyond what is usual"
            advice.append(
                f"{share}, twice in a row. Label some of them, and train again."
                if self.unknown_in_a_row
                else f"{share}. Look at them; if the next images say the same, label some and train again."
            )
        if self.mix.p < ALARM_P:
            what = f"The mix of images changed (AUC {self.mix.auc:.2f})"
            advice.append(
                f"{what}, twice in a row. Measure the model on newly labeled images: nearsight eval."
                if self.mix_in_a_row
                else f"{what}. One upload from one place does that; compare again when there are more."
            )
        return advice or ["Nothing has changed that this many images can show."]


def monitor(
    collection: Collection,
    new: str,
    *,
    known: str | None = None,
    by: Sequence[str] = (),
    random_state: int = 0,
) -> Monitoring:
    """Compare new images of a collection with the others, and note the result for the next run.

    Parameters
    ----------
    collection : Collection
    new : str
        Filter of the new images.
    known : str, optional
        Filter of the images to compare them with; by default all others.
    by : sequence of str
        Metadata keys whose values may have become more frequent; by default the saved clusters, if any.
    random_state : int

    Raises
    ------
    InvalidParameterError
        There are fewer than 100 new or 100 known images, or no such key.
    FilterError
        A filter is not understood.
    """
    keys = _keys(collection, by)
    known = f"({known}) AND NOT ({new})" if known else f"NOT ({new})"
    tables = [
        sample_vectors(collection, _MAX_ROWS, where=where, random_state=random_state)
        if collection.count(where)
        else VectorTable([], np.empty((0, collection.spec.dim), np.float32), {})
        for where in (known, new)
    ]
    unknown = unknown_kinds(tables[0].X, tables[1].X, random_state=random_state)
    mix = changed_mix(tables[0].X, tables[1].X, random_state=random_state)
    beyond = [tables[1].ids[row] for row in unknown.rows[:_N_SHOWN]]
    items = items_by_id(collection, beyond)
    before = _noted(
        collection.directory / HISTORY, unknown.p, mix.p, len(tables[1]), _lowest_ids(collection, new)
    )
    return Monitoring(
        len(tables[0].ids),
        len(tables[1].ids),
        unknown,
        [items[id] for id in beyond],
        mix,
        _growth(collection, keys, known, new),
        _lowest_cosine(collection, tables[0]),
        unknown.p < ALARM_P and before.get("p_unknown", 1.0) < ALARM_P,
        mix.p < ALARM_P and before.get("p_mix", 1.0) < ALARM_P,
    )


def monitoring_document(result: Monitoring) -> dict[str, Any]:
    """Return new images beside known ones as plain data."""
    return {
        "known": result.n_known,
        "new": result.n_new,
        "unknown_kinds": {
            "share": round(result.unknown.share, 5),
            "usual_share": round(result.unknown.usual_share, 5),
            "p": result.unknown.p,
            "twice_in_a_row": result.unknown_in_a_row,
            "images": [{"id": item.id, "path": item.path} for item in result.unknown_items],
        },
        "changed_mix": {
            "p": result.mix.p,
            "auc": round(result.mix.auc, 5),
            "mmd": result.mix.mmd,
            "twice_in_a_row": result.mix_in_a_row,
        },
        "growth": [
            {"value": g.value, "known_share": g.known_share, "new_share": g.new_share, "p": g.p}
            for g in result.growth
        ],
        "pipeline": {"lowest_cosine": result.lowest_cosine, "changed": result.pipeline_changed},
        "advice": result.advice,
    }


def _lowest_ids(collection: Collection, where: str) -> list[str]:
    """Return the ids of all images, or those that sort first: with more images, they are still the same."""
    batches = collection.iter_batches(["id"], where)
    return heapq.nsmallest(_MAX_ROWS, (id for batch in batches for id in batch.column("id").to_pylist()))


def _are_the_same(last: Sequence[str], now: Sequence[str]) -> bool:
    """Whether more than half of the images of either are those of the other, by their lowest ids."""
    # Beyond the last id that is known of one, those of the other say nothing.
    ends = [max(ids) for ids in (last, now) if len(ids) >= _MAX_ROWS]
    known = [{id for id in ids if not ends or id <= min(ends)} for ids in (last, now)]
    return 2 * len(known[0] & known[1]) > min(map(len, known)) > 0


def _noted(file: Path, p_unknown: float, p_mix: float, n_new: int, images: Sequence[str]) -> dict[str, Any]:
    """Append a run to the history, and return the run before of other images.

    A run replaces the last one if it shares more than half of the images of either: the same images, compared
    again, confirm nothing.
    """
    run: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "new": n_new,
        "p_unknown": p_unknown,
        "p_mix": p_mix,
        "images": list(images),
    }
    with FileLock(file.with_suffix(".lock")):
        try:
            runs = [dict(before) for before in json.loads(file.read_bytes())["runs"]]
        except FileNotFoundError:
            runs = []
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StorageError(f"{file} is damaged; delete it to begin a new history") from error
        # Only the last run's images are kept.
        if runs and _are_the_same(runs[-1].pop("images", ()), images):
            runs.pop()
        with replacing(file) as out:
            out.write(json.dumps({"runs": [*runs, run]}, indent=1).encode())
    return runs[-1] if runs else {}


def _keys(collection: Collection, by: Sequence[str]) -> list[str]:
    known = collection.info()["metadata"]
    if missing := [key for key in by if key not in known]:
        raise InvalidParameterError(
            f"no image has the metadata {missing[0]!r}; known are {', '.join(known) or 'none'}"
        )
    return list(by) or [key for key in ("cluster_label", "cluster") if key in known][:1]


def _growth(collection: Collection, keys: Sequence[str], known: str, new: str) -> list[Growth]:
    """Return the values that are more frequent among all new images than chance allows."""
    from scipy.stats import fisher_exact

    tests, shares = [], []
    for key in keys:
        counts = [
            Counter(
                str(value)
                for batch in collection.iter_batches([key], where)
                for value in batch.column(key).to_pylist()
                if value is not None
            )
            for where in (known, new)
        ]
        totals = [max(1, count.total()) for count in counts]
        for value, n in counts[1].items():
            table = [[n, totals[1] - n], [counts[0][value], totals[0] - counts[0][value]]]
            tests.append(float(fisher_exact(table, alternative="greater").pvalue))
            shares.append((value, counts[0][value] / totals[0], n / totals[1]))
    adjusted = holm(tests) if tests else []
    grown = [Growth(*share, p) for share, p in zip(shares, adjusted, strict=True) if p < ALARM_P]
    return sorted(grown, key=lambda growth: growth.known_share - growth.new_share)


def _lowest_cosine(collection: Collection, known: VectorTable) -> float | None:
    """Embed some known files again, and return the lowest cosine with what is stored."""
    items = items_by_id(collection, known.ids[: 4 * _N_EMBEDDED_AGAIN])
    rows = [row for row, id in enumerate(known.ids) if id in items and _can_be_compared(items[id])]
    rows = rows[:_N_EMBEDDED_AGAIN]
    if not rows:
        return None
    again = collection.embedder(progress=False).embed([items[known.ids[row]].path for row in rows])
    # A file that shows something else now says nothing about the software.
    same = [at for at, row in enumerate(again.positions) if again.ids[at] == known.ids[rows[row]]]
    stored, vectors = known.X[rows][again.positions[same]], again.vectors[same]
    lengths = np.linalg.norm(stored, axis=1) * np.linalg.norm(vectors, axis=1)
    cosines = (stored * vectors).sum(axis=1) / np.maximum(lengths, 1e-12)
    return float(cosines.min()) if len(cosines) else None


def _can_be_compared(item: Item) -> bool:
    """Whether the file is there, with the size that it had, and the stored vector is that of the file."""
    try:
        is_there = Path(item.path).stat().st_size == item.size_bytes
    except (OSError, ValueError):
        return False
    return is_there and not item.metadata.get(ESTIMATED_KEY)
