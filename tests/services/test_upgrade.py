"""An upgrade that compares first."""

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses.clusters import Clustering
from nearsight.artifacts import write_artifact
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, ParityError
from nearsight.services import upgrade as service
from nearsight.services.upgrade import roll_back, upgrade
from nearsight.training import content_digest

from fake import FakeBackend


class Blind(FakeBackend):
    """Sees noise, the same each time."""

    def embed(self, prepared):
        seeds = [int(abs(float(p.sum())) * 1e6) for p in prepared]
        return np.stack([np.random.default_rng(seed).standard_normal(64) for seed in seeds]).astype(
            np.float32
        )


@pytest.fixture
def models(monkeypatch):
    models = {"fake": FakeBackend(0), "other": FakeBackend(1), "blind": Blind(2)}
    monkeypatch.setattr(service, "load_model", lambda name, **_: models[name])
    return models


@pytest.fixture
def collection(tmp_path, models):
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    y, x = np.mgrid[0:24, 0:24]
    for name, wave in (("level", y), ("upright", x), ("slanting", x + y)):
        for number in range(20):
            pixels = 128 + 100 * np.sin(wave / 3 + rng.uniform(0, 0.5)) + rng.normal(0, 20, (24, 24))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{name} {number}.png")
    collection = Collection.create(tmp_path / "c", model=models["fake"], cache_dir=tmp_path / "cache")
    collection.add(folder, progress=False)
    return collection


def labels(collection):
    return {item.id: item.path.rpartition("/")[2].split()[0] for item in collection.items()}


def test_a_sample_foretells_and_changes_nothing(collection, monkeypatch):
    monkeypatch.setattr(service, "_MIN_SAMPLED", 30)
    report = upgrade(collection, "other", labels=labels(collection), only_sample=True, progress=False)
    assert (report.n_images, report.n_embedded, report.switched) == (60, 30, False)
    assert report.comparison.n_images == 30
    assert 0 < report.comparison.overlap.value <= 1
    assert report.expected_seconds > 0
    assert report.new_bytes == 60 * 64 * 4
    assert Collection.open(collection.directory).fingerprint == collection.fingerprint
    # What the sample embedded is not embedded again.
    whole = upgrade(collection, "other", labels=labels(collection), progress=False)
    assert (whole.n_embedded, whole.switched) == (30, True)
    assert whole.comparison.recall is not None


def test_an_upgrade_names_the_way_to_centered_vectors(collection):
    remedy = "upgrade --to other, and then nearsight reduce-dim --center --out DIR"
    with pytest.raises(InvalidParameterError, match=remedy):
        upgrade(collection, "other#centered", progress=False)
    assert not (collection.directory / "upgrade.json").exists()


def test_a_model_that_is_worse_by_labels_is_refused(collection, models):
    with pytest.raises(ParityError, match=r"blind is worse on your labels: recall@1 -0\.[0-9]+.*--force"):
        upgrade(collection, "blind", labels=labels(collection), progress=False)
    assert Collection.open(collection.directory).fingerprint == models["fake"].spec.fingerprint
    report = upgrade(collection, "blind", labels=labels(collection), allow_worse=True, progress=False)
    assert report.switched
    assert report.comparison.is_worse


def test_images_that_a_model_learned_from_are_not_searched_for(collection, models, tmp_path):
    names = labels(collection)
    seen = [item for item in collection.items() if item.path.endswith("9.png")]
    model = tmp_path / "model"
    model.mkdir()
    (model / "learned-images.txt").write_text("".join(f"{content_digest(item.path)}\n" for item in seen))
    models[f"dir:{model}"] = models["blind"]
    with pytest.raises(ParityError, match="is worse on your labels"):
        upgrade(collection, f"dir:{model}", labels=names, progress=False)
    run = service.Upgrade(collection, models["blind"], model=f"dir:{model}")
    _, *others = names
    comparison = service.compare_models(run, names, set(others))
    assert (comparison.n_learned, comparison.old_recall in (0, 1)) == (59, True)
    comparison = service.compare_models(run, names, set(names))
    assert (comparison.n_learned, comparison.recall, comparison.is_worse) == (60, None, False)
    report = upgrade(
        collection, f"dir:{model}", labels={item.id: names[item.id] for item in seen}, progress=False
    )
    assert report.switched
    assert (report.comparison.n_learned, report.comparison.recall) == (6, None)


def test_an_upgrade_that_was_killed_while_it_refitted_is_finished_by_the_same_call(
    collection, models, monkeypatch
):
    collection.fit_classifier(labels(collection), progress=False)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(service, "refit", killed)
        with pytest.raises(KeyboardInterrupt):
            upgrade(collection, "other", progress=False)
    new = Collection.open(collection.directory, model=models["other"])
    with pytest.raises(FingerprintMismatchError):
        new.classify()
    report = upgrade(new, "other", progress=False)
    assert (report.switched, report.n_embedded, report.old_model) == (True, 0, "fake")
    assert [path.name for path in report.refitted] == ["classifier.npz"]
    assert len(list(new.classify())) == 60
    with pytest.raises(FingerprintMismatchError, match="holds vectors of fake already"):
        upgrade(new, "other", only_sample=True, progress=False)


def test_fitted_files_are_refitted_where_they_keep_their_inputs_else_listed(collection, models):
    wanted = labels(collection)
    directory = collection.directory
    collection.fit_classifier(wanted, progress=False)
    collection.layout_2d(method="pca", progress=False)
    clusters = collection.cluster(3, words=[], progress=False)
    clusters.save(directory / "clusters.npz")
    ids = sorted(wanted)
    baskets = {str(n): [ids[n], ids[n + 1], ids[(n * 7) % 50]] for n in range(40)}
    (directory / "baskets").mkdir()
    collection.fit_recommender(baskets, progress=False).save(directory / "baskets" / "shop.npz")
    for name, backend in (("segments.npz", models["fake"]), ("new.npz", models["other"])):
        facts = {"fingerprint": backend.spec.fingerprint.to_dict()}
        write_artifact(directory / name, "segmentation", 1, facts, {"x": np.zeros(1)})
    report = upgrade(collection, "other", progress=False)
    assert {path.name for path in report.refitted} == {
        "classifier.npz",
        "clusters.npz",
        "map.npz",
        "shop.npz",
    }
    [stale] = report.stale
    assert (stale.path.name, stale.command) == (
        "segments.npz", "nearsight segment-customers CSV --to FILE.npz"
    )  # fmt: skip
    new = Collection.open(directory, model=models["other"])
    right = [p.label == wanted[p.id] for p in new.classify()]
    assert np.mean(right) > 0.9
    assert len(new.layout_2d(progress=False).ids) == 60
    again = new.predict_clusters(Clustering.load(directory / "clusters.npz"), progress=False)
    assert [sorted(c.ids) for c in again.clusters] == [sorted(c.ids) for c in clusters.clusters]
    assert new.load_recommender(directory / "baskets" / "shop.npz").n_baskets == 40
    # An interrupted upgrade leaves old files; --commit and rollback refit them.
    done = roll_back(directory)
    back, report = done.collection, done.report
    assert not done.was_done
    assert roll_back(directory).was_done
    assert {path.name for path in report.refitted} == {
        "classifier.npz",
        "clusters.npz",
        "map.npz",
        "shop.npz",
    }
    assert back.fingerprint == models["fake"].spec.fingerprint
    assert back.load_recommender(directory / "baskets" / "shop.npz").n_baskets == 40
