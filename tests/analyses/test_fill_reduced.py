"""`fill_reduced`: a collection of shorter vectors in one call, whatever interrupts it."""

import json
import threading

import numpy as np
import pytest
from models.layouts import write_layout
from PIL import Image

from nearsight import Collection
from nearsight.analyses import dimension_reduction
from nearsight.analyses.dimension_reduction import fill_reduced
from nearsight.collection import manifest
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, NotACollectionError
from nearsight.store import locate


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(12):
        pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((60, 45), Image.Resampling.BICUBIC).save(folder / f"{seed:02}.png")
    return folder


def adding(photos, **how):
    return lambda collection: collection.add(photos, progress=False, **how)


@pytest.mark.slow
def test_is_what_projecting_afterwards_makes(tmp_path, photos):
    report = fill_reduced(tmp_path / "c", 5, adding(photos, metadata={"a": 1}))
    assert report.added == report.embedded == 12
    made = Collection.open(tmp_path / "c")
    full = Collection.create(tmp_path / "full")
    full.add(photos)
    full.reduce_dim(5, tmp_path / "two-steps")
    other = Collection.open(tmp_path / "two-steps")
    ids = [item.id for item in full.items()]
    np.testing.assert_allclose(made.vectors(ids), other.vectors(ids), atol=1e-5)
    assert made.fingerprint == other.fingerprint
    assert all(item.metadata == {"a": 1} for item in made.items())
    assert not (tmp_path / "c" / manifest.FULL).exists()


def test_more_images_are_embedded_and_projected(tmp_path, photos):
    fill_reduced(tmp_path / "c", 5, adding([photos / f"{i:02}.png" for i in range(8)]))
    report = fill_reduced(tmp_path / "c", 5, adding(photos), model="efficientnet-lite0")
    assert (report.added, report.unchanged) == (4, 8)
    collection = Collection.open(tmp_path / "c")
    assert len(collection) == 12
    [best, *_] = collection.search(photos / "10.png")
    assert best.path.endswith("10.png")
    assert best.similarity == pytest.approx(1, abs=1e-4)


def test_too_few_images_are_kept_for_the_next_call(tmp_path, photos):
    with pytest.raises(InvalidParameterError, match=r"13 are needed.*The embedded images are kept"):
        fill_reduced(tmp_path / "c", 12, adding(photos))
    with pytest.raises(NotACollectionError, match="goes on from there"):
        Collection.open(tmp_path / "c")
    with pytest.raises(NotACollectionError, match="goes on from there"):
        Collection.create(tmp_path / "c")
    report = fill_reduced(tmp_path / "c", 11, adding(photos))
    assert (report.embedded, report.unchanged) == (0, 12)
    assert Collection.open(tmp_path / "c").spec.dim == 11


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["while filling", "before the manifest", "before tidying"])
def test_goes_on_from_whatever_moment(tmp_path, photos, monkeypatch, moment):
    directory = tmp_path / "c"

    def filling(collection):
        report = collection.add(photos)
        if moment == "while filling":
            raise StoppedError
        return report

    with monkeypatch.context() as patched:
        if moment == "before the manifest":
            write = manifest.CollectionManifest.write

            def stopping(self, where):
                if locate(where).files == directory:
                    raise StoppedError
                write(self, where)

            patched.setattr(manifest.CollectionManifest, "write", stopping)
        if moment == "before tidying":

            def stop(*_, **__):
                raise StoppedError

            # The last step of all.
            real = dimension_reduction.shutil.rmtree
            patched.setattr(
                dimension_reduction.shutil,
                "rmtree",
                lambda path, **how: stop() if path.name == manifest.FULL else real(path, **how),
            )
        with pytest.raises(StoppedError):
            fill_reduced(directory, 5, filling)
    report = fill_reduced(directory, 5, adding(photos))
    assert (report.embedded, report.unchanged) == (0, 12)
    collection = Collection.open(directory)
    assert len(collection) == 12
    assert collection.spec.dim == 5
    assert not (directory / manifest.FULL).exists()


def test_two_at_once_take_turns(tmp_path, photos):
    reports = []

    def work(start):
        some = [photos / f"{i:02}.png" for i in range(start, start + 8)]
        reports.append(fill_reduced(tmp_path / "c", 5, adding(some)))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    assert len(Collection.open(tmp_path / "c")) == 12


def test_what_is_there_keeps_its_length_model_and_storage(tmp_path, photos):
    fill_reduced(tmp_path / "c", 5, adding(photos), storage="float16")
    with pytest.raises(InvalidParameterError, match=r"holds vectors of 5 numbers, not 6.*--out DIR"):
        fill_reduced(tmp_path / "c", 6, adding(photos))
    with pytest.raises(InvalidParameterError, match="stores its vectors as float16, not float32"):
        fill_reduced(tmp_path / "c", 5, adding(photos), storage="float32")
    with pytest.raises(FingerprintMismatchError, match="not of efficientnet-lite0#layer=block9"):
        fill_reduced(tmp_path / "c", 5, adding(photos), model="efficientnet-lite0#layer=block9.add")
    Collection.create(tmp_path / "full")
    with pytest.raises(InvalidParameterError, match="holds vectors of 1280 numbers, not 5"):
        fill_reduced(tmp_path / "full", 5, adding(photos))


def test_a_model_that_can_be_cut_is_cut(tmp_path, photos):
    folder = write_layout(tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "matryoshka_dimensions": [2]}))
    for _ in range(2):
        fill_reduced(tmp_path / "c", 4, adding(photos), model=f"dir:{folder}")
    collection = Collection.open(tmp_path / "c")
    assert collection.spec.id == f"dir:{folder}#dim=4"
    assert len(collection) == 12
    with pytest.raises(FingerprintMismatchError):
        fill_reduced(tmp_path / "c", 4, adding(photos), model="efficientnet-lite0")


def test_other_places_are_left_alone(tmp_path, photos):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(NotACollectionError, match="not empty"):
        fill_reduced(tmp_path, 5, adding(photos))
    with pytest.raises(NotACollectionError, match="is a file"):
        fill_reduced(tmp_path / "mine.txt", 5, adding(photos))


@pytest.mark.slow
@pytest.mark.parametrize(
    "leftovers",
    [
        ("write.lock",),
        ("build.lock",),
        ("build.lock", "full/"),
        ("build.lock", "full/write.lock", "full/store/"),
    ],
)
def test_what_any_step_left_is_no_hindrance(tmp_path, photos, leftovers):
    for name in leftovers:
        path = tmp_path / "c" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    assert fill_reduced(tmp_path / "c", 5, adding(photos)).added == 12
    assert Collection.open(tmp_path / "c").spec.dim == 5
