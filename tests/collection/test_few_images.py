"""What each job does with no image, one, two, and images that are all the same: as its docstring says."""

import pytest
from PIL import Image

from nearsight import Collection
from nearsight.errors import InvalidParameterError, NearsightError

from fake import FakeBackend


@pytest.fixture
def of(tmp_path):
    def made(n, *, same=False):
        folder = tmp_path / "images"
        folder.mkdir()
        for i in range(n):
            # Of another size, a plain image has other bytes and the same vector.
            color = (90, 90, 90) if same else (40 + 60 * (i % 3), 200 - 30 * (i % 5), 7 * i % 250)
            Image.new("RGB", (20 + i, 20), color).save(folder / f"{i:02}.png")
        collection = Collection.create(tmp_path / "c", model=FakeBackend())
        if n:
            collection.add(folder)
        return collection

    return made


def test_without_images(of):
    empty = of(0)
    found = empty.cluster()
    assert (found.clusters, found.noise) == ([], [])
    assert empty.predict_clusters(found).clusters == []
    assert (empty.find_duplicates().groups, empty.outliers(), empty.suggest_labels()) == ([], [], [])
    for refused in (
        lambda: empty.cluster(1),
        empty.layout_2d,
        lambda: empty.segment_customers([("ann", "a.png", 1)]),
        lambda: empty.recommend("0000"),
        lambda: empty.fit_recommender({"1": ["a"]}),
        lambda: empty.fit_classifier({}),
    ):
        with pytest.raises(NearsightError):
            refused()


def test_one_image(of):
    alone = of(1)
    (id,) = [item.id for item in alone.items()]
    assert alone.cluster().noise == [id]
    assert alone.cluster(1).clusters[0].ids == [id]
    assert alone.find_duplicates().groups == []
    assert [one.distance for one in alone.outliers()] == [0.0]
    assert alone.layout_2d(method="pca").positions.tolist() == [[0.0, 0.0]]
    assert alone.recommend(id).items == []
    assert alone.recommend(id, baskets={"1": [id]}).items == []
    assert len(alone.segment_customers([("ann", id, 1)]).segments) == 1
    assert [p.id for p in alone.suggest_labels()] == [id]
    with pytest.raises(InvalidParameterError, match="at least two classes"):
        alone.fit_classifier({id: "cat"})


def test_two_images(of):
    pair = of(2)
    one, other = (item.id for item in pair.items())
    assert sorted(pair.cluster().noise) == sorted([one, other])
    assert len(pair.cluster(2).clusters) == 2
    with pytest.raises(InvalidParameterError, match="k is 3"):
        pair.cluster(3)
    assert [s.id for s in pair.recommend(one).items] == [other]
    assert len({a.distance for a in pair.outliers()}) == 1
    assert len(pair.layout_2d(method="pca").ids) == 2


def test_images_that_are_all_the_same(of):
    same = of(30, same=True)
    ids = [item.id for item in same.items()]
    for k in (None, 3):
        found = same.cluster(k)
        assert [len(c.ids) for c in found.clusters] == [30]
        assert len(same.predict_clusters(found).clusters[0].ids) == 30
    # Without any detail, nothing confirms that they are copies.
    assert same.find_duplicates().groups == []
    assert max(one.distance for one in same.outliers()) < 1e-3
    places = same.layout_2d(method="pca").positions
    assert abs(places - places[0]).max() < 1e-3
    assert all(s.score > 0.999 for s in same.recommend(ids[0]).items)
    assert len(same.segment_customers([(f"{i}", id, 1) for i, id in enumerate(ids)]).segments) == 1
    same.fit_classifier(dict(zip(ids, ["gray", "grey"] * 15, strict=True)))
    assert {p.label for p in same.classify()} <= {"gray", "grey"}
