"""Labels from a few images: what a collection keeps, refuses and suggests."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses.classification import FittedClassifier, refit_classifier
from nearsight.analyses.image_conditions import ConditionComparison
from nearsight.analyses.labeled_images import labels_by_folder, labels_by_key
from nearsight.artifacts import write_artifact
from nearsight.errors import FingerprintMismatchError, InvalidParameterError
from nearsight.estimators.classification import FewShotClassifier

from fake import FakeBackend


def paint(folder, color, n, seed=0):
    """Images of one color, each a little different."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *color])
    paths = []
    for i in range(n):
        pixels = np.clip(np.array(color) + rng.integers(-25, 26, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        paths.append(str(folder / f"{i}.png"))
    return paths


COLORS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230)}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colors")
    for name, color in COLORS.items():
        paint(folder / "known" / name, color, 10)
        paint(folder / "more" / name, color, 3, seed=1)
    return folder


@pytest.fixture
def collection(images, tmp_path):
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(images / "known", metadata=lambda path: {"color": path.split("/")[-2]})
    return made


def test_labels_of_the_collections_own_images(collection):
    by_folder = labels_by_folder(collection)
    assert by_folder == labels_by_key(collection, "color")
    made = collection.fit_classifier(by_folder)
    assert made.counts == {"blue": 10, "green": 10, "red": 10}
    found = list(collection.classify())
    assert {p.id: p.label for p in found} == by_folder
    assert [p.path for p in found] == [item.path for item in collection.items()]
    assert {p.label for p in collection.classify(where="color = 'red'")} == {"red"}


def test_is_what_the_estimator_says_of_the_same_vectors(collection):
    labels = labels_by_folder(collection)
    collection.fit_classifier(labels)
    ids = list(labels)
    plain = FewShotClassifier().fit(collection.vectors(ids), [labels[id] for id in ids])
    p = plain.predict_proba(collection.vectors(ids)).max(1)
    found = {prediction.id: prediction for prediction in collection.classify()}
    np.testing.assert_allclose([found[id].probability for id in ids], p, atol=1e-9)
    assert [found[id].unknown for id in ids] == plain.unknown(collection.vectors(ids)).tolist()


def test_images_without_a_label_are_learned_from_and_again_by_a_refit(collection):
    labels = labels_by_folder(collection)
    few = dict(list(labels.items())[::6])
    made = collection.fit_classifier(few, use_unlabeled=True)
    assert made.estimator.method_ == "label-spreading"
    assert made.estimator.n_unlabeled_ == len(labels) - len(few)
    ids, others = list(few), [item.id for item in collection.items() if item.id not in few]
    plain = FewShotClassifier().fit(collection.vectors(ids), list(few.values()), collection.vectors(others))
    p = plain.predict_proba(collection.vectors(others))
    found = {prediction.id: prediction for prediction in collection.classify()}
    np.testing.assert_allclose([found[id].probability for id in others], p.max(axis=1), atol=1e-9)
    again = refit_classifier(collection, FittedClassifier.load(collection.directory / "classifier.npz"))
    np.testing.assert_array_equal(again.estimator.predict_proba(collection.vectors(others)), p)
    assert collection.fit_classifier(few).estimator.n_unlabeled_ == 0


def test_images_that_are_not_in_the_collection(collection, images):
    n = len(collection)
    inside = {item.path: item.path.split("/")[-2] for item in collection.items()}
    outside = {str(path): path.parent.name for path in (images / "more").rglob("*.png")}
    made = collection.fit_classifier(inside | outside)
    assert made.counts == {"blue": 13, "green": 13, "red": 13}
    assert len(collection) == n
    alone = collection.fit_classifier(outside)
    assert {p.label for p in collection.classify(where="color = 'green'")} == {"green"}
    assert set(alone.ids).isdisjoint(item.id for item in collection.items())


def test_a_copy_of_an_image_counts_once(collection, images, tmp_path):
    original = images / "known/red/0.png"
    (tmp_path / "copy.png").write_bytes(original.read_bytes())
    labels = labels_by_folder(collection)
    assert collection.fit_classifier({**labels, str(tmp_path / "copy.png"): "red"}).counts["red"] == 10
    contradicting = {**labels, str(tmp_path / "copy.png"): "pink"}
    with pytest.raises(InvalidParameterError, match=r"1 images have two labels.*is 'red', and .* 'pink'"):
        collection.fit_classifier(contradicting)
    assert collection.fit_classifier(contradicting, contradictions="drop").counts["red"] == 9


def test_one_class_is_refused_with_the_way_to_learn_one(collection):
    labels = {id: label for id, label in labels_by_folder(collection).items() if label == "red"}
    with pytest.raises(InvalidParameterError, match=r"all 10 .* are 'red'.* nearsight anomaly fit"):
        collection.fit_classifier(labels)
    assert not (collection.directory / "classifier.npz").exists()


def test_examples_per_class(collection):
    labels = labels_by_folder(collection)
    made = collection.fit_classifier(labels, examples_per_class=2)
    assert made.counts == {"blue": 2, "green": 2, "red": 2}
    assert collection.fit_classifier(labels, examples_per_class=2).ids == made.ids
    assert collection.fit_classifier(labels, examples_per_class=2, random_state=1).ids != made.ids
    with pytest.raises(InvalidParameterError, match="examples_per_class is 0"):
        collection.fit_classifier(labels, examples_per_class=0)


def test_a_bad_image_among_the_labeled_is_named(collection, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    labels = {**labels_by_folder(collection), str(tmp_path / "bad.png"): "red"}
    made = collection.fit_classifier(labels)
    assert [failure.path for failure in made.failed] == [str(tmp_path / "bad.png")]
    assert made.counts["red"] == 10
    with pytest.raises(InvalidParameterError, match="no labeled image was found"):
        collection.fit_classifier({str(tmp_path / "bad.png"): "red"})


def test_a_file_says_the_same_anywhere(collection, tmp_path):
    made = collection.fit_classifier(labels_by_folder(collection), file=tmp_path / "f.npz")
    assert not (collection.directory / "classifier.npz").exists()
    again = FittedClassifier.load(tmp_path / "f.npz")
    assert (again.ids, again.counts, again.fingerprint) == (made.ids, made.counts, made.fingerprint)
    assert again.conditions == made.conditions
    assert (made.conditions.n_images, made.conditions.min_side_px, made.conditions.n_gray) == (30, 16, 0)
    X = collection.vectors(made.ids)
    names = [""] * len(X)
    assert again.predict(X, made.ids, names) == made.predict(X, made.ids, names)
    assert list(collection.classify(file=tmp_path / "f.npz"))


def test_a_file_of_an_earlier_version_has_no_conditions(collection, tmp_path, monkeypatch):
    made = collection.fit_classifier(labels_by_folder(collection), file=tmp_path / "f.npz")
    facts = {
        "model": made.model,
        "fingerprint": made.fingerprint.to_dict(),
        "ids": made.ids,
        "counts": made.counts,
    }
    write_artifact(tmp_path / "old.npz", "classifier", 1, facts, made.estimator.to_arrays())
    old = FittedClassifier.load(tmp_path / "old.npz")
    assert old.conditions is None
    assert old.counts == made.counts
    comparison = ConditionComparison(old.conditions)
    comparison.add(10, 10, b"not even looked at")
    assert comparison.notes == []


def test_vectors_of_another_model_are_refused(collection, images, tmp_path):
    collection.fit_classifier(labels_by_folder(collection), file=tmp_path / "f.npz")
    other = Collection.create(tmp_path / "other", model=FakeBackend(seed=1))
    other.add(images / "known")
    with pytest.raises(FingerprintMismatchError, match="They differ in: weights_sha256"):
        list(other.classify(file=tmp_path / "f.npz"))


def test_files_that_are_no_classifier(collection, tmp_path):
    with pytest.raises(InvalidParameterError, match="there is no classifier at"):
        list(collection.classify())
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    for name in ("text.npz", "arrays.npz"):
        with pytest.raises(InvalidParameterError, match="holds no sound classifier"):
            FittedClassifier.load(tmp_path / name)


def test_suggestions_before_and_after_a_fit(collection):
    labels = labels_by_folder(collection)
    first = collection.suggest_labels(3)
    # One of each color stands for all.
    assert {labels[p.id] for p in first} == set(COLORS)
    assert {p.label for p in first} == {""}
    collection.fit_classifier({p.id: labels[p.id] for p in first})
    then = collection.suggest_labels(5)
    assert len(then) == 5
    assert not {p.id for p in then} & {p.id for p in first}
    assert {p.label for p in then} <= set(COLORS)
    collection.fit_classifier(labels)
    assert collection.suggest_labels(5) == []


def test_a_removed_example_does_not_matter(collection):
    labels = labels_by_folder(collection)
    some = dict(list(labels.items())[::3])
    collection.fit_classifier(some)
    collection.remove([next(iter(some))])
    assert len(collection.suggest_labels(4)) == 4


def test_labels_compare_by_form_c_and_images_by_any_name(collection, images):
    nfc, nfd = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    red = {f"red/{i}.png": nfd if i % 2 else nfc for i in range(10)}
    blue = {str(images / "known" / "blue" / f"{i}.png"): "blue" for i in range(10)}
    assert collection.fit_classifier({**red, **blue}).counts == {"blue": 10, nfc: 10}
