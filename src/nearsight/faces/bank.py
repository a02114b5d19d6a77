"""A bank of faces with names: enroll, identify, verify, group, and forget."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import ImageFailure, InvalidParameterError, UnknownIdError
from nearsight.estimators.conformal import Threshold, from_nonmatching_pairs
from nearsight.estimators.faces.identifier import FaceIdentifier
from nearsight.faces.enrollment import Enrollment, EnrollReport, Naming
from nearsight.faces.grouping import FaceGroup, groups_of
from nearsight.faces.impostor_scores import background_of
from nearsight.faces.models import DEFAULT_DETECTOR, DEFAULT_RECOGNIZER
from nearsight.faces.pipeline import Face, FaceReader, ImageFaces
from nearsight.faces.results import DEFAULT_RATE, FaceVerification, Identified, identified, verify
from nearsight.faces.schema import COLUMNS, BankedFace, matrix_of, table_of
from nearsight.faces.storage import BankStorage


class FaceBank:
    """Faces with names, in a directory of their own.

    A bank is personal data. Enroll only people who have agreed to it, and only as long as they agree;
    `remove` and `forget` leave nothing behind in the bank's files. Everything happens on this machine.
    Nothing is guessed about a person but whether two faces are the same one's.

    Use `create` or `open`.
    """

    def __init__(self, keeper: BankStorage, reader: Callable[[], FaceReader]) -> None:
        self._keeper = keeper
        self._make_reader = reader
        self._reader: FaceReader | None = None

    @classmethod
    def create(
        cls,
        directory: str | Path,
        *,
        detector: str = DEFAULT_DETECTOR,
        recognizer: str = DEFAULT_RECOGNIZER,
        reader: FaceReader | None = None,
        cache_dir: Path | None = None,
        **options: Any,
    ) -> "FaceBank":
        """Make a bank, or open the one that is there.

        Parameters
        ----------
        directory : path
            Of its own; made where it is missing.
        detector, recognizer : str
            Names of models, see `models.faces`.
        reader : FaceReader, optional
            In place of the two.
        cache_dir : Path, optional
            Where converted models are kept.
        **options
            For `FaceReader`.

        Raises
        ------
        MissingExtraError
            The models are not installed; the message holds the command.
        FingerprintMismatchError
            There is a bank of other models.
        """
        reader = reader or FaceReader(detector, recognizer, cache_dir=cache_dir, **options)
        found, compared = reader.detector.spec, reader.recognizer.spec
        facts = {
            "detector": found.id,
            "recognizer": compared.id,
            "licenses": (found.license, compared.license),
            "dim": compared.dim,
            "fingerprint": reader.fingerprint,
        }
        keeper = BankStorage.make(Path(directory), facts)
        keeper.require(reader.fingerprint)
        return cls(keeper, lambda: reader)

    @classmethod
    def open(
        cls,
        directory: str | Path,
        *,
        reader: FaceReader | None = None,
        cache_dir: Path | None = None,
        **options: Any,
    ) -> "FaceBank":
        """Open a bank that exists; its models are loaded when they are needed.

        Raises
        ------
        CollectionNotFoundError, NotACollectionError, NewerFormatError
            There is no bank that this version can read.
        """
        keeper = BankStorage(Path(directory))
        facts = keeper.manifest
        return cls(
            keeper,
            lambda: reader or FaceReader(facts.detector, facts.recognizer, cache_dir=cache_dir, **options),
        )

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self._keeper.directory

    @property
    def models(self) -> list[tuple[str, str]]:
        """Names and licenses of the detector and the recognizer."""
        facts = self._keeper.manifest
        return list(zip((facts.detector, facts.recognizer), facts.licenses, strict=True))

    @property
    def reader(self) -> FaceReader:
        """What reads faces for this bank.

        Raises
        ------
        FingerprintMismatchError
            The models on this machine are not those that the bank was made with.
        """
        if self._reader is None:
            reader = self._make_reader()
            self._keeper.require(reader.fingerprint)
            self._reader = reader
        return self._reader

    # --- what is in it ------------------------------------------------------------------------

    def faces(self, person: str | None = None) -> list[BankedFace]:
        """Return the faces in the bank, or those of one person, oldest first."""
        table = self._keeper.table(*COLUMNS)
        found = [BankedFace.of(row) for row in table.to_pylist()]
        return [face for face in found if person is None or face.person == person]

    def persons(self) -> dict[str, int]:
        """Return how many faces each person has, by name."""
        names = self._keeper.table("person")["person"].to_pylist()
        return {name: names.count(name) for name in sorted({name for name in names if name})}

    def vectors(self) -> tuple[list[BankedFace], NDArray[np.float32]]:
        """Return all faces, and their (n, dim) vectors."""
        table = self._keeper.table()
        return [BankedFace.of(row) for row in table.drop_columns(["vector", "landmarks"]).to_pylist()], (
            matrix_of(table, self._keeper.manifest.dim)
        )

    # --- coming in ----------------------------------------------------------------------------

    def enroll(
        self, inputs: Any, *, name: str | None = None, allow_remote: bool = False, allow_poor: bool = True
    ) -> EnrollReport:
        """Take faces into the bank.

        Parameters
        ----------
        inputs : path, URL, image, or iterable of those
            Photographs of one person each.
        name : str, optional
            Whose they are; by default each image's folder is called after the person.
        allow_remote : bool, default False
            Whether http and https addresses may be fetched.
        allow_poor : bool, default True
            Whether faces of poor quality are enrolled, with a warning, or left out.

        Returns
        -------
        EnrollReport
            What was enrolled, what was there already, warnings, and images that cannot be used: without a
            face, or with several of like size.
        """
        enrollment = Enrollment(
            Naming(name), self._keeper.table("id")["id"].to_pylist(), allow_poor=allow_poor
        )
        for reading in self.reader.read_all(inputs, allow_remote=allow_remote):
            enrollment.take(reading)
        self._append(enrollment.accepted)
        if enrollment.accepted:
            enrollment.compare(*self.vectors(), self._pair_threshold(DEFAULT_RATE))
        return enrollment.report()

    def _append(self, faces: Sequence[tuple[ImageFaces, Face, str]]) -> None:
        table = table_of(faces, self._keeper.manifest.dim)
        with self._keeper.writing() as store:
            there = set(self._keeper.table("id")["id"].to_pylist())
            store.append(
                table.filter(pa.array([id not in there for id in table["id"].to_pylist()], pa.bool_()))
            )

    # --- asking -------------------------------------------------------------------------------

    def identifier(self, false_match_rate: float = DEFAULT_RATE) -> FaceIdentifier | None:
        """Return the estimator that names faces, fitted on the bank; None where nobody is enrolled."""
        faces, X = self.vectors()
        named = np.array([bool(face.person) for face in faces], bool)
        if not named.any():
            return None
        persons = np.array([face.person for face in faces])[named]
        return FaceIdentifier(
            false_match_rate=false_match_rate,
            impostor_similarities=background_of(self._keeper.manifest.fingerprint),
        ).fit(X[named], persons)

    def identify(
        self, inputs: Any, *, false_match_rate: float = DEFAULT_RATE, allow_remote: bool = False
    ) -> Iterator[Identified | ImageFailure]:
        """Say who is in images.

        Parameters
        ----------
        inputs : path, URL, image, or iterable of those
        false_match_rate : float, default 0.01
            In (0, 1): the share of strangers that may be taken for somebody in the bank.
        allow_remote : bool, default False
            Whether http and https addresses may be fetched.

        Yields
        ------
        Identified or ImageFailure
            In input order.
        """
        identifier = self.identifier(false_match_rate)
        for reading in self.reader.read_all(inputs, allow_remote=allow_remote):
            if isinstance(reading, ImageFailure):
                yield reading
            else:
                yield Identified(reading, identified(identifier, reading.faces))

    def verify(self, a: Any, b: Any, *, false_match_rate: float = DEFAULT_RATE) -> FaceVerification:
        """Say whether the largest faces of two images are of one person; see `verify`."""
        return verify(self.reader, a, b, false_match_rate=false_match_rate)

    def _pair_threshold(self, rate: float) -> Threshold | None:
        background = background_of(self._keeper.manifest.fingerprint)
        return None if background is None else from_nonmatching_pairs(background, false_alarm_rate=rate)

    # --- grouping -----------------------------------------------------------------------------

    def scan(self, inputs: Any, *, allow_remote: bool = False) -> list[ImageFailure]:
        """Read the faces of images into the bank without names, for `group`.

        Images that were read before are not read again. Returns those that cannot be used.
        """
        known = set(self._keeper.table("picture")["picture"].to_pylist()) | self._keeper.without_faces()
        failed, found, empty = [], [], set()
        for reading in self.reader.read_all(inputs, allow_remote=allow_remote, known=known.__contains__):
            if isinstance(reading, ImageFailure):
                failed.append(reading)
            elif reading.id in known:
                continue
            elif reading.faces:
                found += [(reading, face, "") for face in reading.faces]
            else:
                empty.add(reading.id)
            known |= set() if isinstance(reading, ImageFailure) else {reading.id}
        self._append(found)
        self._keeper.note_without_faces(empty)
        return failed

    def group(self, *, false_match_rate: float = DEFAULT_RATE) -> list[FaceGroup]:
        """Group the faces of the bank into persons, the largest group first.

        Faces that resemble an enrolled person are put to that one; the others form groups, which keep their
        names (``g1``, ``g2``, ...) from run to run as long as most of their faces stay together. Two faces of
        one image are never one person.

        Raises
        ------
        InvalidParameterError
            Nothing is known about strangers under this bank's models, and there are too few images with
            several faces to learn it from.
        """
        faces, X = self.vectors()
        groups, names = groups_of(
            faces,
            X,
            self.identifier(false_match_rate),
            background_of(self._keeper.manifest.fingerprint),
            false_match_rate,
        )
        changed = [face.id for face in faces if names.get(face.id, "") != face.group]
        if changed:
            with self._keeper.writing() as store:
                store.update(pa.table({"id": changed, "group": [names.get(id, "") for id in changed]}))
        return groups

    def name_group(self, group: str, person: str) -> int:
        """Say who a group is: its faces are enrolled under that name. Returns how many.

        Raises
        ------
        UnknownIdError
            There is no such group.
        """
        _check_name(person)
        n = self._change(
            lambda row: row["group"] == group and not row["person"], {"person": person, "group": ""}
        )
        if not n:
            raise UnknownIdError(f"there is no group {group!r}; `group` tells those there are")
        return n

    # --- going out ----------------------------------------------------------------------------

    def rename(self, person: str, name: str) -> int:
        """Give a person another name; with the name of somebody else, the two become one.

        Returns how many faces changed.

        Raises
        ------
        UnknownIdError
            There is no such person.
        """
        _check_name(name)
        self.require([person])
        return self._change(lambda row: row["person"] == person, {"person": name})

    def merge(self, persons: Sequence[str], name: str) -> int:
        """Make several persons one, called `name`. Returns how many faces that one has."""
        _check_name(name)
        self.require(persons)
        self._change(lambda row: row["person"] in persons, {"person": name})
        return self.persons()[name]

    def remove(self, persons: Sequence[str] = (), *, faces: Sequence[str] = ()) -> int:
        """Remove persons, or single faces by their ids. Nothing of them is left in the bank's files.

        Returns how many faces were removed.

        Raises
        ------
        UnknownIdError
            There is no such person or face; nothing is removed then.
        """
        self.require(persons, faces=faces)
        gone_persons, gone_faces = set(persons), set(faces)
        return self._drop(lambda row: row["person"] in gone_persons or row["id"] in gone_faces)

    def forget_unnamed(self) -> int:
        """Remove every face that has no person's name. Returns how many there were."""
        return self._drop(lambda row: not row["person"])

    def destroy(self) -> None:
        """Remove the whole bank."""
        self._keeper.destroy()

    def require(self, persons: Sequence[str] = (), *, faces: Sequence[str] = ()) -> None:
        """See that persons, and faces by their ids, are in the bank.

        Raises
        ------
        UnknownIdError
            One is not.
        """
        there = self.persons()
        for person in persons:
            if person not in there:
                known = ", ".join(list(there)[:20]) or "nobody"
                raise UnknownIdError(f"there is no person {person!r} in the bank; there is {known}")
        ids = set(self._keeper.table("id")["id"].to_pylist()) if faces else set()
        if missing := [id for id in faces if id not in ids]:
            raise UnknownIdError(
                f"there is no face {missing[0]!r} in the bank at {self.directory}; the faces of a person are"
                " listed by: nearsight faces list NAME"
            )

    def _drop(self, is_gone: Callable[[dict[str, Any]], bool]) -> int:
        with self._keeper.writing():
            table = self._keeper.table()
            kept = [not is_gone(row) for row in table.select(["id", "person"]).to_pylist()]
            if not all(kept):
                self._keeper.rewrite(table.filter(pa.array(kept, pa.bool_())))
            return kept.count(False)

    def _change(self, is_meant: Callable[[dict[str, Any]], bool], values: dict[str, str]) -> int:
        with self._keeper.writing():
            table = self._keeper.table()
            meant = [is_meant(row) for row in table.select(["id", "person", "group"]).to_pylist()]
            for name, value in values.items():
                old = table[name].to_pylist()
                new = [value if hit else before for hit, before in zip(meant, old, strict=True)]
                place = table.schema.get_field_index(name)
                table = table.set_column(place, table.schema.field(name), pa.array(new, pa.string()))
            if any(meant):
                self._keeper.rewrite(table)
            return meant.count(True)


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidParameterError("a person's name is empty; give one with at least one letter")
