"""`cluster` and `segment` on the command line."""

import errno
import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from nearsight.analyses.clusters import FILENAME
from nearsight.cli.csv_tables import read_customers
from nearsight.errors import MetadataError
from nearsight.reports import clusters


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Two kinds of images, thirty of each: crops of two photographs."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    for name, pixels in (("cat", data.chelsea()), ("cup", data.coffee())):
        for number in range(30):
            x, y = rng.integers(0, 100, 2)
            Image.fromarray(pixels[y : y + 200, x : x + 300]).resize((96, 64)).save(
                folder / f"{name}{number}.png"
            )
    return folder


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    file = tmp_path_factory.mktemp("orders") / "orders.csv"
    lines = ["customer;image;weight"]
    lines += [
        f"{n};{'cat' if n % 2 else 'cup'}{(n * 3 + i) % 30};{i + 1}" for n in range(20) for i in range(3)
    ]
    file.write_text("\n".join([*lines, "0;gone.png;", "21;gone.png;1"]) + "\n")
    return file


@pytest.fixture
def cli(nearsight, kinds):
    nearsight("index", kinds, "-q")
    return nearsight


def test_clusters_are_found_kept_and_assigned(cli, kinds, tmp_path):
    found = cli.json("cluster", "--no-labels", "--min-size", 10, "--save", "kind")
    assert set(found) == {"clusters", "noise", "algorithm", "tree"}
    assert found["algorithm"] == "density"
    names = {item["id"]: item["path"].rpartition("/")[2] for item in cli.json("ls")["items"]}
    for one in found["clusters"]:
        assert set(one) == {"id", "size", "representative", "label", "ids", "representatives", "words"}
        assert one["size"] == len(one["ids"])
        assert one["label"] is None
        assert one["representative"] == one["representatives"][0]
        assert len({names[i][:3] for i in one["ids"]}) == 1
    assert sum(c["size"] for c in found["clusters"]) + len(found["noise"]) == 60
    assert {i["id"] for i in cli.json("ls", "--where", "kind = 0")["items"]} == set(
        found["clusters"][0]["ids"]
    )
    cli("cluster", "--k", 1, "--where", "kind = 0", "--no-labels")
    again = cli.json("cluster", "--assign", "--where", "path LIKE '%cat%'")
    assert sum(c["size"] for c in again["clusters"]) + len(again["noise"]) == 30
    assert [c["representatives"] for c in again["clusters"]] == [
        c["representatives"] for c in found["clusters"]
    ]


def test_as_many_as_asked_for_with_a_page(cli, tmp_path, monkeypatch):
    page, model = tmp_path / "page.html", tmp_path / "two.npz"
    result = cli("cluster", "--k", 2, "--no-labels", "--out", page, "--model", model)
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["0", "30"], ["1", "30"]]
    assert "0 images of 60 in no cluster" in result.stderr
    html = page.read_text()
    assert html.count("<img") == 60
    assert "2 clusters" in html
    assert " shown)" not in html
    monkeypatch.setattr(clusters, "MAX_IMAGES", 10)
    cli("cluster", "--k", 2, "--no-labels", "--out", page)
    assert page.read_text().count("30 images (10 shown)") == 2
    assert page.read_text().count("<img") == 20
    monkeypatch.setattr(clusters, "_MAX_ALL_IMAGES", 12)
    monkeypatch.setattr(clusters, "MIN_IMAGES", 4)
    cli("cluster", "--k", 2, "--no-labels", "--out", page)
    assert page.read_text().count("30 images (6 shown)") == 2
    assert len(cli.json("cluster", "--assign", "--model", model)["clusters"]) == 2


def test_saved_clusters_are_not_mixed_with_others(cli, kinds):
    cli("cluster", "--k", 2, "--no-labels", "--save", "kind")
    part = ("cluster", "--k", 2, "--where", "kind = 0", "--no-labels", "--save")
    assert "30 images beside these" in cli(*part, "kind", code=2).stderr
    cli(*part, "inside")
    cli("cluster", "--assign", "--where", "path LIKE '%cat%'", "--save", "kind")
    cli("index", kinds, "--meta", "shelf=3", "-q")
    for words in (("cluster", "--k", 2, "--no-labels"), ("cluster", "--assign")):
        assert "60 images have metadata 'shelf'" in cli(*words, "--save", "shelf", code=2).stderr
    cli("cluster", "--k", 2, "--no-labels", "--save", "shelf", "--overwrite")
    assert len(cli.json("ls", "--where", "shelf = 3")["items"]) == 0


def test_clusters_get_names(cli):
    minilm = pytest.importorskip("nearsight.models.text.minilm")
    if minilm.locate() is None:
        pytest.skip(f"needs {minilm.REQUIREMENT}")
    found = cli.json("cluster", "--k", 2, "--words", "cat,cup of coffee,airplane")
    assert {c["label"] for c in found["clusters"]} == {"cat", "cup of coffee"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cluster", "--assign", "--k", "3"), "--assign takes the clusters as they are"),
        (("cluster", "--words", "a", "--no-labels"), "give one of them"),
        (("cluster", "--k", "61"), "there are 60 images"),
        (("cluster", "--algorithm", "kmeans"), "how many groups"),
        (("cluster", "--assign", "--model", "nowhere.npz"), "find clusters first"),
        (("cluster", "--save", "path"), "every image has its own path already"),
        (("cluster", "--save", "null"), "a word of its own"),
        (("cluster", "--save", "a b"), "is not a name"),
        (("cluster", "--overwrite"), "--save KEY"),
        (("cluster", "--where", "width > 9999", "--k", "1"), "or index more"),
        (("segment",), "--customers"),
        (("cluster", "--assign", "--false-alarm-rate", "0.05"), "--assign takes the clusters as they are"),
    ],
)
def test_bad_usage(cli, words, message):
    assert message in json.dumps(cli.json(*words, code=2))


def test_bars_are_for_people_at_a_terminal(cli, orders, monkeypatch):
    words = ("cluster", "--k", 2, "--no-labels")
    assert "k-means" not in cli(*words).stderr
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda stream: True)
    assert "k-means" in cli(*words).stderr
    for silent in ("-q", "--json"):
        assert "k-means" not in cli(*words, silent).stderr
    assert "neighbors" in cli("cluster", "--no-labels").stderr
    segmenting = ("segment", "--customers", orders, "--no-labels")
    for stage in ("how many", "segments"):
        assert f"{stage}:" in cli(*segmenting).stderr
        for silent in ("-q", "--json"):
            assert f"{stage}:" not in cli(*segmenting, silent).stderr
    assert "assigning" in cli("cluster", "--assign").stderr
    if find_spec("umap"):
        told = cli("map").stderr
        assert "neighbors" in told
        assert "laying out" in told
        assert "laying out" not in cli("map", "--refit", "--json").stderr


def test_segments_with_a_page_and_unknown_images(cli, orders, tmp_path):
    page = tmp_path / "page.html"
    found = cli.json("segment", "--customers", orders, "--no-labels", "--out", page)
    assert set(found) == {"segments", "customers", "strangers", "unknown", "silhouette"}
    assert found["strangers"] == []
    assert found["unknown"] == {"gone.png": 2}
    assert len(found["segments"]) == 2
    for one in found["segments"]:
        assert set(one) == {"id", "size", "customers", "representatives", "spread", "label", "words"}
        assert len({int(c) % 2 for c in one["customers"]}) == 1
        assert {found["customers"][c] for c in one["customers"]} == {one["id"]}
    html = page.read_text()
    assert "20 customers in 2 segments" in html
    assert "10 customers: " in html
    assert " · spread 0." in html
    result = cli("segment", "--customers", orders, "--k", 3, "--no-labels")
    assert len(result.stdout.splitlines()) == 4
    assert "2 lines of" in result.stderr
    assert "gone.png" in result.stderr


def test_segments_are_kept_and_new_customers_asked_for(cli, orders, tmp_path):
    file, page = tmp_path / "segments.npz", tmp_path / "later.html"
    kept = cli("segment", "--customers", orders, "--no-labels", "--save", file)
    assert "ask them with --model" in kept.stderr
    assert "too few customers" not in kept.stderr
    found = cli.json("segment", "--customers", orders, "--no-labels")
    (tmp_path / "new.csv").write_text(
        "customer,image\n" + "".join(f"ann,cat{n}\nbob,cup{n}\n" for n in (2, 5, 8))
    )
    words = ("segment", "--customers", tmp_path / "new.csv", "--model", file)
    asked = cli.json(*words, "--out", page)
    assert asked["customers"] == {"ann": found["customers"]["1"], "bob": found["customers"]["0"]}
    assert asked["strangers"] == []
    assert [s["representatives"] for s in asked["segments"]] == [
        s["representatives"] for s in found["segments"]
    ]
    assert page.read_text().count("<img") > 2
    assert "0 customers of 2 in no segment." in cli(*words).stderr


def test_who_is_like_no_segment_is_a_stranger(cli, tmp_path):
    file, page = tmp_path / "segments.npz", tmp_path / "later.html"
    rng = np.random.default_rng(0)
    lines = [f"{owner},cat{n}" for owner in range(40) for n in rng.choice(30, 3, replace=False)]
    (tmp_path / "cats.csv").write_text("\n".join(["customer,image", *lines]))
    cli("segment", "--customers", tmp_path / "cats.csv", "--k", 1, "--no-labels", "--save", file)
    (tmp_path / "new.csv").write_text(
        "customer,image\nann,cat1\nann,cat2\nann,cat3\nbob,cup1\nbob,cup2\nbob,cup3\n"
    )
    words = ("segment", "--customers", tmp_path / "new.csv", "--model", file)
    asked = cli.json(*words, "--out", page)
    assert asked["strangers"] == ["bob"]
    assert asked["customers"] == {"ann": 0, "bob": -1}
    assert "In no segment" in page.read_text()
    assert "1 customer of 2 in no segment: bob." in cli(*words).stderr


def test_too_few_customers_to_know_a_stranger_by(cli, tmp_path):
    (tmp_path / "few.csv").write_text("customer,image\nann,cat1\nbob,cat2\n")
    file = tmp_path / "few.npz"
    told = cli("segment", "--customers", tmp_path / "few.csv", "--no-labels", "--save", file).stderr
    assert "too few customers to know strangers by" in told
    for extra in (("--k", "2"), ("--save", file), ("--no-labels",), ("--false-alarm-rate", "0.1")):
        told = cli("segment", "--customers", tmp_path / "few.csv", "--model", file, *extra, code=2).stderr
        assert "--model takes the segments as they are" in told


def test_more_segments_than_customers_are_refused(cli, tmp_path):
    (tmp_path / "two.csv").write_text("customer,image\nann,cat1\nbob,cup1\n")
    result = cli("segment", "--customers", tmp_path / "two.csv", "--k", "3", "--no-labels", code=2)
    assert "k is 3, and there are 2 customers" in result.stderr


def test_a_spread_that_is_not_known_is_no_number(cli, tmp_path):
    (tmp_path / "one.csv").write_text("Customer,Image\nann,cat1\nbob,cup1\n")
    told = cli("segment", "--customers", tmp_path / "one.csv", "--no-labels").stdout
    assert "nan" not in told
    assert told.splitlines()[1].split()[2] == "-"
    assert "--k makes one" in cli("segment", "--customers", tmp_path / "one.csv", "--no-labels").stderr
    assert "--k makes" not in cli("segment", "--customers", tmp_path / "one.csv", "--k", 1).stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,image\na,b\n", "customer and image"),
        ("customer,image\n,\n", "no line"),
        ("customer,image,weight\na,b,none\n", "line 2: the weight 'none'"),
        ("customer,image,weight\na,b,1\na,b,-1\n", "line 3.*leave out lines"),
        ('customer,image,weight\na,b,"2,5"\n', "the weight '2,5'.*such as 2.5"),
        ("customer;image;weight\na;b;1.000,5\n", "the weight '1.000,5'"),
        ("customer,customer,image\na,b,c\n", "2 columns named customer"),
        ("customer\0,image\na,b\n", "is no text"),
    ],
)
def test_bad_customers(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(MetadataError, match=message):
        read_customers(tmp_path / "bad.csv")


def test_customers_with_and_without_weights(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffimage\tcustomer\tnote\nx.jpg\tann\thello\n", encoding="utf-8")
    assert read_customers(tmp_path / "a.csv") == [("ann", "x.jpg", 1.0)]
    (tmp_path / "c.csv").write_text("customer;image;weight\nann;x.jpg;2,5\n")
    assert read_customers(tmp_path / "c.csv") == [("ann", "x.jpg", 2.5)]
    (tmp_path / "d.csv").write_text("customer\timage\tweight\nann\tx.jpg\t2,5\n", encoding="utf-16")
    assert read_customers(tmp_path / "d.csv") == [("ann", "x.jpg", 2.5)]
    (tmp_path / "b.csv").write_text("customer,image,weight\nann,x.jpg,2.5\nbob,y.jpg,\n")
    assert read_customers(tmp_path / "b.csv") == [("ann", "x.jpg", 2.5), ("bob", "y.jpg", 1.0)]


def test_a_collection_that_cannot_be_written_to_still_answers(cli, monkeypatch, tmp_path):
    (cli.collection / FILENAME).unlink(missing_ok=True)
    with monkeypatch.context() as patched:
        patched.setattr("nearsight.cli.commands.cluster.os.access", lambda *_: False)
        told = cli("cluster", "--no-labels")
        assert "no clusters can be saved in it" in cli("cluster", "--save", "kind", code=1).stderr
    assert "representative" in told.stdout
    assert "--model FILE.npz keeps them elsewhere" in told.stderr
    assert not (cli.collection / FILENAME).exists()
    cli("cluster", "--no-labels", "--model", tmp_path / "groups.npz")
    assert (tmp_path / "groups.npz").exists()


def test_a_page_that_the_disk_refuses(cli, monkeypatch, tmp_path):
    def refuse(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    page = tmp_path / "page.html"
    words = ("cluster", "--k", 2, "--no-labels", "--model", tmp_path / "x.npz")
    assert "x.npz could not be written: No space left" in cli(*words, code=1).stderr
    monkeypatch.undo()
    cli("cluster", "--k", 2, "--no-labels")
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    result = cli("cluster", "--assign", "--json", "--out", page, code=1)
    assert len(json.loads(result.stdout)["clusters"]) == 2
    assert "page.html could not be written: No space left on device; free some space" in result.stderr
    assert not page.exists()
