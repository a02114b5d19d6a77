"""A bank of faces with names: enroll, identify, verify, group, and remove."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import ImageFailure, UnknownIdError
from nearsight.estimators.faces.impostor_quantiles import DEFAULT_FALSE_MATCH_RATE
from nearsight.faces.conditions import BankConditions
from nearsight.faces.decisions import PersonKey
from nearsight.faces.enrollment import Enrollment, EnrollReport, PersonName
from nearsight.faces.groups import FaceGroup, group_faces
from nearsight.faces.impostor_quantiles import impostor_quantiles
from nearsight.faces.models import DEFAULT_DETECTOR, DEFAULT_RECOGNIZER
from nearsight.faces.people import People
from nearsight.faces.pipeline import Face, FaceReader, ImageFaces
from nearsight.faces.results import FaceVerification, IdentifiedImage, identify_faces, verify
from nearsight.faces.schema import BankedFace, face_id, to_table, vectors_of
from nearsight.faces.storage import BankStorage
from nearsight.faces.upgrade import UpgradeReport, upgrade_bank
from nearsight.text_format import nfc

if TYPE_CHECKING:
    from nearsight.estimators.faces.identifier import FaceIdentifier

# Groups are computed again if somebody decided something meanwhile, so many times.
_MOST_GROUPINGS = 3


class FaceBank:
    """Faces with names, in a directory of their own.

    A bank is personal data. Enroll only people who have agreed to it, and only as long as they agree;
    `remove` and `forget_unnamed` leave no trace in the bank's files. Everything is computed on this machine.
    Nothing is inferred about a person except whether two faces are of the same person.

    Use `create` or `open`.
    """

    def __init__(self, storage: BankStorage, reader: Callable[[], FaceReader]) -> None:
        self._storage = storage
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
        """Create a bank, or open the one that exists.

        Parameters
        ----------
        directory : path
            A directory for the bank alone; created if it does not exist.
        detector, recognizer : str
            Names of models, see `faces.models`.
        reader : FaceReader, optional
            Replaces `detector` and `recognizer`.
        cache_dir : Path, optional
            Where converted models are kept.
        **options
            Parameters of `FaceReader`.

        Raises
        ------
        MissingExtraError
            The models are not installed; the message holds the command.
        FingerprintMismatchError
            A bank of other models exists there.
        """
        reader = reader or FaceReader(detector, recognizer, cache_dir=cache_dir, **options)
        detector_spec, recognizer_spec = reader.detector.spec, reader.recognizer.spec
        facts = {
            "detector": detector_spec.id,
            "recognizer": recognizer_spec.id,
            "licenses": (detector_spec.license, recognizer_spec.license),
            "dim": recognizer_spec.dim,
            "fingerprint": reader.fingerprint,
        }
        storage = BankStorage.create(Path(directory), facts)
        storage.require(reader.fingerprint)
        return cls(storage, lambda: reader)

    @classmethod
    def open(
        cls,
        directory: str | Path,
        *,
        reader: FaceReader | None = None,
        cache_dir: Path | None = None,
        **options: Any,
    ) -> "FaceBank":
        """Open an existing bank; its models are loaded on first use.

        Raises
        ------
        CollectionNotFoundError, NotACollectionError, NewerFormatError
            There is no bank at `directory`, or this version cannot read it.
        """
        storage = BankStorage(Path(directory))
        facts = storage.manifest
        return cls(
            storage,
            lambda: reader or FaceReader(facts.detector, facts.recognizer, cache_dir=cache_dir, **options),
        )

    @property
    def directory(self) -> Path:
        """The bank's directory."""
        return self._storage.directory

    @property
    def people(self) -> People:
        """The persons and groups, and what is decided about them."""
        return People(self._storage)

    @property
    def models(self) -> list[tuple[str, str]]:
        """Names and licenses of the detector and the recognizer."""
        facts = self._storage.manifest
        return list(zip((facts.detector, facts.recognizer), facts.licenses, strict=True))

    @property
    def reader(self) -> FaceReader:
        """The reader of faces, loaded on first use.

        Raises
        ------
        FingerprintMismatchError
            The models on this machine differ from those that the bank was created with.
        """
        if self._reader is None:
            reader = self._make_reader()
            self._storage.require(reader.fingerprint)
            self._reader = reader
        return self._reader

    def upgrade(self, *, drop_missing: bool = False) -> UpgradeReport:
        """Compute all faces again from their images, after a change of the rules or the recognizer.

        Boxes, landmarks and names stay. Nothing happens if the bank is up to date.

        Parameters
        ----------
        drop_missing : bool, default False
            Remove the faces of images that are missing or have changed.

        Raises
        ------
        FingerprintMismatchError
            Another detector found the faces; enroll the photographs in another bank.
        InvalidParameterError
            Images are missing or have changed, and `drop_missing` is False; nothing is changed then.
        """
        reader = self._make_reader()
        report = upgrade_bank(self._storage, reader, drop_missing=drop_missing)
        self._storage.require(reader.fingerprint)
        self._reader = reader
        return report

    # --- content --------------------------------------------------------------------------------------

    def faces(self, person: str | None = None) -> list[BankedFace]:
        """Return the faces in the bank, or those of one person, oldest first."""
        return [face for face in self.people.faces() if person is None or face.person == person]

    def persons(self) -> dict[str, int]:
        """Return the number of faces of each person, by name."""
        counts = Counter(self._storage.table("person")["person"].to_pylist())
        return {name: counts[name] for name in sorted(counts) if name}

    def vectors(self) -> tuple[list[BankedFace], NDArray[np.float32]]:
        """Return all faces, and their (n, dim) vectors."""
        table = self._storage.table()
        return [
            BankedFace.from_row(row) for row in table.drop_columns(["vector", "landmarks"]).to_pylist()
        ], (vectors_of(table, self._storage.manifest.dim))

    # --- enrollment -----------------------------------------------------------------------------------

    def enroll(
        self, inputs: Any, *, name: str | None = None, allow_poor: bool = True, **walk: Any
    ) -> EnrollReport:
        """Add faces of known persons to the bank.

        Parameters
        ----------
        inputs : path, URL, image, or iterable of those
            Photographs of persons. In one with several faces, the face is enrolled that matches the person's
            other images; without other images, the largest, if it is clearly the largest.
        name : str, optional
            Name of the person; by default the name of each image's folder.
        allow_poor : bool, default True
            Enroll faces of poor quality with a caution; False leaves them out.
        **walk
            `allow_remote`, `exclusions` and `skipped`; see `images.find`.

        Returns
        -------
        EnrollReport
            Enrolled faces, faces that were enrolled before, cautions, and images that cannot be used: without
            a face, or with several faces of similar size.
        """
        banked = {face.id: face.person for face in self.faces()}
        named = {id: person for id, person in banked.items() if person}
        enrollment = Enrollment(PersonName(name), named, allow_poor=allow_poor)
        for image in self.reader.read_all(inputs, **walk):
            enrollment.add(image)
        quantiles = impostor_quantiles(self._storage.manifest.fingerprint)
        enrollment.choose_faces(self._vectors_by_person(), quantiles, DEFAULT_FALSE_MATCH_RATE)
        self._append(enrollment.accepted)
        self._name_banked(enrollment.accepted, banked)
        if enrollment.accepted:
            enrollment.compare(self.identifier())
            enrollment.compare_with_own(self._vectors_by_person(), quantiles, DEFAULT_FALSE_MATCH_RATE)
        return enrollment.report()

    def _vectors_by_person(self) -> dict[str, NDArray[np.float32]]:
        faces, X = self.vectors()
        persons = np.array([face.person for face in faces])
        return {str(person): X[persons == person] for person in np.unique(persons) if person}

    def _append(self, faces: Sequence[tuple[ImageFaces, Face, str]]) -> None:
        table = to_table(faces, self._storage.manifest.dim)
        with self._storage.writing() as store:
            known = set(self._storage.table("id")["id"].to_pylist())
            is_new = [id not in known for id in table["id"].to_pylist()]
            # A bank of an earlier version may lack a column.
            store.append(table.filter(pa.array(is_new, pa.bool_())).select(store.schema.names))

    def _name_banked(self, faces: Sequence[tuple[ImageFaces, Face, str]], banked: Mapping[str, str]) -> None:
        """Give the person's name to faces that the bank has had without a name."""
        ids: dict[str, set[str]] = {}
        for image, face, person in faces:
            if face_id(image.id, face) in banked:
                ids.setdefault(person, set()).add(face_id(image.id, face))
        for person, chosen in ids.items():
            self.people.assign(chosen, person)

    # --- identification and verification --------------------------------------------------------------

    def identifier(self, false_match_rate: float = DEFAULT_FALSE_MATCH_RATE) -> "FaceIdentifier | None":
        """Return the estimator that identifies faces, fitted on the bank; None if nobody is enrolled."""
        from nearsight.estimators.faces.identifier import FaceIdentifier

        faces, X = self.vectors()
        named = np.array([bool(face.person) for face in faces], bool)
        if not named.any():
            return None
        persons = np.array([face.person for face in faces])[named]
        return FaceIdentifier(
            false_match_rate=false_match_rate,
            impostor_quantiles=impostor_quantiles(self._storage.manifest.fingerprint),
        ).fit(X[named], persons)

    def identify(
        self,
        inputs: Any,
        *,
        false_match_rate: float = DEFAULT_FALSE_MATCH_RATE,
        identifier: "FaceIdentifier | None" = None,
        **walk: Any,
    ) -> Iterator[IdentifiedImage | ImageFailure]:
        """Identify the persons in images.

        Parameters
        ----------
        inputs : path, URL, image, or iterable of those
        false_match_rate : float, default 0.01
            Share of persons who are not in the bank that may be identified as somebody, in (0, 1).
        identifier : FaceIdentifier, optional
            From `identifier`, which fits it again for each call; then `false_match_rate` is not read.
        **walk
            `allow_remote`, `exclusions` and `skipped`; see `images.find`.

        Yields
        ------
        IdentifiedImage or ImageFailure
            In input order.
        """
        identifier = identifier or self.identifier(false_match_rate)
        conditions = BankConditions.of(self.faces())
        for image in self.reader.read_all(inputs, **walk):
            if isinstance(image, ImageFailure):
                yield image
            else:
                yield IdentifiedImage(image, identify_faces(identifier, image.faces, conditions))

    def verify(
        self, a: Any, b: Any, *, false_match_rate: float = DEFAULT_FALSE_MATCH_RATE
    ) -> FaceVerification:
        """Decide whether the largest faces of two images are of the same person; see `faces.verify`."""
        return verify(self.reader, a, b, false_match_rate=false_match_rate)

    # --- grouping -------------------------------------------------------------------------------------

    def scan(self, inputs: Any, **walk: Any) -> list[ImageFailure]:
        """Add the faces of images to the bank without names, for `group`.

        Images that were read before are skipped. Returns the images that cannot be used. For `walk` see
        `identify`.
        """
        known = self.known_images()
        failures, unnamed, without_faces = [], [], set()
        for image in self.reader.read_all(inputs, **walk, known=known.__contains__):
            if isinstance(image, ImageFailure):
                failures.append(image)
                continue
            if image.id in known:
                continue
            known.add(image.id)
            unnamed += [(image, face, "") for face in image.faces]
            if not image.faces:
                without_faces.add(image.id)
        self._append(unnamed)
        self._storage.add_without_faces(without_faces)
        return failures

    def known_images(self) -> set[str]:
        """Return the ids of images that `scan` would skip: their content is known."""
        return set(self._storage.table("picture")["picture"].to_pylist()) | self._storage.without_faces()

    def group(self, *, false_match_rate: float = DEFAULT_FALSE_MATCH_RATE) -> list[FaceGroup]:
        """Group the faces of the bank by person, the largest group first.

        Faces that match an enrolled person join that person. The others form groups, which keep their names
        (``g1``, ``g2``, ...) from run to run as long as most of their faces stay together. Two faces of one
        image are never put together. What was decided about faces holds (`people`).

        Parameters
        ----------
        false_match_rate : float, default 0.01
            Share of faces that may match a person or a group that they are not of, in (0, 1).

        Raises
        ------
        InvalidParameterError
            There are no impostor quantiles for this bank's models, and too few images with several faces to
            calibrate on: add more of them, or allow a higher rate.
        """
        for attempt in range(_MOST_GROUPINGS):
            faces, X = self.vectors()
            decisions = self.people.decisions()
            grouping = group_faces(
                faces,
                X,
                self.identifier(false_match_rate),
                impostor_quantiles(self._storage.manifest.fingerprint),
                false_match_rate,
                decisions,
            )
            with self._storage.writing() as store:
                # Somebody may have decided something meanwhile.
                if self.people.decisions() != decisions and attempt < _MOST_GROUPINGS - 1:
                    continue
                names = grouping.groups
                changed = [face.id for face in faces if names.get(face.id, "") != face.group]
                if changed:
                    store.update(pa.table({"id": changed, "group": [names.get(id, "") for id in changed]}))
                grouping.suggestions.write(self.directory)
                break
        return self.people.groups()

    def name_group(self, group: str, person: str) -> int:
        """Enroll the faces of a group under a person's name; return their number.

        Raises
        ------
        UnknownIdError
            There is no such group.
        """
        return self.people.name(PersonKey(group, ""), person)

    # --- names and removal ----------------------------------------------------------------------------

    def rename(self, person: str, name: str) -> int:
        """Rename a person; with the name of another person, the two are merged.

        Returns the number of faces that changed.

        Raises
        ------
        UnknownIdError
            There is no such person.
        """
        [person] = self._as_stored([person])
        self.require([person])
        return self.people.name(PersonKey("", person), name)

    def merge(self, persons: Sequence[str], name: str) -> int:
        """Merge several persons into one called `name`; return that person's number of faces."""
        persons = self._as_stored(persons)
        self.require(persons)
        merged = self.people.merge([PersonKey("", person) for person in persons], name)
        return self.persons()[merged.person]

    def remove(self, persons: Sequence[str] = (), *, faces: Sequence[str] = ()) -> int:
        """Remove persons, or single faces by their ids, without a trace in the bank's files.

        A later `scan` of the same images does not bring them back; to enroll them does.

        Returns the number of removed faces.

        Raises
        ------
        UnknownIdError
            There is no such person or face; nothing is removed then.
        """
        persons = self._as_stored(persons)
        self.require(persons, faces=faces)
        removed_persons, removed_faces = set(persons), set(faces)
        return self.people.remove(lambda id, key: key.person in removed_persons or id in removed_faces)

    def _as_stored(self, persons: Sequence[str]) -> list[str]:
        """Return names as the bank spells them, whatever their Unicode form."""
        stored = self.persons()
        by_form = {nfc(person): person for person in stored}
        return [person if person in stored else by_form.get(nfc(person), person) for person in persons]

    def forget_unnamed(self) -> int:
        """Remove every face without a person's name; return their number. A later scan finds them again."""
        return self.people.remove(lambda id, key: not key.person, read_again=True)

    def destroy(self) -> None:
        """Remove the whole bank."""
        self._storage.destroy()

    def require(self, persons: Sequence[str] = (), *, faces: Sequence[str] = ()) -> None:
        """Check that persons, and faces by their ids, are in the bank.

        Raises
        ------
        UnknownIdError
            A person or face is not in the bank.
        """
        known_persons = self.persons()
        for person in persons:
            if person not in known_persons:
                known = ", ".join(list(known_persons)[:20]) or "nobody"
                raise UnknownIdError(f"there is no person {person!r} in the bank; there is {known}")
        ids = set(self._storage.table("id")["id"].to_pylist()) if faces else set()
        if missing := [id for id in faces if id not in ids]:
            raise UnknownIdError(
                f"there is no face {missing[0]!r} in the bank at {self.directory}; the faces of a person are"
                " listed by: nearsight faces list NAME"
            )
