"""`recommend` on the command line."""

import csv

import pytest


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """Who buys 0 buys 1; who buys 2 buys 3; and something that is no image."""
    file = tmp_path_factory.mktemp("orders") / "orders.csv"
    lines = ["basket,item"]
    for number in range(120):
        pair = ("0.png", "1.png") if number % 2 else ("2", "3")
        lines += [f"{number},{item}" for item in (*pair, f"{number % 5}.png")]
    file.write_text("\n".join([*lines, "120,gift wrap", "121,gift wrap", "121,4.png"]) + "\n")
    return file


def test_the_contract(indexed, orders):
    document = indexed.json("recommend", "0.png", "--baskets", orders, "-k", 3)
    assert set(document) == {
        "items",
        "for",
        "baskets",
        "unknown",
        "ambiguous",
        "learned",
        "similar_lift",
        "new",
    }
    assert len(document["items"]) == 3
    for item in document["items"]:
        assert set(item) == {"id", "path", "score", "why", "metadata", "evidence"}
    best = document["items"][0]
    assert best["path"].endswith("/1.png")
    assert "bought with 0 in " in best["why"]
    assert best["metadata"] == {"year": 2024}
    assert document["unknown"] == {"gift wrap": 2}
    assert (document["baskets"], document["learned"]) == (121, True)


def test_unknown_items_are_told_and_not_fatal(indexed, orders):
    result = indexed("recommend", "0.png", "--baskets", orders)
    assert "2 rows of" in result.stderr
    assert "gift wrap" in result.stderr
    assert "Learned from 121 baskets." in result.stderr
    assert result.stdout.splitlines()[0].split() == ["score", "id", "path", "why"]


def test_lookalikes_without_baskets(indexed):
    document = indexed.json("recommend", "0.png")
    assert len(document["items"]) == 5
    assert (document["baskets"], document["unknown"], document["similar_lift"]) == (0, {}, None)
    scores = [item["score"] for item in document["items"]]
    assert scores == sorted(scores, reverse=True)
    varied = indexed.json("recommend", document["for"][0], "--diversity", 1, "-k", 3)
    assert varied["items"][0] == document["items"][0]


def test_what_is_kept_answers_the_same(indexed, orders, tmp_path):
    recommender = tmp_path / "learned.npz"
    first = indexed.json("recommend", "0.png", "--baskets", orders, "--to", recommender)
    again = indexed.json("recommend", "0.png", "--from", recommender)
    assert [item.pop("score") for item in again["items"]] == pytest.approx(
        [item.pop("score") for item in first["items"]], rel=1e-9
    )
    assert again == first
    recommender.unlink()
    # Learning alone, such as every night.
    result = indexed("recommend", "--baskets", orders, "--to", recommender)
    assert result.stdout == ""
    assert "--from recommends with it" in result.stderr
    assert recommender.exists()
    assert indexed.json("recommend", "--baskets", orders, "--to", recommender)["baskets"] == 121
    assert "121 baskets" in indexed("recommend", "0.png", "--from", recommender).stderr


def test_a_history(indexed, orders):
    document = indexed.json("recommend", "--history", "0.png, 2", "--baskets", orders, "-k", 2)
    assert len(document["for"]) == 2
    assert {item["path"].rpartition("/")[2] for item in document["items"]} == {"1.png", "3.png"}


def test_a_filter(indexed, orders):
    assert indexed.json("recommend", "0.png", "--baskets", orders, "--where", "year < 2000")["items"] == []
    assert "nothing to recommend" in indexed("recommend", "0.png", "--where", "year < 2000").stderr


def test_rules_and_a_table_of_all(indexed, orders, tmp_path):
    free = indexed.json("recommend", "0.png", "--baskets", orders)
    ruled = indexed.json("recommend", "0.png", "--baskets", orders, "--rule", "width > 2 * item.width")
    assert (len(free["items"]), ruled["items"]) == (5, [])
    assert indexed.json("recommend", "--rule", "width > 2 * item.width", "--save-rules")["items"] == []
    assert indexed.json("recommend", "0.png", "--baskets", orders, "--saved-rules")["items"] == []
    table = tmp_path / "all.csv"
    rule = ("--rule", "width <= 2 * item.width")
    result = indexed("recommend", "--baskets", orders, "--out", table, "-k", 2, *rule)
    assert "recommendations for all images" in result.stderr
    with table.open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 6
    first = [row for row in rows if row["id"] == free["for"][0]]
    assert [row["recommended_id"] for row in first] == [item["id"] for item in free["items"][:2]]
    assert [row["why"] for row in first] == [item["why"] for item in free["items"][:2]]
    some = tmp_path / "some.csv"
    assert "for 2 images are" in indexed("recommend", "3.png", "0", "--out", some, "-k", 2).stderr
    with some.open(newline="", errors="surrogateescape") as file:
        listed = [row["id"] for row in csv.DictReader(file)]
    ids = [indexed.json("recommend", name)["for"][0] for name in ("3.png", "0.png")]
    assert listed == [ids[0]] * 2 + [ids[1]] * 2


def test_the_page(indexed, orders, tmp_path):
    page = tmp_path / "page.html"
    indexed("recommend", "0.png", "--baskets", orders, "--html", page)
    html = page.read_text()
    assert "Bought together with 0<" in html
    assert "bought with 0 in" in html
    assert html.count("data:image/jpeg") == 6
    indexed("recommend", "--history", "0,2", "--html", page)
    assert "Similar to 2 images" in page.read_text()


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ((), "UsageError", "ID or --history"),
        (("0.png", "--history", "1"), "UsageError", "ID or --history"),
        (("nowhere.png",), "UnknownIdError", "nowhere.png"),
        (("--history", ","), "InvalidParameterError", "no id"),
        (("0.png", "--diversity", "2"), "UsageError", "diversity"),
        (("0.png", "--baskets", "/nowhere.csv"), "UsageError", "does not exist"),
        (("0.png", "--html", "page.txt"), "UsageError", ".html"),
        (("--history", "0.png", "--out", "x.csv"), "UsageError", "leave out --history"),
        (("0.png", "--rule", "year < item.month"), "FilterError", "item.month"),
        (("0.png", "--rule", "width > item.path"), "FilterError", "item.path"),
        (("0.png", "--to", "x.npz"), "UsageError", "add --baskets CSV"),
        (
            ("0.png", "--from", "x.npz", "--baskets", "{orders}"),
            "UsageError",
            "has learned from baskets already",
        ),
        (("--baskets", "{orders}", "--to", "x.npz", "--open"), "UsageError", "ID or --history"),
        (("0.png", "1.png"), "UsageError", "--out FILE.csv"),
        (("0.png", "--from", "nowhere.npz"), "InvalidParameterError", "at nowhere.npz"),
    ],
)
def test_bad_usage(indexed, orders, words, kind, message):
    words = [word.format(orders=orders) for word in words]
    error = indexed.json("recommend", *words, code=2)["error"]
    assert error["type"] == kind
    assert message in error["message"]


def test_baskets_of_which_most_rows_name_nothing_are_refused(indexed, tmp_path):
    (tmp_path / "orders.csv").write_text("basket,item\n1,0.png\n1,x\n2,y\n")
    error = indexed.json("recommend", "0.png", "--baskets", tmp_path / "orders.csv", code=2)["error"]
    assert "2 of the 3 rows" in error["message"]


def test_a_file_name_comes_before_the_beginning_of_an_id(nearsight, tmp_path, save_image):
    (tmp_path / "in").mkdir()
    save_image(tmp_path / "in" / "0.png", 0)
    nearsight("index", tmp_path / "in")
    start = nearsight.json("ls")["items"][0]["id"][:5]
    save_image(tmp_path / "in" / f"{start}.png", 1)
    nearsight("index", tmp_path / "in")
    [named] = [i["id"] for i in nearsight.json("ls")["items"] if i["path"].endswith(f"{start}.png")]
    assert nearsight.json("recommend", start)["for"] == [named]
