"""`classify predict`, and `search --text`."""

import json

import pytest

from nearsight.models.text import minilm

pytestmark = pytest.mark.skipif(minilm.locate() is None, reason=f"needs {minilm.REQUIREMENT}")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Photographs by what they show."""
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    folder = tmp_path_factory.mktemp("shown")
    for name, pixels in (("cat", data.chelsea()), ("coffee", data.coffee()), ("rocket", data.rocket())):
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    return folder


@pytest.mark.slow
def test_each_image_gets_a_name(nearsight, shown):
    names = "cat,cup of coffee,space rocket"
    document = nearsight.json("classify", "predict", shown, "--names", names)
    assert set(document) == {"predictions", "failed", "model", "false_alarm_rate", "differences"}
    assert [(p["path"], p["label"], p["unknown"]) for p in document["predictions"]] == [
        (str(shown / "cat.jpg"), "cat", False),
        (str(shown / "coffee.jpg"), "cup of coffee", False),
        (str(shown / "rocket.jpg"), "space rocket", False),
    ]
    assert all(0.5 < p["probability"] <= 1 for p in document["predictions"])
    assert [failure["path"] for failure in document["failed"]] == [str(shown / "empty.jpg")]


@pytest.mark.slow
def test_none_of_the_names(nearsight, shown):
    result = nearsight("classify", "predict", shown / "cat.jpg", "--names", "airplane", "--names", "piano")
    assert result.stdout.splitlines()[1].split()[0] == "unknown"


@pytest.mark.slow
def test_names_from_a_file(nearsight, shown, tmp_path):
    (tmp_path / "names.txt").write_text("cat, tabby or not\n\nspace rocket\n")
    document = nearsight.json("classify", "predict", shown / "cat.jpg", "--names", f"@{tmp_path}/names.txt")
    assert document["predictions"][0]["label"] == "cat, tabby or not"


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (("--names", ","), "InvalidParameterError", "at least one name"),
        (("--names", "a,a"), "InvalidParameterError", "twice; give each"),
        (("--names", "@/nowhere.txt"), "UsageError", "cannot be read"),
        (("--names", "a", "--model", "sift-vlad"), "UnknownModelError", "has no text encoder"),
        ((), "InvalidParameterError", "--names"),
    ],
)
def test_bad_names(nearsight, shown, words, kind, message):
    result = nearsight("classify", "predict", shown / "cat.jpg", *words, "--json", code=2)
    error = json.loads(result.stdout)["error"]
    assert error["type"] == kind
    assert message in error["message"]


def test_search_with_words(nearsight, shown, tmp_path):
    nearsight.with_images(shown)
    hits = nearsight.json("search", "--text", "a rocket on its launch pad", "--html", tmp_path / "x.html")[
        "hits"
    ]
    assert hits[0]["path"] == str(shown / "rocket.jpg")
    page = (tmp_path / "x.html").read_text()
    assert "a rocket on its launch pad" in page
    assert page.index("rocket.jpg") < page.index("coffee.jpg")


def test_words_that_are_markup_are_only_words(nearsight, shown, tmp_path):
    nearsight.with_images(shown)
    nearsight("search", "--text", "<script>alert(1)</script>", "--html", tmp_path / "x.html")
    assert "<script>alert" not in (tmp_path / "x.html").read_text()
