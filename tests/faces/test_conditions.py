import numpy as np
import pytest
from fake_faces import album, photograph

from nearsight.faces import FaceBank
from nearsight.faces.conditions import BankConditions


@pytest.fixture
def bank(tmp_path, reader):
    bank = FaceBank.create(tmp_path / "bank", reader=reader)
    bank.enroll(album(tmp_path / "people"))
    return bank


def differs(bank, image):
    (found,) = bank.identify([image])
    return [face.differs for face in found.faces]


def test_what_no_enrolled_face_is_is_told(bank):
    assert differs(bank, photograph(("ann", 60, 40, 80), seed=5)) == [()]
    assert differs(bank, photograph(("ann", 60, 40, 18), seed=5)) == [("small",)]
    gray = photograph(("ann", 60, 40, 80), seed=5).convert("L").convert("RGB")
    assert differs(bank, gray) == [("gray",)]


def test_what_one_enrolled_face_is_is_not_told(bank):
    bank.enroll([photograph(("ann", 60, 40, 18), seed=8)], name="ann")
    assert differs(bank, photograph(("ann", 60, 40, 18), seed=5)) == [()]


def test_color_is_told_where_all_enrolled_faces_are_gray(tmp_path, reader):
    bank = FaceBank.create(tmp_path / "gray", reader=reader)
    gray = photograph(("ann", 60, 40, 80), seed=5).convert("L").convert("RGB")
    bank.enroll([gray], name="ann")
    assert differs(bank, photograph(("ann", 60, 40, 80), seed=6)) == [("in color",)]
    assert differs(bank, gray) == [()]


def test_faces_without_a_name_do_not_count(bank, reader):
    bank.scan([photograph(("cy", 60, 40, 18), seed=5)])
    assert BankConditions.of(bank.faces()).problems == frozenset()
    assert np.all([not face.is_gray for face in bank.faces()])


def test_an_empty_bank_has_nothing_to_differ_from(tmp_path, reader):
    bank = FaceBank.create(tmp_path / "empty", reader=reader)
    assert differs(bank, photograph(("ann", 60, 40, 18))) == [()]
