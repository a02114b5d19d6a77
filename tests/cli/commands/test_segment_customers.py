"""`segment-customers` on the command line."""

import numpy as np
import pytest


@pytest.fixture
def cli(two_kinds):
    return two_kinds


def test_segments_with_a_page_and_unknown_images(cli, orders, tmp_path):
    page = tmp_path / "page.html"
    document = cli.json("segment-customers", orders, "--no-names", "--html", page)
    assert set(document) == {"segments", "customers", "rejected", "unknown", "ambiguous", "silhouette"}
    assert document["rejected"] == []
    assert document["unknown"] == {"gone.png": 2}
    assert len(document["segments"]) == 2
    for segment in document["segments"]:
        assert set(segment) == {"id", "size", "customers", "representatives", "spread", "name", "words"}
        assert len({int(c) % 2 for c in segment["customers"]}) == 1
        assert {document["customers"][c] for c in segment["customers"]} == {segment["id"]}
    html = page.read_text()
    assert "20 customers in 2 segments" in html
    assert "10 customers: " in html
    assert " · spread 0." in html
    result = cli("segment-customers", orders, "--k", 3, "--no-names")
    assert len(result.stdout.splitlines()) == 4
    assert "2 rows of" in result.stderr
    assert "gone.png" in result.stderr


def test_segments_are_kept_and_new_customers_asked_for(cli, orders, tmp_path):
    file, page = tmp_path / "segments.npz", tmp_path / "later.html"
    result = cli("segment-customers", orders, "--no-names", "--to", file)
    assert "--from assigns customers to them" in result.stderr
    assert "too few customers" not in result.stderr
    document = cli.json("segment-customers", orders, "--no-names")
    (tmp_path / "new.csv").write_text(
        "customer,image\n" + "".join(f"ann,cat{n}\nbob,cup{n}\n" for n in (2, 5, 8))
    )
    words = ("segment-customers", tmp_path / "new.csv", "--from", file)
    assigned = cli.json(*words, "--html", page)
    assert assigned["customers"] == {"ann": document["customers"]["1"], "bob": document["customers"]["0"]}
    assert assigned["rejected"] == []
    assert [s["representatives"] for s in assigned["segments"]] == [
        s["representatives"] for s in document["segments"]
    ]
    assert page.read_text().count("<img") > 2
    assert "0 customers of 2 rejected." in cli(*words).stderr


def test_who_is_like_no_segment_is_rejected(cli, tmp_path):
    file, page = tmp_path / "segments.npz", tmp_path / "later.html"
    rng = np.random.default_rng(0)
    lines = [f"{owner},cat{n}" for owner in range(40) for n in rng.choice(30, 3, replace=False)]
    (tmp_path / "cats.csv").write_text("\n".join(["customer,image", *lines]))
    cli("segment-customers", tmp_path / "cats.csv", "--k", 1, "--no-names", "--to", file)
    (tmp_path / "new.csv").write_text(
        "customer,image\nann,cat1\nann,cat2\nann,cat3\nbob,cup1\nbob,cup2\nbob,cup3\n"
    )
    words = ("segment-customers", tmp_path / "new.csv", "--from", file)
    assigned = cli.json(*words, "--html", page)
    assert assigned["rejected"] == ["bob"]
    assert assigned["customers"] == {"ann": 0, "bob": -1}
    assert "In no segment" in page.read_text()
    assert "1 customer of 2 rejected: bob." in cli(*words).stderr


def test_too_few_customers_to_reject_one(cli, tmp_path):
    (tmp_path / "few.csv").write_text("customer,image\nann,cat1\nbob,cat2\n")
    file = tmp_path / "few.npz"
    output = cli("segment-customers", tmp_path / "few.csv", "--no-names", "--to", file).stderr
    assert "too few customers to learn a threshold" in output
    for extra in (("--k", "2"), ("--to", file), ("--no-names",), ("--false-alarm-rate", "0.1")):
        output = cli("segment-customers", tmp_path / "few.csv", "--from", file, *extra, code=2).stderr
        assert "--from uses segments as they were saved" in output


def test_more_segments_than_customers_are_refused(cli, tmp_path):
    (tmp_path / "two.csv").write_text("customer,image\nann,cat1\nbob,cup1\n")
    result = cli("segment-customers", tmp_path / "two.csv", "--k", "3", "--no-names", code=2)
    assert "k is 3, and there are 2 customers" in result.stderr


def test_a_spread_that_is_not_known_is_no_number(cli, tmp_path):
    (tmp_path / "one.csv").write_text("Customer,Image\nann,cat1\nbob,cup1\n")
    output = cli("segment-customers", tmp_path / "one.csv", "--no-names").stdout
    assert "nan" not in output
    assert output.splitlines()[1].split()[2] == "-"
    assert "--k K makes" in cli("segment-customers", tmp_path / "one.csv", "--no-names").stderr
    assert "--k K makes" not in cli("segment-customers", tmp_path / "one.csv", "--k", 1, "--no-names").stderr
