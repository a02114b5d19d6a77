import json
import re
import shutil

import pytest
from PIL import Image

from nearsight.cli.main import cli

from sample_images import texture


@pytest.fixture(scope="module")
def folder(tmp_path_factory, strange):
    root = tmp_path_factory.mktemp("duplicates")
    for seed in range(4):
        texture(240, 180, seed).save(root / f"{seed}.png")
    texture(240, 180, 0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((160, 120)).save(root / strange)
    shutil.copy(root / "1.png", root / "again.png")
    return root


@pytest.fixture
def filled(nearsight, folder):
    return nearsight.with_images(folder)


def test_groups_as_the_contract_has_them(filled, folder, strange):
    document = filled.json("duplicates")
    assert document.keys() == {
        *("groups", "leaks", "images", "threshold", "false_alarm_rate", "expected_rate")
    }
    assert document["expected_rate"] == 0
    by_path = {group["paths"][0]: group for group in document["groups"]}
    assert by_path.keys() == {f"{folder}/0.png", f"{folder}/1.png"}
    near = by_path[f"{folder}/0.png"]
    assert near["keep"] == near["ids"][0]
    assert len(near["ids"]) == 2
    assert near["redundant"] == [f"{folder}/{strange}"]
    assert near["why"] == "higher effective resolution: 240 × 180, 2.25 times the pixels of the next"
    assert 0.5 < near["similarity"] <= 1
    assert near["agreement"] > document["threshold"] == 0.65
    assert near["agreement"] >= 0.80
    assert near["certain"] is True
    assert (near["review"], near["hard_links"], near["doubts"]) == ([], [], [None])
    assert set(near["ids"]) <= {item["id"] for item in filled.json("ls")["items"]}
    same = by_path[f"{folder}/1.png"]
    assert same["redundant"] == [f"{folder}/again.png"]
    assert (same["similarity"], len(same["ids"])) == (1.0, 1)
    assert document["images"] == 5


def test_for_people(filled, folder):
    answer = filled("duplicates").stdout
    assert f"keep  {folder}/0.png" in answer
    assert (
        "2 of 5 images have duplicates; 2 files redundant (match threshold: agreement above 0.65)" in answer
    )


def test_redundant_files_as_the_system_names_them(filled, folder, strange):
    result = filled("duplicates", "--list-redundant", "-0")
    expected = {f"{folder}/{strange}", f"{folder}/again.png"}
    assert set(result.stdout_bytes.decode("utf-8", "surrogateescape").split("\0")[:-1]) == expected
    assert len(list(folder.iterdir())) == 6


def test_files_to_review_are_listed_only_if_asked_for(nearsight, tmp_path):
    texture(240, 180, 0).save(tmp_path / "large.png")
    # Half of the details are those of another image.
    Image.blend(texture(240, 180, 0), texture(240, 180, 9), 0.48).save(tmp_path / "mixed.png")
    nearsight("index", tmp_path)
    [group] = nearsight.json("duplicates")["groups"]
    assert 0.65 < group["agreement"] < 0.80
    assert (group["certain"], group["redundant"], len(group["review"])) == (False, [], 1)
    assert group["doubts"] == ["the pixels agree by less than 0.80"]
    result = nearsight("duplicates", "--list-redundant")
    assert result.stdout == ""
    assert (
        "1 file not listed, to review first: look at them with --open, or list them with --all"
        in result.stderr
    )
    assert nearsight("duplicates", "--list-redundant", "--all").stdout.splitlines() == group["review"]
    assert "Review: the pixels agree by less than 0.80" in nearsight("duplicates").stdout
    page = tmp_path / "page.html"
    nearsight("duplicates", "--html", page)
    html = page.read_text(encoding="utf-8")
    assert "Review first" in html
    assert "Agreement of the pixels with the kept image" in html


def test_hard_links_are_said_to_free_nothing(nearsight, tmp_path):
    texture(240, 180, 0).save(tmp_path / "a.png")
    (tmp_path / "b.png").hardlink_to(tmp_path / "a.png")
    nearsight("index", tmp_path)
    [group] = nearsight.json("duplicates")["groups"]
    assert (group["redundant"], group["hard_links"]) == ([], [f"{tmp_path}/b.png"])
    assert "b.png (deleting it frees nothing)" in nearsight("duplicates").stdout
    result = nearsight("duplicates", "--list-redundant")
    assert result.stdout == ""
    assert "1 hard link of kept files not listed: deleting them frees nothing" in result.stderr


def test_nothing_is_redundant_beside_a_copy_that_is_gone(nearsight, tmp_path):
    texture(240, 180, 0).save(tmp_path / "large.png")
    texture(240, 180, 0).resize((160, 120)).save(tmp_path / "small.png")
    texture(240, 180, 1).save(tmp_path / "one.png")
    shutil.copy(tmp_path / "one.png", tmp_path / "two.png")
    nearsight("index", tmp_path)
    (tmp_path / "large.png").unlink()
    result = nearsight("duplicates", "--list-redundant", "-q")
    assert result.stdout.splitlines() == [f"{tmp_path}/two.png"]
    assert "1 group not listed: the file to keep is missing" in result.stderr


def test_leaks(filled, folder):
    sets = ("path LIKE '%/again.png' OR path LIKE '%/0.png'", "width = 160")
    document = filled.json("duplicates", "--between", *sets)
    [leak] = document["leaks"]
    assert leak["paths"][0] == f"{folder}/0.png"
    assert len(leak["ids"]) == 2
    assert "1 leak among 3 images" in filled("duplicates", "--between", *sets).stdout


def test_a_page(filled, tmp_path, folder):
    page = tmp_path / "copies.html"
    result = filled("duplicates", "--html", page)
    html = page.read_text(encoding="utf-8")
    assert f"Report: {page}" in result.stderr
    assert "2 groups of duplicates" in html
    assert html.count('<span class="badge">kept</span>') == 2
    assert html.count("data:image/jpeg") == 4
    assert "higher effective resolution: 240 × 180" in html


def test_a_page_of_nothing(nearsight, tmp_path, folder):
    nearsight("index", folder / "2.png", folder / "3.png")
    nearsight("duplicates", "--html", tmp_path / "none.html")
    assert "Every image occurs once." in (tmp_path / "none.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ("-0",),
        ("--all",),
        ("--list-redundant", "--between", "width = 1", "width = 2"),
        ("--false-alarm-rate", "0"),
        ("--false-alarm-rate", "0.001"),
        ("--between", "width = 240"),
    ],
)
def test_what_cannot_be(filled, words):
    assert "error" in filled.json("duplicates", *words, code=2)


def test_an_alias_that_the_help_does_not_list(filled):
    assert filled.json("dups") == filled.json("duplicates")
    assert "dups" not in cli.commands


@pytest.fixture(scope="module")
def burst(tmp_path_factory):
    """Shots of one scene, each with more or less of its own in it, and none a copy."""
    root = tmp_path_factory.mktemp("burst")
    base = texture(240, 180, 100)
    for seed in range(40):
        Image.blend(base, texture(240, 180, seed), 0.2 + 0.4 * seed / 40).save(root / f"{seed}.png")
    return root


@pytest.mark.slow
def test_shots_of_one_scene_are_warned_of(nearsight, burst):
    nearsight.with_images(burst)
    result = nearsight("duplicates", "--json")
    assert re.search(r"Expected false matches: up to \d\d% of images", result.stderr)
    document = json.loads(result.stdout)
    assert document["expected_rate"] > 0.1
    assert document["groups"]
    assert not any(group["certain"] or group["redundant"] for group in document["groups"])
    listed = nearsight("duplicates", "--list-redundant", "--all")
    assert listed.stdout == ""
    assert "to review first: look at them with --open." in listed.stderr
    refused = nearsight("duplicates", "--false-alarm-rate", "0.05", code=2).stderr
    assert "cannot be kept" in refused
    assert "distinct" in refused


@pytest.mark.slow
def test_a_rate_learned_on_images_without_copies(nearsight, burst):
    nearsight.with_images(burst)
    sure = nearsight.json("duplicates", "--false-alarm-rate", "0.05", "--distinct-where", "width > 0")
    assert sure["threshold"] > nearsight.json("duplicates")["threshold"]
    assert len(sure["groups"]) <= 1
    assert (
        "width > 999"
        in nearsight(
            *("duplicates", "--false-alarm-rate", "0.05", "--distinct-where", "width > 999"), code=2
        ).stderr
    )
    assert "add --false-alarm-rate" in nearsight("duplicates", "--distinct-where", "width > 0", code=2).stderr
