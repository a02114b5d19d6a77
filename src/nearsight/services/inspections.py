"""A detector in use: the images it scored, what people decided about them, and its threshold."""

import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nearsight.anomaly import AnomalyDetector, AnomalyResult
from nearsight.anomaly.heatmap import reason
from nearsight.artifacts import exported, replacing
from nearsight.errors import DetectorFileError, InvalidParameterError, StorageError, UnknownIdError
from nearsight.estimators.conformal import Threshold, from_good, rate_above
from nearsight.images import content_id, decode_path, encode_path, thumbnail
from nearsight.services.database import Database
from nearsight.services.heatmap_grids import packed, unpacked
from nearsight.services.whole_files import Stamp

Verdict = Literal["good", "defect"]
VERDICTS = ("good", "defect")
# Images that nobody decided about are forgotten beyond this number, the oldest first.
MOST_UNDECIDED = 10_000
# Longest side of a preview: what a card shows.
_PREVIEW_SIDE = 512
_TIMEOUT_S = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    score REAL NOT NULL,
    levels TEXT NOT NULL,
    notes TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    scored REAL NOT NULL,
    verdict TEXT,
    decided REAL,
    heat BLOB,
    preview BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS images_by_score ON images (score);
CREATE INDEX IF NOT EXISTS images_by_time ON images (scored);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, time INTEGER NOT NULL, id TEXT, reason TEXT
);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_FACTS = "id, path, score, levels, notes, width, height, revision, scored, verdict, decided"
_ENDING = re.compile(r"[A-Za-z0-9]{1,8}")


@dataclass(frozen=True, slots=True)
class ThresholdInUse:
    """The threshold that images are compared with now.

    Attributes
    ----------
    value : float
        A score above it is a defect.
    calibrated : Threshold
        What was calibrated for the stated rate.
    """

    value: float
    calibrated: Threshold


class Inspection:
    """A detector and what it has scored, in a directory.

    ::

        detector.json     what it was fitted on, and the name of the file; written last
        detector-1.npz    the detector; refitted, it gets the next number
        images.sqlite     scores, verdicts, small heatmaps and previews, the threshold that somebody set
        files/            uploads, and images that were confirmed as good, which may go from their folder

    Parameters
    ----------
    directory : Path
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._database = Database(self.directory / "images.sqlite", _SCHEMA, _TIMEOUT_S)

    @property
    def name(self) -> str:
        """The name of the detector."""
        return self.directory.name

    def exists(self) -> bool:
        """Whether a detector was fitted here."""
        return (self.directory / "detector.json").exists()

    def facts(self) -> dict[str, Any]:
        """Return what the detector was fitted on: source, options, fit, threshold, scores of good images.

        Raises
        ------
        DetectorFileError
            There is none, or its description is damaged.
        """
        try:
            facts: dict[str, Any] = json.loads((self.directory / "detector.json").read_bytes())
            return facts
        except (OSError, ValueError) as error:
            raise DetectorFileError(
                f"there is no fitted detector {self.name!r}, or it is damaged; fit it again on good images"
            ) from error

    def save(self, detector: AnomalyDetector, facts: Mapping[str, Any]) -> int:
        """Put a fitted detector in the place of the one before, whole or not at all; return its revision."""
        self.directory.mkdir(parents=True, exist_ok=True)
        revision = self.facts()["revision"] + 1 if self.exists() else 1
        file = self.directory / f"detector-{revision}.npz"
        threshold = self._kept_threshold(detector) if revision > 1 else None
        detector.save(file)
        document = {
            "format": 1,
            **facts,
            "revision": revision,
            "file": file.name,
            "fitted": time.time(),
            "threshold": detector.threshold_.to_dict(),
            "good_scores": detector.good_scores_.tolist(),
        }
        with exported(self.directory / "detector.json") as target:
            target.write(json.dumps(document).encode())
            target.flush()
            os.fsync(target.fileno())
        self.set_threshold(threshold)
        for old in self.directory.glob("detector-*.npz"):
            if old != file:
                old.unlink(missing_ok=True)
        return revision

    def _kept_threshold(self, detector: AnomalyDetector) -> float | None:
        """Return the threshold of a new fit that keeps the false-alarm rate somebody chose."""
        chosen = self._setting("threshold")
        if chosen is None:
            return None
        rate = rate_above(self.facts()["good_scores"], float(chosen))
        if rate.n_above == 0:
            # Above all good images no rate tells thresholds apart; scores have the unit of good images.
            return max(float(chosen), float(detector.good_scores_.max()))
        expected = max(rate.expected, 1 / (len(detector.good_scores_) + 1))
        return from_good(detector.good_scores_, false_alarm_rate=min(expected, 1 - 1e-9)).value

    def file(self) -> Path:
        """Return the file of the detector."""
        return self.directory / str(self.facts()["file"])

    def delete(self) -> None:
        """Delete the detector and all that it scored; its description goes first."""
        (self.directory / "detector.json").unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def threshold(self) -> ThresholdInUse:
        """Return the threshold: what somebody set, or what was calibrated."""
        calibrated = Threshold.from_dict(self.facts()["threshold"])
        chosen = self._setting("threshold")
        return ThresholdInUse(calibrated.value if chosen is None else float(chosen), calibrated)

    def set_threshold(self, value: float | None) -> None:
        """Set the threshold; None goes back to the calibrated one."""
        with self._database.transaction() as database:
            if value is None:
                database.execute("DELETE FROM settings WHERE name = 'threshold'")
            else:
                database.execute("REPLACE INTO settings VALUES ('threshold', ?)", (repr(float(value)),))

    def add(self, id: str, result: AnomalyResult, revision: int, stamp: Stamp | None = None) -> None:
        """Note the result of an image; on disk when this returns.

        Parameters
        ----------
        id : str
            Of its content.
        result : AnomalyResult
            Scored with ``heatmaps=True``.
        revision : int
            Of the detector.
        stamp : Stamp, optional
            Of its file, which is then not read again until it changes. The image that the file held before
            goes.
        """
        if result.image is None:
            raise InvalidParameterError(f"{result.path} was scored without its heatmap")
        row = {
            "id": id,
            "path": encode_path(result.path),
            "score": result.score,
            "levels": json.dumps(result.levels),
            "notes": json.dumps(result.notes),
            "width": result.image.width,
            "height": result.image.height,
            "revision": revision,
            "scored": time.time(),
            "heat": None if result.heatmap is None else packed(result.heatmap),
            "preview": thumbnail(result.image, _PREVIEW_SIDE),
        }
        names = ", ".join(row)
        changes = ", ".join(f"{name} = excluded.{name}" for name in row if name not in ("id", "scored"))
        with self._database.transaction() as database:
            database.execute(
                f"INSERT INTO images ({names}) VALUES ({', '.join(':' + name for name in row)})"
                f" ON CONFLICT (id) DO UPDATE SET {changes}",
                row,
            )
            if stamp is not None:
                _note_file(database, result.path, stamp, id, None)
        self._forget_oldest()

    def add_file(self, path: str, stamp: Stamp, *, id: str | None = None, reason: str | None = None) -> None:
        """Note a file whose image was scored before, or that cannot be read."""
        with self._database.transaction() as database:
            _note_file(database, path, stamp, id, reason)

    def known_files(self) -> dict[str, Stamp]:
        """Return the files that were read, as they were."""
        with self._database.transaction() as database:
            rows = database.execute("SELECT path, size_bytes, time FROM files").fetchall()
        return {decode_path(row["path"]): Stamp(row["size_bytes"], row["time"]) for row in rows}

    def failures(self) -> list[dict[str, str]]:
        """Return the files that could not be read, with the reasons."""
        with self._database.transaction() as database:
            rows = database.execute("SELECT path, reason FROM files WHERE reason IS NOT NULL LIMIT 1000")
            return [{"path": decode_path(row["path"]), "reason": row["reason"]} for row in rows]

    def has(self, id: str, revision: int | None = None) -> bool:
        """Whether an image was scored, by this revision of the detector."""
        with self._database.transaction() as database:
            row = database.execute("SELECT revision FROM images WHERE id = ?", (id,)).fetchone()
        return row is not None and revision in (None, row["revision"])

    def images(
        self,
        *,
        side: Literal["defect", "good"] | None = None,
        is_decided: bool | None = None,
        order: Literal["score", "time"] = "score",
        offset: int = 0,
        limit: int = 100,
    ) -> tuple[list[dict[str, Any]], int]:
        """Return scored images, the most anomalous or the latest first, and how many there are in all.

        Parameters
        ----------
        side : {"defect", "good"}, optional
            What counts is the verdict; without one, the threshold.
        is_decided : bool, optional
            Only images with, or without a verdict.
        """
        threshold = self.threshold().value
        conditions = {
            "defect": "(verdict = 'defect' OR (verdict IS NULL AND score > :threshold))",
            "good": "(verdict = 'good' OR (verdict IS NULL AND score <= :threshold))",
            None: "1",
        }
        decided = {None: "1", True: "verdict IS NOT NULL", False: "verdict IS NULL"}
        where = f"{conditions[side]} AND {decided[is_decided]}"
        values = {"threshold": threshold, "limit": limit, "offset": offset}
        by = "score DESC, id" if order == "score" else "scored DESC, id"
        with self._database.transaction() as database:
            total = database.execute(f"SELECT count(*) FROM images WHERE {where}", values).fetchone()[0]
            rows = database.execute(
                f"SELECT {_FACTS} FROM images WHERE {where} ORDER BY {by} LIMIT :limit OFFSET :offset", values
            ).fetchall()
        return [_image_facts(row, threshold) for row in rows], total

    def image(self, id: str) -> dict[str, Any]:
        """Return what is known of a scored image.

        Raises
        ------
        UnknownIdError
            It was not scored here.
        """
        return _image_facts(self._row(id, _FACTS), self.threshold().value)

    def named(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return what is known of the scored images among these, in their order."""
        threshold, marks = self.threshold().value, ", ".join("?" * len(ids))
        with self._database.transaction() as database:
            rows = database.execute(
                f"SELECT {_FACTS} FROM images WHERE id IN ({marks})", list(ids)
            ).fetchall()
        by_id = {row["id"]: _image_facts(row, threshold) for row in rows}
        return [by_id[id] for id in ids if id in by_id]

    def preview(self, id: str) -> bytes:
        """Return a small JPEG of a scored image."""
        return bytes(self._row(id, "preview")["preview"])

    def heatmap(self, id: str) -> NDArray[np.float32] | None:
        """Return the heatmap of a scored image, at most 128 a side; None if it was scored as a whole."""
        heat = self._row(id, "heat")["heat"]
        return None if heat is None else unpacked(heat)

    def counts(self) -> dict[str, int]:
        """Return numbers of images: in all, by side, without a verdict, where verdict and score differ."""
        threshold = self.threshold().value
        with self._database.transaction() as database:
            row = database.execute(
                "SELECT count(*) AS images,"
                " coalesce(sum(verdict = 'defect' OR (verdict IS NULL AND score > :t)), 0) AS defects,"
                " coalesce(sum(verdict IS NULL), 0) AS undecided,"
                " coalesce(sum(verdict = 'good'), 0) AS confirmed_good,"
                " coalesce(sum(verdict = 'defect'), 0) AS confirmed_defects,"
                " coalesce(sum(verdict = 'good' AND score > :t), 0) AS false_alarms,"
                " coalesce(sum(verdict = 'defect' AND score <= :t), 0) AS missed FROM images",
                {"t": threshold},
            ).fetchone()
            failed = database.execute("SELECT count(*) FROM files WHERE reason IS NOT NULL").fetchone()[0]
        return {**dict(row), "failed": failed}

    def scores(self) -> list[tuple[str, float, str | None]]:
        """Return id, score and verdict of all scored images, in the order of the scores."""
        with self._database.transaction() as database:
            rows = database.execute("SELECT id, score, verdict FROM images ORDER BY score, id").fetchall()
        return [(row["id"], row["score"], row["verdict"]) for row in rows]

    def decide(self, ids: Sequence[str], verdict: Verdict | None) -> int:
        """Note what people decided about images; None takes it back. Return how many changed.

        The file of an image that is confirmed as good is copied first: a refit needs it, also when it has
        left its folder.

        Raises
        ------
        InvalidParameterError
            The verdict is unknown.
        UnknownIdError
            An image was not scored here; nothing was noted.
        """
        if verdict is not None and verdict not in VERDICTS:
            raise InvalidParameterError(f"verdict is {verdict!r}; it must be 'good', 'defect' or None")
        for id in ids:
            self._row(id, "id")
        if verdict == "good":
            for id in ids:
                self._keep_copy(id)
        with self._database.transaction() as database:
            return sum(
                database.execute(
                    "UPDATE images SET verdict = :verdict, decided = :now"
                    " WHERE id = :id AND verdict IS NOT :verdict",
                    {"verdict": verdict, "now": None if verdict is None else time.time(), "id": id},
                ).rowcount
                for id in ids
            )

    def confirmed(self, verdict: Verdict) -> list[str]:
        """Return the ids of the images with a verdict, those of the latest decision last."""
        with self._database.transaction() as database:
            rows = database.execute(
                "SELECT id FROM images WHERE verdict = ? ORDER BY decided, id", (verdict,)
            ).fetchall()
        return [row["id"] for row in rows]

    def stale(self, revision: int) -> list[str]:
        """Return the ids of images that another revision of the detector scored."""
        with self._database.transaction() as database:
            rows = database.execute("SELECT id FROM images WHERE revision != ?", (revision,)).fetchall()
        return [row["id"] for row in rows]

    def keep(self, id: str, name: str, data: bytes) -> Path:
        """Keep a file of its own for an image, such as an upload; on disk when this returns."""
        ending = name.rpartition(".")[2]
        place = self.directory / "files" / (f"{id}.{ending}" if _ENDING.fullmatch(ending) else id)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"{place} cannot be written: {error}") from error
        return place

    def content(self, id: str) -> tuple[Path, bytes] | None:
        """Return the file of a scored image and what it holds; None if it is gone or has changed."""
        for path in [*self._copies(id), Path(decode_path(self._row(id, "path")["path"]))]:
            try:
                data = path.read_bytes()
            except (OSError, ValueError):
                continue
            if content_id(data) == id:
                return path, data
        return None

    def _copies(self, id: str) -> list[Path]:
        return sorted((self.directory / "files").glob(f"{id}*"))

    def _keep_copy(self, id: str) -> None:
        if self._copies(id):
            return
        found = self.content(id)
        if found is not None:
            self.keep(id, found[0].name, found[1])

    def _forget_oldest(self) -> None:
        with self._database.transaction() as database:
            ids = [
                row["id"]
                for row in database.execute(
                    "SELECT id FROM images WHERE verdict IS NULL ORDER BY scored DESC LIMIT -1 OFFSET ?",
                    (MOST_UNDECIDED,),
                )
            ]
            database.executemany("DELETE FROM images WHERE id = ?", [(id,) for id in ids])
        for id in ids:
            for copy in self._copies(id):
                copy.unlink(missing_ok=True)

    def _row(self, id: str, columns: str) -> sqlite3.Row:
        with self._database.transaction() as database:
            row: sqlite3.Row | None = database.execute(
                f"SELECT {columns} FROM images WHERE id = ?", (id,)
            ).fetchone()
        if row is None:
            raise UnknownIdError(f"there is no scored image {id!r}")
        return row

    def _setting(self, name: str) -> str | None:
        with self._database.transaction() as database:
            row = database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row["value"])


def _note_file(
    database: sqlite3.Connection, path: str, stamp: Stamp, id: str | None, reason: str | None
) -> None:
    path = encode_path(path)
    before = database.execute("SELECT id FROM files WHERE path = ?", (path,)).fetchone()
    database.execute(
        "REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (path, stamp.size_bytes, stamp.time, id, reason)
    )
    if id is not None:
        database.execute("UPDATE images SET path = ? WHERE id = ?", (path, id))
    if before is not None and before["id"] not in (None, id):
        # What the file held is gone, unless somebody decided about it or another file has it.
        database.execute(
            "DELETE FROM images WHERE id = :id AND verdict IS NULL AND NOT EXISTS"
            " (SELECT 1 FROM files WHERE files.id = :id)",
            {"id": before["id"]},
        )


def _image_facts(row: sqlite3.Row, threshold: float) -> dict[str, Any]:
    facts = {**dict(row), "path": decode_path(row["path"])}
    levels, notes = json.loads(facts.pop("levels")), json.loads(facts.pop("notes"))
    is_above = facts["score"] > threshold
    result = AnomalyResult(facts["path"], facts["score"], threshold, is_above, levels)
    return {
        **facts,
        "threshold": threshold,
        "defect": is_above,
        "why": reason(result),
        "notes": notes,
        "levels": levels,
    }
