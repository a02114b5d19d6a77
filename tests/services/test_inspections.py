"""What a detector scored and what was decided is kept, and a refit keeps the rate that somebody chose."""

import os

import numpy as np
import pytest
from PIL import Image

from nearsight.anomaly import AnomalyResult
from nearsight.errors import DetectorFileError, InvalidParameterError, UnknownIdError
from nearsight.estimators.conformal import from_good
from nearsight.images import content_id
from nearsight.services import inspections
from nearsight.services.inspection_documents import effect_document
from nearsight.services.inspections import Inspection
from nearsight.services.whole_files import Stamp


class FittedDetector:
    """What an inspection needs of a detector."""

    def __init__(self, good_scores, rate=0.1):
        self.good_scores_ = np.array(good_scores, float)
        self.threshold_ = from_good(self.good_scores_, false_alarm_rate=rate)

    def save(self, path):
        path.write_bytes(b"detector")


FACTS = {"source": {"shown": {}}, "options": {}, "fit": {}}


@pytest.fixture
def inspection(tmp_path):
    inspection = Inspection(tmp_path / "detector")
    inspection.save(FittedDetector(range(19)), FACTS)  # threshold 17
    return inspection


def add(inspection, path, score, content=None, revision=1):
    data = (content or path).encode()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    result = AnomalyResult(
        path,
        score,
        0,
        True,
        {"places": score},
        np.eye(300, 200, dtype=np.float32),
        Image.new("RGB", (200, 300)),
    )
    inspection.add(content_id(data), result, revision, Stamp(len(data), round(score * 10)))
    return content_id(data)


def test_a_verdict_counts_before_the_threshold_and_survives(inspection, tmp_path):
    ids = [add(inspection, f"{tmp_path}/{n}.png", n) for n in (10, 16, 18, 20)]
    assert [image["id"] for image in inspection.images(side="defect")[0]] == [ids[3], ids[2]]
    assert inspection.decide([ids[3]], "good") == inspection.decide([ids[0]], "defect") == 1
    assert inspection.decide([ids[3]], "good") == 0
    again = Inspection(inspection.directory)
    assert [image["id"] for image in again.images(side="defect")[0]] == [ids[2], ids[0]]
    counts = again.counts()
    assert (counts["false_alarms"], counts["missed"], counts["undecided"]) == (1, 1, 2)
    assert again.confirmed("good") == [ids[3]]
    # A file that was confirmed as good may go; another may not.
    for n in (10, 20):
        os.unlink(tmp_path / f"{n}.png")
    assert again.content(ids[3])[1] == f"{tmp_path}/20.png".encode()
    assert again.content(ids[0]) is None
    with pytest.raises(UnknownIdError):
        again.decide([ids[0], "0" * 32], "good")
    with pytest.raises(InvalidParameterError):
        again.decide(ids, "nice")


def test_the_effect_of_a_threshold_is_that_of_a_naive_count(inspection, tmp_path):
    rng = np.random.default_rng(0)
    scores = dict(enumerate(np.round(rng.uniform(0, 25, 30), 1).tolist()))
    ids = {n: add(inspection, f"{tmp_path}/{n}.png", score) for n, score in scores.items()}
    for at in (-1.0, 5.0, 16.999, 17.0, 20.5, *scores.values()):
        effect = effect_document(inspection, at)
        before, after = ({ids[n] for n, s in scores.items() if s > value} for value in (17.0, at))
        assert set(effect["become_good"]) == before - after
        assert set(effect["become_defects"]) == after - before
        assert effect["images_above"] == len(after)
        inspection.set_threshold(at)
        assert inspection.counts()["defects"] == len(after)
        inspection.set_threshold(None)


@pytest.mark.parametrize(("chosen", "kept"), [(None, 170), (14.5, 140), (17.0, 170), (500.0, 500)])
def test_a_refit_keeps_the_rate_that_somebody_chose(inspection, chosen, kept):
    """The new scores are ten times the old ones, so equal ranks are equal rates."""
    inspection.set_threshold(chosen)
    assert inspection.save(FittedDetector(range(0, 190, 10)), FACTS) == 2
    assert inspection.threshold().value == kept
    assert [file.name for file in inspection.directory.glob("*.npz")] == ["detector-2.npz"]


def test_a_file_that_is_written_anew_replaces_its_image(inspection, tmp_path, strange):
    path = f"{tmp_path}/{strange}"
    old = add(inspection, path, 1.0, "old")
    new = add(inspection, path, 2.0, "new")
    assert not inspection.has(old)
    assert inspection.image(new)["path"] == path
    assert inspection.known_files() == {path: Stamp(3, 20)}
    # What somebody decided about stays; so does what another file holds.
    inspection.decide([new], "defect")
    newest = add(inspection, path, 3.0, "newest")
    assert inspection.has(new)
    inspection.add_file(f"{tmp_path}/moved.png", Stamp(6, 1), id=newest)
    assert inspection.image(newest)["path"] == f"{tmp_path}/moved.png"
    inspection.add_file(f"{tmp_path}/bad.png", Stamp(1, 1), reason="is cut off")
    assert inspection.failures() == [{"path": f"{tmp_path}/bad.png", "reason": "is cut off"}]


def test_the_oldest_images_without_a_decision_are_forgotten(inspection, tmp_path, monkeypatch):
    monkeypatch.setattr(inspections, "MOST_UNDECIDED", 3)
    ids = [add(inspection, f"{tmp_path}/{n}.png", n) for n in range(2)]
    inspection.decide(ids[:1], "good")
    ids += [add(inspection, f"{tmp_path}/{n}.png", n) for n in range(2, 6)]
    assert {image["id"] for image in inspection.images()[0]} == {ids[0], *ids[3:]}


def test_a_heatmap_is_kept_small_and_in_its_unit(inspection, tmp_path):
    heat = inspection.heatmap(add(inspection, f"{tmp_path}/a.png", 1))
    assert heat.shape == (128, 85)
    assert heat.mean() == pytest.approx(np.eye(300, 200).mean(), rel=0.01)


def test_without_a_detector_the_error_says_what_to_do(tmp_path):
    with pytest.raises(DetectorFileError, match="fit it again"):
        Inspection(tmp_path / "none").facts()
