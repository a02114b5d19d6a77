import json
import multiprocessing
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from fake_faces import ColorRecognizer, SquareDetector, album, photograph

from nearsight.errors import (
    CalibrationError,
    CollectionNotFoundError,
    FingerprintMismatchError,
    ImageError,
    InvalidParameterError,
    NewerFormatError,
    NotACollectionError,
    UnknownIdError,
)
from nearsight.faces import FaceBank, FaceReader
from nearsight.faces.storage import FILENAME


@pytest.fixture
def bank(tmp_path, reader):
    return FaceBank.create(tmp_path / "bank", reader=reader)


@pytest.fixture
def people(tmp_path):
    return album(tmp_path / "people")


def names(bank, image):
    (result,) = bank.identify([image])
    return [face.person for face in result.faces]


def test_folders_are_persons_and_twice_is_once(bank, people, reader):
    report = bank.enroll(people)
    assert report.enrolled == {"ann": 3, "bob": 3}
    assert not report.failed
    assert not report.cautions
    again = bank.enroll(people)
    assert (again.enrolled, again.already) == ({}, 6)
    reopened = FaceBank.open(bank.directory, reader=reader)
    assert reopened.persons() == {"ann": 3, "bob": 3}
    (face, *_) = reopened.faces("ann")
    assert face.path.endswith("ann/0.png")
    assert face.enrolled_at.tzinfo is not None


def test_persons_are_recognized_and_others_are_not(bank, people):
    bank.enroll(people)
    image = photograph(("bob", 10, 20, 90), ("ann", 150, 30, 60), ("cy", 120, 110, 30), seed=7)
    (found,) = bank.identify([image])
    assert [face.person for face in found.faces] == ["bob", "ann", None]
    assert [face.similarity > 0.9 for face in found.faces] == [True, True, False]
    assert found.faces[2].nearest in ("ann", "bob")
    assert not any(face.ambiguous for face in found.faces)


def test_an_identifier_is_fitted_once_where_it_is_given(bank, people, monkeypatch):
    bank.enroll(people)
    strict = bank.identifier(0.001)
    image = photograph(("ann", 60, 40, 80))
    (expected,) = bank.identify([image], false_match_rate=0.001)
    monkeypatch.setattr(bank, "identifier", None)
    (found,) = bank.identify([image], identifier=strict)
    assert [face.person for face in found.faces] == [face.person for face in expected.faces] == ["ann"]


def test_an_empty_bank_knows_nobody(bank):
    (found,) = bank.identify([photograph(("ann", 60, 40, 80))])
    assert [(face.person, face.nearest) for face in found.faces] == [(None, None)]
    assert bank.persons() == {}
    assert bank.group() == []


def test_what_cannot_be_enrolled_is_told_and_the_rest_is_not_lost(bank, tmp_path):
    folder = tmp_path / "people" / "ann"
    folder.mkdir(parents=True)
    photograph().save(folder / "nobody.png")
    photograph(("cy", 10, 20, 60), ("bob", 150, 30, 60)).save(folder / "two alike.png")
    photograph(("ann", 10, 20, 90), ("bob", 150, 30, 40)).save(folder / "one is larger.png")
    (folder / "broken.png").write_bytes(b"")
    report = bank.enroll(tmp_path / "people")
    assert report.enrolled == {"ann": 1}
    reasons = {failure.path.rsplit("/", 1)[1]: failure.reason for failure in report.failed}
    assert set(reasons) == {"nobody.png", "two alike.png", "broken.png"}
    assert report.skipped == {
        "unreadable": 1,
        "without a face": 1,
        "with several faces of similar size": 1,
    }
    assert "no face" in reasons["nobody.png"]
    assert "2 faces of similar size" in reasons["two alike.png"]
    assert [caution.kind for caution in report.cautions if caution.kind == "several faces"] == [
        "several faces"
    ]


def test_an_image_in_memory_needs_a_name(bank):
    image = photograph(("ann", 60, 40, 80))
    assert "whose face" in bank.enroll([image]).failed[0].reason
    assert bank.enroll([image], name="ann").enrolled == {"ann": 1}
    with pytest.raises(InvalidParameterError, match="name is ' '"):
        bank.enroll([image], name=" ")


def test_a_face_that_belongs_to_somebody_else_is_told(bank, people):
    bank.enroll(people)
    (caution,) = bank.enroll([photograph(("ann", 70, 30, 80), seed=99)], name="not ann").cautions
    assert caution.kind == "like someone else"
    assert "resembles ann" in caution.text


def test_a_photograph_of_somebody_else_is_told(bank, people):
    photograph(("dee", 60, 40, 80), seed=3).save(people / "ann" / "wrong.png")
    report = bank.enroll(people)
    (caution,) = report.cautions
    assert caution.kind == "unlike the others"
    assert caution.path.endswith("wrong.png")
    assert "does not resemble the other 3 images of ann" in caution.text


def test_of_two_images_that_differ_none_is_called_wrong(bank, tmp_path):
    images = [photograph((who, 60, 40, 80), seed=3) for who in ("ann", "bob")]
    assert bank.enroll(images, name="ann").cautions == []


def test_poor_faces_are_told_or_left_out(bank):
    small = photograph(("ann", 60, 40, 18))
    assert (
        bank.enroll([small], name="ann", allow_poor=False).failed[0].reason.startswith("the face is of poor")
    )
    (caution,) = bank.enroll([small], name="ann").cautions
    assert caution.kind == "poor quality"
    assert "small" in caution.text


def test_one_person_under_two_names_is_ambiguous_until_they_are_merged(bank, people):
    bank.enroll(people)
    bank.enroll([photograph(("ann", 70, 30, 80), seed=99)], name="annie")
    (found,) = bank.identify([photograph(("ann", 50, 30, 80), seed=5)])
    assert found.faces[0].ambiguous
    assert {found.faces[0].person, found.faces[0].rival} == {"ann", "annie"}
    assert bank.merge(["ann", "annie"], "Ann") == 4
    (found,) = bank.identify([photograph(("ann", 50, 30, 80), seed=5)])
    assert (found.faces[0].person, found.faces[0].ambiguous) == ("Ann", False)


def test_rename(bank, people):
    bank.enroll(people)
    assert bank.rename("ann", "Ann Lee") == 3
    assert bank.persons() == {"Ann Lee": 3, "bob": 3}
    with pytest.raises(UnknownIdError, match="there is Ann Lee, bob"):
        bank.rename("ann", "x")
    with pytest.raises(InvalidParameterError, match="empty"):
        bank.rename("bob", "")


def every_byte(directory):
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("way", ["person", "face", "rename", "destroy"])
def test_what_is_removed_is_gone_from_every_file(bank, people, way):
    bank.enroll(people)
    # Several versions of the table, as they come about in daily use.
    bank.enroll([photograph(("ann", 75, 30, 70), seed=123)], name="ann")
    faces, X = bank.vectors()
    marks = [X[i].tobytes() for i, face in enumerate(faces) if face.person == "ann"]
    kept = [X[i].tobytes() for i, face in enumerate(faces) if face.person == "bob"]
    before = every_byte(bank.directory)
    assert all(mark in before for mark in marks + kept)
    if way == "person":
        assert bank.remove(["ann"]) == 4
    elif way == "face":
        assert bank.remove(faces=[face.id for face in faces if face.person == "ann"]) == 4
    elif way == "rename":
        bank.rename("ann", "zoe")
    else:
        bank.destroy()
    after = every_byte(bank.directory)
    if way == "rename":
        assert all(mark in after for mark in marks + kept)
        assert b"ann\x00" not in after.replace(b"/ann/", b"")
        return
    assert not any(mark in after for mark in marks)
    # Not even the first numbers of a vector, in case it is stored in parts.
    assert not any(mark[:16] in after for mark in marks)
    assert all((mark in after) == (way != "destroy") for mark in kept)


def test_removing_nobody_known_removes_nothing(bank, people):
    bank.enroll(people)
    with pytest.raises(UnknownIdError, match="'zoe'"):
        bank.remove(["ann", "zoe"])
    with pytest.raises(UnknownIdError, match="'ffff'"):
        bank.remove(faces=["ffff"])
    assert bank.persons() == {"ann": 3, "bob": 3}


def test_verify(bank):
    ann, again, bob = (
        photograph((who, 60, 40, 80), seed=s) for who, s in (("ann", 1), ("ann", 2), ("bob", 3))
    )
    assert bank.verify(ann, again).same
    found = bank.verify(ann, bob)
    assert not found.same
    assert found.similarity < found.threshold.value
    with pytest.raises(ImageError, match="no face"):
        bank.verify(ann, photograph())
    with pytest.raises(CalibrationError, match="at least 1.3e-05"):
        bank.verify(ann, again, false_match_rate=1e-7)


def test_groups_keep_their_names_and_are_named_once(bank, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        photograph(("ann", 10, 20, 60), ("bob", 150, 30, 60), seed=i).save(folder / f"{i}.png")
    photograph(("cy", 60, 30, 60), seed=50).save(folder / "alone.png")
    photograph(seed=60).save(folder / "nobody.png")
    assert bank.scan(folder) == []
    groups = bank.group()
    assert [(g.group, g.person, len(g.faces)) for g in groups] == [
        ("g1", "", 4),
        ("g2", "", 4),
        ("g3", "", 1),
    ]
    assert all(len({face.image for face in g.faces}) == len(g.faces) for g in groups)
    assert bank.name_group("g2", "second") == 4
    # More of everybody: the first keeps its name though it is smaller now, and nobody is asked twice.
    for i in range(6):
        photograph(("cy", 60, 30, 60), seed=70 + i).save(folder / f"cy{i}.png")
    photograph(("ann", 10, 20, 60), ("bob", 150, 30, 60), seed=80).save(folder / "both.png")
    bank.scan(folder)
    found = {g.person or g.group: len(g.faces) for g in bank.group()}
    assert found == {"g3": 7, "second": 5, "g1": 5}
    with pytest.raises(UnknownIdError, match="g9"):
        bank.name_group("g9", "x")
    assert bank.forget_unnamed() == 13
    assert bank.persons() == {"second": 4}


def test_an_image_is_read_once(bank, tmp_path, monkeypatch):
    folder = album(tmp_path / "a", persons=("ann",))
    photograph(seed=3).save(folder / "nobody.png")
    bank.scan(folder)
    monkeypatch.setattr(type(bank.reader), "faces", lambda *_: pytest.fail("looked into again"))
    bank.scan(folder)
    assert len(bank.faces()) == 3


def test_two_faces_of_one_image_are_never_one_person(bank):
    twins = [photograph(("ann", 10, 20, 60), ("ann", 150, 30, 60), seed=i) for i in range(3)]
    bank.scan(twins)
    assert [len(group.faces) for group in bank.group()] == [3, 3]
    bank.name_group("g1", "ann")
    assert sorted((g.person, len(g.faces)) for g in bank.group()) == [("", 3), ("ann", 3)]


def test_faces_of_other_models_are_refused(bank, people):
    other = ColorRecognizer()
    other.template = other.template + 1
    reader = FaceReader(SquareDetector(), other, progress=False)
    with pytest.raises(FingerprintMismatchError, match="template"):
        FaceBank.create(bank.directory, reader=reader)
    with pytest.raises(FingerprintMismatchError, match="another bank"):
        FaceBank.open(bank.directory, reader=reader).enroll(people)


def test_what_is_no_bank_is_told(tmp_path, bank):
    with pytest.raises(CollectionNotFoundError, match="nearsight faces enroll"):
        FaceBank.open(tmp_path / "nothing")
    path = bank.directory / FILENAME
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(NewerFormatError, match="pip install --upgrade"):
        FaceBank.open(bank.directory)
    for text in ("{", '{"format": 1}'):
        path.write_text(text)
        with pytest.raises(NotACollectionError, match="damaged"):
            FaceBank.open(bank.directory)


def test_another_object_sees_what_this_one_removes(bank, people, reader):
    bank.enroll(people)
    other = FaceBank.open(bank.directory, reader=reader)
    assert names(other, photograph(("ann", 60, 40, 80), seed=4)) == ["ann"]
    bank.remove(["ann"])
    assert other.persons() == {"bob": 3}
    assert names(other, photograph(("ann", 60, 40, 80), seed=4)) == [None]


def test_what_a_crash_left_is_swept_away(bank, people):
    bank.enroll(people)
    left = bank.directory / "faces-deadbeef"
    left.mkdir()
    (left / "vectors").write_bytes(b"somebody")
    bank.remove(["bob"])
    assert not left.exists()
    assert bank.persons() == {"ann": 3}


def _enroll_one(directory, person, seed):
    reader = FaceReader(SquareDetector(), ColorRecognizer(), progress=False, n_threads=1)
    bank = FaceBank.open(directory, reader=reader)
    bank._append(
        [
            (reading, reading.faces[0], person)
            for reading in reader.read_all([photograph((person, 60, 40, 80), seed=seed)])
        ]
    )


@pytest.mark.slow
def test_processes_enrol_side_by_side(bank):
    context = multiprocessing.get_context("spawn")
    jobs = [("ann", 1), ("bob", 2)]
    workers = [context.Process(target=_enroll_one, args=(bank.directory, *job)) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert bank.persons() == {"ann": 1, "bob": 1}


def test_a_bank_of_many_persons_keeps_the_shipped_calibration(bank, reader):
    """Calibrated on itself from 99 persons on, a bank named fewer faces at the same rate."""
    rng = np.random.default_rng(0)
    (reading,) = reader.read_all([photograph(("ann", 60, 40, 80))])
    rows = []
    for person in range(120):
        vector = rng.normal(size=16)
        face = replace(reading.faces[0], vector=(vector / np.linalg.norm(vector)).astype(np.float32))
        rows.append((replace(reading, id=f"{person:032}"), face, f"p{person}"))
    bank._append(rows)
    assert bank.identifier(0.01).threshold_.source == "background"


def earlier_bank(directory, people):
    """A bank that was written before faces were averaged with their mirror images."""

    class PlainReader(FaceReader):
        @property
        def fingerprint(self):
            own = super().fingerprint
            return replace(own, preprocessing={**own.preprocessing, "mirrored": False})

        def embed(self, image, detected):
            faces = super().embed(image, detected)
            return [replace(face, vector=np.roll(face.vector, 1)) for face in faces]

    plain = PlainReader(SquareDetector(), ColorRecognizer(), progress=False)
    bank = FaceBank.create(directory, reader=plain)
    bank.enroll(people)
    return bank


def test_an_earlier_bank_is_computed_again_from_its_images(tmp_path, people, reader):
    old = earlier_bank(tmp_path / "bank", people)
    bank = FaceBank.open(tmp_path / "bank", reader=reader)
    with pytest.raises(FingerprintMismatchError, match="mirrored.*nearsight faces upgrade"):
        list(bank.identify([photograph(("ann", 60, 40, 80))]))
    # Its table lacks a column that came later.
    with old._storage.writing():
        old._storage.replace_table(old._storage.table().drop_columns(["is_gray"]))
    assert bank.persons() == {"ann": 3, "bob": 3}
    assert not bank.faces()[0].is_gray
    before, old_vectors = old.vectors()
    assert bank.upgrade().faces == 6
    assert "is_gray" in bank._storage.table().schema.names
    after, vectors = bank.vectors()
    assert [(face.id, face.person, face.box) for face in after] == [
        (face.id, face.person, face.box) for face in before
    ]
    fresh = FaceBank.create(tmp_path / "fresh", reader=reader)
    fresh.enroll(people)
    faces, wanted = fresh.vectors()
    by_id = {face.id: vector for face, vector in zip(faces, wanted, strict=True)}
    np.testing.assert_allclose(vectors, [by_id[face.id] for face in after], atol=1e-6)
    assert names(bank, photograph(("ann", 60, 40, 80), seed=4)) == ["ann"]
    assert bank.upgrade().faces == 0
    # Nothing of the old vectors is left.
    assert not any(vector.tobytes() in every_byte(bank.directory) for vector in old_vectors)


def test_faces_whose_image_is_gone_are_dropped_only_on_request(tmp_path, people, reader):
    earlier_bank(tmp_path / "bank", people)
    (people / "ann" / "0.png").unlink()
    photograph(("bob", 20, 20, 90)).save(people / "ann" / "1.png")
    bank = FaceBank.open(tmp_path / "bank", reader=reader)
    with pytest.raises(InvalidParameterError, match=r"2 images.*0\.png.*2 of 6.*--drop-missing"):
        bank.upgrade()
    assert bank.persons() == {"ann": 3, "bob": 3}
    report = bank.upgrade(drop_missing=True)
    assert (report.faces, len(report.removed)) == (4, 2)
    assert bank.persons() == {"ann": 1, "bob": 3}


def test_faces_of_another_detector_are_not_computed_again(tmp_path, people, reader):
    class Other(SquareDetector):
        spec = replace(SquareDetector.spec, weights_sha256="1" * 64)

    FaceBank.create(tmp_path / "bank", reader=FaceReader(Other(), ColorRecognizer(), progress=False))
    with pytest.raises(FingerprintMismatchError, match="another detector"):
        FaceBank.open(tmp_path / "bank", reader=reader).upgrade()


def test_of_several_like_sized_faces_the_one_of_the_person_is_enrolled(bank, people, tmp_path):
    bank.enroll(people)
    party = tmp_path / "people" / "ann" / "party.png"
    photograph(("bob", 10, 20, 62), ("ann", 150, 30, 60), seed=9).save(party)
    report = bank.enroll(party)
    assert report.enrolled == {"ann": 1}
    (caution,) = report.cautions
    assert "matches the other images" in caution.text
    (face,) = [face for face in bank.faces("ann") if face.path.endswith("party.png")]
    np.testing.assert_allclose(face.box, (150, 30, 210, 90), atol=3)
    assert bank.enroll(party).already == 1


def test_the_person_is_enrolled_even_if_somebody_else_is_clearly_larger(bank, people, tmp_path):
    photograph(("bob", 10, 20, 95), ("ann", 150, 30, 50), seed=9).save(people / "ann" / "z.png")
    assert bank.enroll(people / "ann").enrolled == {"ann": 4}
    (face,) = [face for face in bank.faces("ann") if face.path.endswith("z.png")]
    assert face.box[0] > 140


def test_the_person_in_most_of_the_images_is_enrolled_where_each_shows_several(bank, tmp_path):
    folder = tmp_path / "people" / "ann"
    folder.mkdir(parents=True)
    for i, other in enumerate(("bob", "cy", "dee")):
        photograph((other, 10, 20, 62), ("ann", 150, 30, 60), seed=i).save(folder / f"{i}.png")
    assert bank.enroll(folder).enrolled == {"ann": 3}
    assert all(face.box[0] > 140 for face in bank.faces("ann"))


def test_a_couple_that_is_in_all_images_together_is_skipped(bank, tmp_path):
    folder = tmp_path / "people" / "ann"
    folder.mkdir(parents=True)
    for i in range(3):
        photograph(("bob", 10, 20, 62), ("ann", 150, 30, 60), seed=i).save(folder / f"{i}.png")
    report = bank.enroll(folder)
    assert (report.enrolled, report.skipped) == ({}, {"with several faces of similar size": 3})


@pytest.mark.parametrize(("second", "reason"), [("ann", "2 match the other"), ("cy", "crop it")])
def test_images_in_which_the_person_is_not_clear_are_skipped(bank, people, second, reason):
    bank.enroll(people)
    first = "ann" if second == "ann" else "bob"
    image = photograph((first, 10, 20, 62), (second, 150, 30, 60), seed=9)
    report = bank.enroll([image], name="ann")
    assert report.skipped == {"with several faces of similar size": 1}
    assert reason in report.failed[0].reason


def test_a_face_found_by_scan_is_enrolled_and_not_called_enrolled_already(bank, people):
    bank.scan(people)
    report = bank.enroll(people)
    assert (report.enrolled, report.already) == ({"ann": 3, "bob": 3}, 0)
    assert bank.persons() == {"ann": 3, "bob": 3}
    assert bank.faces("") == []


def test_a_face_that_has_another_name_already_is_told(bank, people):
    bank.enroll(people)
    report = bank.enroll(people / "ann", name="zoe")
    assert (report.enrolled, report.already) == ({}, 3)
    assert "is enrolled as ann already, not as zoe" in report.cautions[0].text


def test_two_faces_of_one_image_never_get_the_same_name_silently(bank, people):
    bank.enroll(people)
    (found,) = bank.identify(
        [photograph(("ann", 10, 20, 60), ("ann", 150, 30, 60), ("bob", 90, 100, 40), seed=3)]
    )
    by_box = {round(face.face.box[0], -1): face for face in found.faces}
    ann = sorted((by_box[10], by_box[150]), key=lambda face: -face.similarity)
    assert [face.person for face in ann] == ["ann", "ann"]
    assert [(face.ambiguous, face.doubt) for face in ann] == [(False, ""), (True, "same image")]
    assert (by_box[90].person, by_box[90].ambiguous) == ("bob", False)


def test_a_group_joins_a_person_as_a_whole_or_not_at_all(bank, reader):
    """Two faces of a group of five are above the threshold by themselves, and their mean is not."""
    (reading,) = reader.read_all([photograph(("ann", 60, 40, 80))])
    e = np.eye(16)

    def row(number, vector, person=""):
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        face = replace(reading.faces[0], vector=vector)
        return replace(reading, id=f"{number:032}"), face, person

    bank._append([row(100, e[0], "zoe")])
    limit = bank.identifier().threshold_.value
    angles = {"near": np.arccos(limit) - 0.02, "far": np.arccos(limit) + 0.02}
    for start, parts, joins in ((0, 2 * ["near"] + 3 * ["far"], False), (10, 3 * ["near"] + ["far"], True)):
        other = e[1] if start == 0 else e[2]
        bank._append(
            [
                row(start + i, np.cos(angles[part]) * e[0] + np.sin(angles[part]) * other + 0.01 * e[3 + i])
                for i, part in enumerate(parts)
            ]
        )
        groups = bank.group()
        (zoe,) = [group for group in groups if group.person == "zoe"]
        assert len(zoe.faces) == 1 + (len(parts) if joins else 0)


def test_names_of_persons_compare_by_form_c(bank, people):
    nfc, nfd = (unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD"))
    (people / "ann").rename(people / nfd)
    (people / "bob").rename(people / nfc)
    bank.enroll(people)
    assert bank.persons() == {nfc: 6}
    assert bank.rename(nfd, "Ann") == 6
    assert bank.rename("Ann", nfd) == 6
    assert bank.remove([nfd]) == 6
