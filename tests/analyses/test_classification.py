"""Labels from a few pictures: what a collection keeps, refuses and suggests."""

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses.classification import Classifier, labels_by_folder, labels_by_key
from nearsight.errors import FingerprintMismatchError, InvalidParameterError
from nearsight.estimators.classification import FewShotClassifier

from fake import FakeBackend


def paint(folder, colour, n, seed=0):
    """Pictures of one colour, each a little different."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *colour])
    paths = []
    for i in range(n):
        pixels = np.clip(np.array(colour) + rng.integers(-25, 26, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        paths.append(str(folder / f"{i}.png"))
    return paths


COLOURS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    for name, colour in COLOURS.items():
        paint(folder / "known" / name, colour, 10)
        paint(folder / "more" / name, colour, 3, seed=1)
    return folder


@pytest.fixture
def collection(pictures, tmp_path):
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(pictures / "known", metadata=lambda path: {"colour": path.split("/")[-2]})
    return made


def test_labels_of_the_collections_own_pictures(collection):
    by_folder = labels_by_folder(collection)
    assert by_folder == labels_by_key(collection, "colour")
    made = collection.fit_classifier(by_folder)
    assert made.counts == {"blue": 10, "green": 10, "red": 10}
    found = list(collection.classify())
    assert {p.id: p.label for p in found} == by_folder
    assert [p.path for p in found] == [item.path for item in collection.items()]
    assert {p.label for p in collection.classify(where="colour = 'red'")} == {"red"}


def test_is_what_the_estimator_says_of_the_same_vectors(collection):
    labels = labels_by_folder(collection)
    collection.fit_classifier(labels)
    ids = list(labels)
    plain = FewShotClassifier().fit(collection.vectors(ids), [labels[id] for id in ids])
    p = plain.predict_proba(collection.vectors(ids)).max(1)
    found = {prediction.id: prediction for prediction in collection.classify()}
    np.testing.assert_allclose([found[id].probability for id in ids], p, atol=1e-9)
    assert [found[id].unknown for id in ids] == plain.unknown(collection.vectors(ids)).tolist()


def test_pictures_that_are_not_in_the_collection(collection, pictures):
    n = len(collection)
    inside = {item.path: item.path.split("/")[-2] for item in collection.items()}
    outside = {str(path): path.parent.name for path in (pictures / "more").rglob("*.png")}
    made = collection.fit_classifier(inside | outside)
    assert made.counts == {"blue": 13, "green": 13, "red": 13}
    assert len(collection) == n
    alone = collection.fit_classifier(outside)
    assert {p.label for p in collection.classify(where="colour = 'green'")} == {"green"}
    assert set(alone.ids).isdisjoint(item.id for item in collection.items())


def test_a_copy_of_a_picture_counts_once(collection, pictures, tmp_path):
    original = pictures / "known/red/0.png"
    (tmp_path / "copy.png").write_bytes(original.read_bytes())
    labels = labels_by_folder(collection)
    assert collection.fit_classifier({**labels, str(tmp_path / "copy.png"): "red"}).counts["red"] == 10
    with pytest.raises(InvalidParameterError, match="is labelled 'pink', and the very same picture 'red'"):
        collection.fit_classifier({**labels, str(tmp_path / "copy.png"): "pink"})


def test_shots(collection):
    labels = labels_by_folder(collection)
    made = collection.fit_classifier(labels, shots=2)
    assert made.counts == {"blue": 2, "green": 2, "red": 2}
    assert collection.fit_classifier(labels, shots=2).ids == made.ids
    assert collection.fit_classifier(labels, shots=2, random_state=1).ids != made.ids
    with pytest.raises(InvalidParameterError, match="shots is 0"):
        collection.fit_classifier(labels, shots=0)


def test_a_bad_picture_among_the_labelled_is_named(collection, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    labels = {**labels_by_folder(collection), str(tmp_path / "bad.png"): "red"}
    made = collection.fit_classifier(labels)
    assert [failure.path for failure in made.failed] == [str(tmp_path / "bad.png")]
    assert made.counts["red"] == 10
    with pytest.raises(InvalidParameterError, match="no picture with a label was found"):
        collection.fit_classifier({str(tmp_path / "bad.png"): "red"})


def test_a_file_says_the_same_anywhere(collection, tmp_path):
    made = collection.fit_classifier(labels_by_folder(collection), file=tmp_path / "f.npz")
    assert not (collection.directory / "classifier.npz").exists()
    again = Classifier.load(tmp_path / "f.npz")
    assert (again.ids, again.counts, again.fingerprint) == (made.ids, made.counts, made.fingerprint)
    X = collection.vectors(made.ids)
    names = [""] * len(X)
    assert again.predict(X, made.ids, names) == made.predict(X, made.ids, names)
    assert list(collection.classify(file=tmp_path / "f.npz"))


def test_vectors_of_another_model_are_refused(collection, pictures, tmp_path):
    collection.fit_classifier(labels_by_folder(collection), file=tmp_path / "f.npz")
    other = Collection.create(tmp_path / "other", model=FakeBackend(seed=1))
    other.add(pictures / "known")
    with pytest.raises(FingerprintMismatchError, match="They differ in: weights_sha256"):
        list(other.classify(file=tmp_path / "f.npz"))


def test_files_that_are_no_classifier(collection, tmp_path):
    with pytest.raises(InvalidParameterError, match="there is no classifier at"):
        list(collection.classify())
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    for name in ("text.npz", "arrays.npz"):
        with pytest.raises(InvalidParameterError, match="holds no sound classifier"):
            Classifier.load(tmp_path / name)


def test_suggestions_before_and_after_a_fit(collection):
    labels = labels_by_folder(collection)
    first = collection.suggest_labels(3)
    # One of each colour stands for all.
    assert {labels[p.id] for p in first} == set(COLOURS)
    assert {p.label for p in first} == {""}
    collection.fit_classifier({p.id: labels[p.id] for p in first})
    then = collection.suggest_labels(5)
    assert len(then) == 5
    assert not {p.id for p in then} & {p.id for p in first}
    assert {p.label for p in then} <= set(COLOURS)
    collection.fit_classifier(labels)
    assert collection.suggest_labels(5) == []


def test_a_removed_example_does_not_matter(collection):
    labels = labels_by_folder(collection)
    some = dict(list(labels.items())[::3])
    collection.fit_classifier(some)
    collection.remove([next(iter(some))])
    assert len(collection.suggest_labels(4)) == 4
