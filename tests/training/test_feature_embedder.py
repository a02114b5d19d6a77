"""Each view of an image passes through the network once, for near-duplicates and for training."""

import numpy as np
import pytest

from nearsight import Collection
from nearsight.errors import FingerprintMismatchError
from nearsight.images import Exclusions
from nearsight.progress import steps, told_to
from nearsight.services.training import labeled_images, n_steps
from nearsight.training import feature_embedder, train
from nearsight.training.augmentation import ViewsBackend
from nearsight.training.network_features import FeatureNetwork


@pytest.fixture
def folder(stripes, tmp_path):
    """Return two classes of six images to learn from, one of them twice, and two to judge."""
    for number in range(2):
        for image in range(8):
            split = "test" if image >= 6 else "train"
            target = tmp_path / "images" / split / str(number) / f"{image}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((stripes / f"class {number}" / f"{image}.png").read_bytes())
    (tmp_path / "images/train/0/copy.png").write_bytes((tmp_path / "images/train/0/1.png").read_bytes())
    (tmp_path / "images/train/0/broken.png").write_bytes(b"no image")
    return tmp_path / "images"


def test_no_view_is_embedded_twice_and_the_model_is_the_same(folder, small_network, monkeypatch):
    n_views, opened = [], []
    embed, backend = ViewsBackend.embed, FeatureNetwork.backend

    def counted(self, prepared):
        n_views.append(sum(len(views) for views in prepared))
        return embed(self, prepared)

    monkeypatch.setattr(ViewsBackend, "embed", counted)
    monkeypatch.setattr(FeatureNetwork, "backend", lambda network: opened.append(1) or backend(network))
    monkeypatch.setattr("nearsight.services.collections.load_model", lambda *_, **__: opened.append(2))
    embedder = feature_embedder(small_network, "products", 3, progress=False)
    labeled, groups = labeled_images(folder, None, Exclusions(), embedder=embedder, progress=False)
    options = {"model": small_network, "augment": "products", "n_views": 3, "progress": False}
    result = train(labeled, groups, embedder=embedder, **options)
    assert opened == [1]
    # Twelve images with three views; of the four that judge, nothing is learned.
    # A copy that is read at the same time as its original is not known yet.
    assert sum(n_views) in (12 * 3 + 4, 13 * 3 + 4)
    assert [failure.path.endswith("broken.png") for failure in result.failed] == [True]
    assert (result.n_fitted, result.n_test) == (13, 4)
    again = train(labeled, groups, **options)
    np.testing.assert_array_equal(again.map.components, result.map.components)
    monkeypatch.undo()
    _, without = labeled_images(folder, None, Exclusions(), progress=False)
    kept = [row for row, path in enumerate(labeled.paths) if not path.endswith("broken.png")]
    same = [np.equal.outer(numbers[kept], numbers[kept]) for numbers in (groups, without)]
    np.testing.assert_array_equal(*same)


def test_a_training_is_one_sequence_of_steps(folder, small_network):
    told = []
    with told_to(lambda text, *_: told.append(text)), steps(n_steps("head", model=small_network)):
        embedder = feature_embedder(small_network)
        labeled, groups = labeled_images(folder, None, Exclusions(), embedder=embedder)
        train(labeled, groups, model=small_network, embedder=embedder)
    shown = list(dict.fromkeys(told))
    numbers = [text.partition(":")[0] for text in shown]
    last = len({*numbers})
    assert shown[0] == f"step 1 of {last}: embedding images"
    assert shown[-1] == f"step {last} of {last}: choosing settings"
    assert len(numbers) == last


def test_a_collection_takes_no_vectors_of_another_model(folder, small_network, tmp_path):
    collection = Collection.create(tmp_path / "collection")
    embedder = feature_embedder(small_network, progress=False).vector_embedder()
    with pytest.raises(FingerprintMismatchError, match="holds vectors of efficientnet-lite0"):
        collection.add(folder, embedder=embedder)
