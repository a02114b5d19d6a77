"""`cluster` on the command line."""

import errno
import json
import re

import pytest

from nearsight.analyses.clusters import FILENAME
from nearsight.estimators import layout2d
from nearsight.reports import clusters


@pytest.fixture
def cli(two_kinds):
    return two_kinds


@pytest.mark.slow
def test_clusters_are_found_kept_and_assigned(cli, kinds, tmp_path):
    document = cli.json("cluster", "--no-names", "--min-size", 10, "--save-as", "kind")
    assert set(document) == {
        "clusters",
        "noise",
        "algorithm",
        "coordinates",
        "levels",
        "level",
        "tree",
    }
    assert (document["algorithm"], document["coordinates"]) == ("density", "diffusion")
    names = {item["id"]: item["path"].rpartition("/")[2] for item in cli.json("ls")["items"]}
    for cluster in document["clusters"]:
        assert set(cluster) == {"id", "size", "representative", "name", "ids", "representatives", "words"}
        assert cluster["size"] == len(cluster["ids"])
        assert cluster["name"] is None
        assert cluster["representative"] == cluster["representatives"][0]
        assert len({names[i][:3] for i in cluster["ids"]}) == 1
    assert sum(c["size"] for c in document["clusters"]) + len(document["noise"]) == 60
    assert {i["id"] for i in cli.json("ls", "--where", "kind = 0")["items"]} == set(
        document["clusters"][0]["ids"]
    )
    cli("cluster", "--k", 1, "--where", "kind = 0", "--no-names")
    again = cli.json("cluster", "--assign", "--where", "path LIKE '%cat%'")
    assert sum(c["size"] for c in again["clusters"]) + len(again["noise"]) == 30
    assert [c["representatives"] for c in again["clusters"]] == [
        c["representatives"] for c in document["clusters"]
    ]


def test_as_many_as_asked_for_with_a_page(cli, tmp_path, monkeypatch):
    page, model = tmp_path / "page.html", tmp_path / "two.npz"
    result = cli("cluster", "--k", 2, "--no-names", "--html", page, "--to", model)
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["0", "30"], ["1", "30"]]
    assert "Noise: 0 images of 60." in result.stderr
    assert "k-means ran on diffusion coordinates." in result.stderr
    html = page.read_text()
    assert html.count("<img") == 60
    assert "2 clusters" in html
    assert "k-means on diffusion coordinates" in html
    assert not re.search(r"\d shown\)", html)
    monkeypatch.setattr(clusters, "MAX_IMAGES", 10)
    cli("cluster", "--k", 2, "--no-names", "--html", page)
    assert page.read_text().count("30 images (10 shown)") == 2
    assert page.read_text().count("<img") == 20
    monkeypatch.setattr(clusters, "_MAX_ALL_IMAGES", 12)
    monkeypatch.setattr(clusters, "MIN_IMAGES", 4)
    cli("cluster", "--k", 2, "--no-names", "--html", page)
    assert page.read_text().count("30 images (6 shown)") == 2
    assert len(cli.json("cluster", "--from", model)["clusters"]) == 2


@pytest.mark.slow
def test_levels_of_detail(cli):
    document = cli.json("cluster", "--no-names")
    levels, level = document["levels"], document["level"]
    assert len(document["clusters"]) == levels[level]
    assert levels == sorted(levels)
    finest = cli.json("cluster", "--no-names", "--detail", 9)
    assert (len(finest["clusters"]), finest["level"]) == (levels[-1], len(levels) - 1)
    coarsest = cli("cluster", "--no-names", "--detail", -9)
    assert len(coarsest.stdout.splitlines()) == levels[0] + 1
    if len(levels) > 1:
        assert f"--detail -8 gives {levels[1]} clusters" in coarsest.stderr


def test_saved_clusters_are_not_mixed_with_others(cli, kinds):
    cli("cluster", "--k", 2, "--no-names", "--save-as", "kind")
    part = ("cluster", "--k", 2, "--where", "kind = 0", "--no-names", "--save-as")
    assert "30 images outside `where`" in cli(*part, "kind", code=2).stderr
    cli(*part, "inside")
    cli("cluster", "--assign", "--where", "path LIKE '%cat%'", "--save-as", "kind")
    cli("index", kinds, "--meta", "shelf=3", "-q")
    for words in (("cluster", "--k", 2, "--no-names"), ("cluster", "--assign")):
        assert "60 images have metadata 'shelf'" in cli(*words, "--save-as", "shelf", code=2).stderr
    cli("cluster", "--k", 2, "--no-names", "--save-as", "shelf", "--overwrite")
    assert len(cli.json("ls", "--where", "shelf = 3")["items"]) == 0


def test_clusters_get_names(cli):
    minilm = pytest.importorskip("nearsight.models.text.minilm")
    if minilm.locate() is None:
        pytest.skip(f"needs {minilm.REQUIREMENT}")
    document = cli.json("cluster", "--k", 2, "--words", "cat,cup of coffee,airplane")
    assert {c["name"] for c in document["clusters"]} == {"cat", "cup of coffee"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cluster", "--assign", "--k", "3"), "use clusters as they were saved"),
        (("cluster", "--words", "a", "--no-names"), "give only one of the two"),
        (("cluster", "--k", "61"), "there are 60 images"),
        (("cluster", "--algorithm", "kmeans"), "needs the number of clusters"),
        (("cluster", "--k", "2", "--detail", "1"), "detail is 1, which is for density"),
        (("cluster", "--assign", "--detail", "1"), "use clusters as they were saved"),
        (("cluster", "--coordinates", "umap"), "density has no UMAP"),
        (("cluster", "--from", "nowhere.npz"), "find clusters first"),
        (("cluster", "--save-as", "path"), "every image has its own path already"),
        (("cluster", "--save-as", "null"), "a keyword of `where`"),
        (("cluster", "--save-as", "a b"), "is not a name"),
        (("cluster", "--overwrite"), "--save-as KEY"),
        (("cluster", "--where", "width > 9999", "--k", "1"), "or index more"),
        (("cluster", "--assign", "--false-alarm-rate", "0.05"), "use clusters as they were saved"),
    ],
)
def test_bad_usage(cli, words, message):
    assert message in json.dumps(cli.json(*words, code=2))


@pytest.mark.slow
def test_bars_are_for_people_at_a_terminal(cli, orders, monkeypatch):
    words = ("cluster", "--k", 2, "--no-names")
    assert "k-means:" not in cli(*words).stderr
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda stream: True)
    assert "k-means:" in cli(*words).stderr
    assert "k-means:" not in cli(*words, "-q").stderr
    assert "neighbors" in cli("cluster", "--no-names").stderr
    segmenting = ("segment-customers", orders, "--no-names")
    shown, quiet = cli(*segmenting).stderr, cli(*segmenting, "-q").stderr
    for stage in ("choosing the number of segments", "fitting segments"):
        assert f"{stage}:" in shown
        assert f"{stage}:" not in quiet
    assert "assigning" in cli("cluster", "--assign").stderr
    # What umap-learn shows itself, `estimators/test_layout2d.py` reads: importing it takes half a minute.
    monkeypatch.setattr(layout2d, "is_umap_installed", lambda: True)
    monkeypatch.setattr(layout2d, "umap_coordinates", lambda X, *neighbors, **options: X[:, :2])
    assert "neighbors" in cli("map").stderr
    assert "neighbors" not in cli("map", "--refit", "-q").stderr


@pytest.mark.slow
def test_a_collection_that_cannot_be_written_to_still_answers(cli, monkeypatch, tmp_path):
    (cli.collection / FILENAME).unlink(missing_ok=True)
    with monkeypatch.context() as patched:
        patched.setattr("nearsight.services.clusters.os.access", lambda *_: False)
        output = cli("cluster", "--no-names")
        assert "no clusters can be saved in it" in cli("cluster", "--save-as", "kind", code=1).stderr
    assert "representative" in output.stdout
    assert "save them elsewhere with --to FILE.npz" in output.stderr
    assert not (cli.collection / FILENAME).exists()
    cli("cluster", "--no-names", "--to", tmp_path / "groups.npz")
    assert (tmp_path / "groups.npz").exists()


def test_a_page_that_the_disk_refuses(cli, monkeypatch, tmp_path):
    def refuse(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    page = tmp_path / "page.html"
    words = ("cluster", "--k", 2, "--no-names", "--to", tmp_path / "x.npz")
    assert "x.npz could not be written: No space left" in cli(*words, code=1).stderr
    monkeypatch.undo()
    cli("cluster", "--k", 2, "--no-names")
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    result = cli("cluster", "--assign", "--json", "--html", page, code=1)
    assert len(json.loads(result.stdout)["clusters"]) == 2
    assert "page.html could not be written: No space left on device; free some space" in result.stderr
    assert not page.exists()
