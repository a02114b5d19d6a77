"""An evaluation from files to the verdict, with tiny models."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearsight import Collection, Embedder
from nearsight.errors import ImageFailure, InvalidParameterError, NearsightError
from nearsight.evaluation import (
    Comparison,
    Evaluation,
    ModelResult,
    PairedDifference,
    duplicate_groups,
    evaluate,
    labeled_folder,
    learned_sentence,
    read_labeled_folder,
)
from nearsight.evaluation.metrics import Task, cluster_agreement, retrieval

from fake import FakeBackend


def model(name, seed=0):
    backend = FakeBackend(seed)
    backend.spec = replace(backend.spec, id=name)
    return backend


class Blind(FakeBackend):
    """Sees noise: its vectors depend on the bytes of an image, not on what it shows."""

    def embed(self, prepared):
        return np.stack(
            [np.random.default_rng(abs(hash(p.tobytes()))).standard_normal(64) for p in prepared]
        ).astype(np.float32)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Three classes of twelve images each: stripes of three directions, with noise."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    y, x = np.mgrid[0:48, 0:48]
    for name, wave in (("level", y), ("upright", x), ("slanting", x + y)):
        (folder / name).mkdir()
        for number in range(12):
            pixels = 128 + 100 * np.sin(wave / 3 + rng.uniform(0, 0.8)) + rng.normal(0, 30, (48, 48))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def blind():
    backend = Blind()
    backend.spec = replace(backend.spec, id="blind")
    return backend


def test_a_model_that_sees_beats_one_that_does_not(shapes):
    folder = read_labeled_folder(shapes)
    result = evaluate(folder, [blind(), model("seeing")], np.arange(36), metric="recall@1")
    assert [m.model for m in result.models] == ["seeing", "blind"]
    seeing = result.models[0].metrics
    assert seeing["recall@1"].value > 0.9
    assert seeing["few_shot_5"].value > 0.8
    assert result.models[1].metrics["recall@1"].value < 0.6
    [comparison] = result.comparisons
    assert comparison.verdict == "better"
    assert result.recommended.model == "seeing"
    assert result.verdict.startswith("Use seeing: recall@1")
    assert "better than blind by" in result.verdict
    assert not result.is_split


def test_a_folder_may_be_named_through_its_parent(shapes):
    plain = read_labeled_folder(shapes)
    through_parent = read_labeled_folder(shapes / ".." / shapes.name)
    assert through_parent.labels == plain.labels


def test_a_centered_form_shares_the_vectors_of_its_model(shapes, monkeypatch):
    opened = []

    def loaded(name, **options):
        opened.append(name)
        return model(name)

    monkeypatch.setattr("nearsight.embedder.embedder.load_model", loaded)
    folder = read_labeled_folder(shapes)
    result = evaluate(folder, ["seeing", "seeing#centered"], np.arange(36), metric="recall@1")
    assert opened == ["seeing"]
    assert {m.model for m in result.models} == {"seeing", "seeing#centered"}
    X = Embedder(model("seeing")).embed(folder.paths).vectors
    task = Task.left_out(np.unique(folder.labels, return_inverse=True)[1], np.arange(36))
    expected = retrieval(X - X.mean(axis=0), task).values["recall@1"]
    [centered] = [m for m in result.models if m.model == "seeing#centered"]
    np.testing.assert_array_equal(centered.values["recall@1"], expected)


def test_clusters_are_those_of_the_queries_for_a_model_may_know_the_gallery(shapes):
    folder = read_labeled_folder(shapes)
    is_query = np.arange(36) % 3 == 0
    # Queries have the labels of others, so that only the gallery's clusters are its labels.
    labels = np.array(folder.labels)
    labels[is_query] = np.resize(["level", "upright", "slanting"], 12)
    splits = ["test" if query else "train" for query in is_query]
    folder = replace(folder, labels=labels.tolist(), splits=splits)
    [result] = evaluate(folder, [model("one")], np.arange(36)).models
    X = Embedder(model("one")).embed(folder.paths).vectors
    y = np.unique(labels, return_inverse=True)[1]
    assert (result.nmi, result.ari) == pytest.approx(cluster_agreement(X[is_query], y[is_query]))
    assert result.nmi < cluster_agreement(X, y)[0] - 0.2


def test_equal_models_tie_and_the_faster_one_is_recommended(shapes):
    folder = read_labeled_folder(shapes)
    result = evaluate(folder, [model("one"), model("two")], np.arange(36))
    [comparison] = result.comparisons
    assert comparison.verdict == "tie"
    assert comparison.difference.value == 0
    fastest = max(result.models, key=lambda m: m.images_per_second)
    assert result.recommended is fastest


def test_a_tie_whose_interval_leaves_out_zero_is_told_as_one_of_many_comparisons(shapes):
    result = evaluate(read_labeled_folder(shapes), [model("one"), model("two")], np.arange(36))
    best, other = (
        replace(found, images_per_second=speed)
        for found, speed in zip(result.models, (1.0, 9.0), strict=True)
    )
    result = replace(result, models=[best, other])
    assert "which may be chance." in result.verdict
    [tie] = result.comparisons
    apart = replace(tie, difference=replace(tie.difference, value=0.05, low=0.01, high=0.08))
    told = replace(result, comparisons=[apart, tie, tie]).verdict
    assert "higher by 0.050 (+0.010 to +0.080), which may be chance among 3 comparisons." in told
    # So many would do for one comparison alone: fewer than there are, no advice.
    for n_needed, is_told in ((30, False), (36, False), (80, True)):
        needing = replace(apart, difference=replace(apart.difference, n_needed=n_needed))
        told = replace(result, comparisons=[needing, tie, tie]).verdict
        assert (f"About {n_needed} queries would be needed" in told) is is_told


@pytest.mark.slow
def test_a_test_split_is_searched_among_the_others_and_leaks_are_named(shapes, tmp_path):
    for name in ("level", "upright"):
        for number, file in enumerate(sorted((shapes / name).iterdir())):
            target = tmp_path / ("test" if number < 4 else "train") / name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    copy = tmp_path / "train" / "level" / "copy.png"
    copy.write_bytes((tmp_path / "test" / "level" / "0.png").read_bytes())
    folder = read_labeled_folder(tmp_path)
    collection = Collection.create(tmp_path.parent / "split-c", model=model("fake"))
    collection.add(tmp_path, progress=False)
    groups = duplicate_groups(collection, folder.paths)
    result = evaluate(folder, [model("one")], groups)
    assert result.is_split
    assert len(result.queries) == 8
    assert result.n_gallery == 17
    [(query, row)] = result.leaks
    assert folder.paths[query].endswith("test/level/0.png")
    assert folder.paths[row] == str(copy)
    assert row not in result.models[0].matches[list(result.queries).index(query)]


def test_an_image_that_a_model_cannot_use_is_left_out_for_all(shapes, tmp_path):
    for name in ("level", "upright"):
        (tmp_path / name).mkdir()
        for file in list((shapes / name).iterdir())[:4]:
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "level" / "broken.png").write_bytes(b"no image")
    folder = read_labeled_folder(tmp_path)
    assert len(folder.paths) == 9
    result = evaluate(folder, [model("one"), model("two")], np.arange(9))
    assert len(result.paths) == len(result.queries) == 8
    [failure] = result.failed
    assert failure.path.endswith("broken.png")


def test_defects_are_judged_where_a_class_holds_good_images(shapes, tmp_path):
    for label, name in (("good", "level"), ("scratch", "upright")):
        (tmp_path / label).mkdir()
        for file in (shapes / name).iterdir():
            (tmp_path / label / file.name).write_bytes(file.read_bytes())
    folder = read_labeled_folder(tmp_path)
    result = evaluate(folder, [model("one")], np.arange(24))
    assert result.models[0].metrics["defect_auroc"].value > 0.9
    plain = evaluate(read_labeled_folder(shapes), [model("one")], np.arange(36))
    assert "defect_auroc" not in plain.models[0].metrics


@pytest.mark.parametrize(
    ("names", "metric", "message"),
    [(["one", "one"], "map@10", "name each once"), (["one"], "recall@7", "must be one of")],
)
def test_bad_parameters_are_refused(shapes, names, metric, message):
    with pytest.raises(InvalidParameterError, match=message):
        evaluate(read_labeled_folder(shapes), [model(name) for name in names], np.arange(36), metric=metric)


def test_a_folder_without_classes_is_refused(shapes):
    with pytest.raises(InvalidParameterError, match="two classes or more"):
        read_labeled_folder(shapes / "level")


def test_classes_that_a_model_did_not_learn_are_judged_apart(shapes):
    folder = read_labeled_folder(shapes)
    models = [model("trained"), blind()]
    result = evaluate(
        folder, models, np.arange(36), metric="recall@1", learned={"trained": ["level", "else"]}
    )
    part, labels = result.learned_classes, np.array(folder.labels)
    assert (part.models, part.classes) == (["trained"], ["level"])
    [trained, other] = result.models
    for of_part, rows in ((part.learned, labels == "level"), (part.others, labels != "level")):
        for one in (trained, other):
            assert of_part[one.model].value == pytest.approx(one.values["recall@1"][rows].mean())
    assert list(part.differences) == ["blind"]
    assert learned_sentence(result) == "For classes that it did not learn, trained is better than blind."
    whole = evaluate(folder, models, np.arange(36), learned={"trained": set(folder.labels)})
    assert whole.learned_classes.others == {}
    assert "say nothing about other classes" in learned_sentence(whole)
    assert evaluate(folder, models, np.arange(36), learned={"trained": ["else"]}).learned_classes is None


def test_a_model_that_cannot_be_loaded_is_skipped_only_where_another_can(shapes, tmp_path):
    folder, gone = read_labeled_folder(shapes), f"dir:{tmp_path}"
    result = evaluate(folder, [gone, model("one")], np.arange(36), skip_failing=True)
    assert [m.model for m in result.models] == ["one"]
    [skipped] = result.skipped
    assert skipped.model == gone
    assert str(tmp_path) in skipped.reason
    for names in ([gone], [model("one"), gone]):
        with pytest.raises(NearsightError):
            evaluate(folder, names, np.arange(36), skip_failing=len(names) == 1)


@given(st.integers(1, 6), st.data())
def test_tied_sets_are_all_that_cannot_be_extended(n, data):
    names = [str(number) for number in range(n)]
    ties = {pair: data.draw(st.booleans()) for pair in combinations(names, 2)}
    gap = PairedDifference(0.0, 0.0, 0.0, 1.0, 0.1, None)
    models = [ModelResult(name, 1, 4, 1.0, "", {}, 0.0, 0.0, {}, np.empty((0, 10), int)) for name in names]
    compared = [Comparison(*pair, gap, 1.0, "tie" if tie else "better") for pair, tie in ties.items()]
    result = Evaluation(models, compared, "recall@1", [], [], np.arange(0), False, 0, 0)
    tied = [
        set(members)
        for size in range(2, n + 1)
        for members in combinations(names, size)
        if all(ties[pair] for pair in combinations(members, 2))
    ]
    expected = [members for members in tied if not any(members < other for other in tied)]
    assert sorted(map(sorted, expected)) == sorted(result.tied_sets)


def test_too_few_classes_are_refused_with_what_could_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    with pytest.raises(InvalidParameterError, match=r"holds 0 folders of labeled images; two classes"):
        read_labeled_folder(tmp_path)
    monkeypatch.setattr(labeled_folder, "find", lambda *_, **__: [ImageFailure("/a/secret", "denied")])
    with pytest.raises(InvalidParameterError, match=r"images \(1 path cannot be read, such as /a/secret\)"):
        read_labeled_folder(tmp_path)
