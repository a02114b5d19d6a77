"""A service compares, trains and quantizes models, and plans, as the command line does."""

import json

import numpy as np
import pytest
from models.convolutions import network
from PIL import Image

pytest.importorskip("fastapi")

from nearsight import Embedder
from nearsight.errors import CollectionNotFoundError, InvalidParameterError, ServiceError
from nearsight.server.service import _source
from nearsight.training import content_digest

pytestmark = pytest.mark.cluster

CLASSES = "data/classes"


@pytest.fixture(scope="module")
def tiny(work, place):
    """The alias of a small network, whose name holds a path; there are two classes of 17 images for it."""
    for label in ("dark", "light"):
        folder = place / "classes" / label
        folder.mkdir(parents=True)
        for seed in range(17):
            rng = np.random.default_rng([seed, label == "light"])
            pixels = rng.integers(0, 200, (8, 8, 3), np.uint8) + 55 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).resize((48, 48)).save(folder / f"{seed}.png")
    work.service.models.sources["tiny"] = _source(network(place / "net.onnx"), "cpu", place / "cache")
    return "tiny"


def as_the_command_line_prints(nearsight, work, *words):
    """Return the document of a command, with the alias for the name of the model."""
    text = json.dumps(nearsight.json(*words))
    return json.loads(text.replace(work.service.models.sources["tiny"].name, "tiny"))


def without_times(document):
    """Return a document without what a clock measured."""
    if isinstance(document, dict):
        times = ("seconds", "images_per_second", "speedup")
        return {name: without_times(value) for name, value in document.items() if name not in times}
    return [without_times(each) for each in document] if isinstance(document, list) else document


@pytest.mark.slow
def test_models_are_compared(work, tiny, place, nearsight):
    found = work.evaluate(CLASSES, [tiny], metric="recall@1")
    name = work.service.models.sources["tiny"].name
    words = ("eval", place / "classes", "--model", name, "--metric", "recall@1")
    expected = as_the_command_line_prints(nearsight, work, *words)
    assert str(place) not in json.dumps(found)
    assert (found.pop("n_leaks"), found.pop("n_failed")) == (len(expected["leaks"]), 0)
    assert without_times(found) == without_times(expected)


@pytest.mark.slow
def test_a_model_that_learned_from_all_images_is_left_out_unless_it_is_named(work, tiny, place, monkeypatch):
    learned = place / "learned"
    learned.mkdir()
    files = sorted((place / "classes").rglob("*.png"))
    (learned / "learned-images.txt").write_text("\n".join(content_digest(str(file)) for file in files))
    source = _source(f"dir:{learned}", "cpu", place / "cache")
    monkeypatch.setitem(work.service.models.sources, "mine", source)
    found = work.evaluate(CLASSES, metric="recall@1")
    assert [each["model"] for each in found["models"]] == [tiny]
    reasons = {each["model"]: each["reason"] for each in found["skipped"]}
    assert "learned from each image" in reasons["mine"]
    assert str(place) not in json.dumps(found)
    with pytest.raises(ServiceError, match="mine learned from each image"):
        work.evaluate(CLASSES, [tiny, "mine"])


@pytest.mark.slow
def test_a_model_is_trained_served_downloaded_and_deleted(work, tiny, place, nearsight, tmp_path):
    found = work.train(CLASSES, "mine", model=tiny, dim=4, views=1)
    name = work.service.models.sources["tiny"].name
    words = ("train", place / "classes", "--model", name, "--dim", 4, "--views", 1, "--to", tmp_path / "own")
    expected = as_the_command_line_prints(nearsight, work, *words)
    assert (found.pop("model"), expected.pop("model")) == ("mine", f"dir:{tmp_path / 'own'}")
    assert found.pop("n_failed") == 0
    assert without_times(found) == without_times(expected)
    image = str(place / "classes" / "dark" / "3.png")
    [vector] = work.embed(image, model="mine")
    work.download_model("mine", tmp_path / "copy")
    for folder in ("copy", "own"):
        own = Embedder(f"dir:{tmp_path / folder}", n_threads=1, progress=False).embed([image]).vectors[0]
        np.testing.assert_allclose(vector, own, atol=1e-5)
    assert {"default", "tiny", "mine"} == {each["id"] for each in work.models()}
    with pytest.raises(ServiceError, match="there is a model 'mine' already"):
        work.train(CLASSES, "mine")
    work.delete_model("mine")
    with pytest.raises(ServiceError, match="no model of that name"):
        work.embed(image, model="mine")
    for alias in ("mine", "default"):
        with pytest.raises(ServiceError, match=f"made a model '{alias}'"):
            work.delete_model(alias)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*measured once on this machine")
def test_a_model_is_quantized_and_served(work, tiny, place, nearsight):
    found = work.quantize(CLASSES, "small", model=tiny)
    name = work.service.models.sources["tiny"].name
    expected = nearsight.json("models", "quantize", name, "--calibration", place / "classes")
    assert (found.pop("model"), expected.pop("model")[: len(name)]) == ("small", name)
    assert without_times(found) == without_times(expected)
    image = str(place / "classes" / "light" / "3.png")
    exact, small = (work.embed(image, model=alias)[0] for alias in (tiny, "small"))
    assert 0.99 < exact @ small < 0.999999
    work.delete_model("small")


def test_what_is_wrong_is_told_with_the_names_that_clients_know(work, tiny, place):
    (place / "few" / "one").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(place / "few" / "one" / "a.png")
    for attempt in (
        lambda: work.evaluate("data/few", [tiny]),
        lambda: work.train("data/few", "other", model=tiny),
        lambda: work.quantize("data/few", "other", model=tiny),
    ):
        with pytest.raises(ServiceError, match="data/few") as error:
            attempt()
        assert str(place) not in str(error.value)
    for attempt, reason in (
        (lambda: work.evaluate(CLASSES, ["none"]), "no model 'none'; there are: default, tiny"),
        (lambda: work.train("data/nowhere", "other"), "no folder 'data/nowhere'"),
        (lambda: work.train("data/../..", "other"), "not below its root"),
        (lambda: work.train(CLASSES, "no/name"), "body.to"),
        (lambda: work.train(CLASSES, "other", labels="data/none.csv"), "no file 'data/none.csv'"),
        (lambda: work.train(CLASSES, "other", labels="data/a", pairs="data/b"), "give one of them"),
    ):
        with pytest.raises(ServiceError, match=reason):
            attempt()


def test_a_plan(work, tiny, monkeypatch):
    from nearsight.planning import Sample, estimate
    from nearsight.services import plans

    asked = []

    def measure(paths, model, *, cache_dir, network=True):
        asked.append((paths, model))
        return Sample(megapixels=3.0, decoded_per_core=100.0, network_per_core=50.0, thumbnail_bytes=1000.0)

    monkeypatch.setattr(plans, "measure", measure)
    needs = {"images": 10**6, "machines": 2, "gpus": 1, "queries_per_second": 5.0, "price": 3.0}
    found = work.plan(folder="data/images", model=tiny, **needs)
    assert (found["model"], found["dim"], found["megapixels"]) == ("tiny", 24, 3.0)
    name = work.service.models.sources["tiny"].name
    assert asked == [([str(work.service.data / "images")], name)]
    rest = {"dim": 24, "model": name, "megapixels": 3.0, "storage": "float32", "cores": 16}
    lines = estimate(plans.Needs(**needs, **rest), measure([], name, cache_dir=None))
    assert [(each["name"], each["value"]) for each in found["lines"]] == [
        (line.name, line.value) for line in lines
    ]
    with pytest.raises(ServiceError, match="speed"):
        work.plan(10, speed=3)


def test_the_machine_is_checked(work, place, monkeypatch):
    from nearsight import doctor

    def run_checks(settings, collection):
        yield doctor.Check("collection", "warn", collection, "index it")

    monkeypatch.setattr(doctor, "run_checks", run_checks)
    [check] = work.doctor("many")
    assert check == {
        "name": "collection",
        "status": "warn",
        "detail": str(place / "collections" / "many"),
        "fix": "index it",
    }
    with pytest.raises(CollectionNotFoundError, match="no collection 'none'"):
        work.doctor("none")


def test_aliases_are_names(tmp_path):
    from nearsight.services.made_models import MadeModels

    made = MadeModels(tmp_path)
    made.add("a", "dir:x")
    made.add("b", "dir:y")
    made.remove("a")
    assert MadeModels(tmp_path).all() == {"b": "dir:y"}
    with pytest.raises(InvalidParameterError, match="up to 64 letters"):
        made.folder("../x")
