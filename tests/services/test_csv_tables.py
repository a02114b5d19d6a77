import csv
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.errors import MetadataError
from nearsight.images.image_lookup import ImageLookup
from nearsight.services.csv_tables import (
    MetadataTable,
    parse_pair,
    read_baskets,
    read_customers,
    read_labels,
    read_rows,
    write_columns,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("place=Delft", ("place", "Delft")),
        ("n=-3", ("n", -3)),
        ("price=9.50", ("price", 9.5)),
        ("tiny=1e-3", ("tiny", 1e-3)),
        ("sold=TRUE", ("sold", True)),
        ("code=007", ("code", "007")),
        ('code="7"', ("code", "7")),
        ("equation=a=b", ("equation", "a=b")),
        ("huge=1e999", ("huge", "1e999")),
        ("word=nan", ("word", "nan")),
        ("empty=", ("empty", "")),
    ],
)
def test_a_pair_has_the_type_it_looks_like(text, expected):
    assert parse_pair(text) == expected
    assert type(parse_pair(text)[1]) is type(expected[1])


@pytest.mark.parametrize("text", ["", "place", "=x", " =x"])
def test_what_is_no_pair_is_refused(text):
    with pytest.raises(MetadataError, match="KEY=VALUE"):
        parse_pair(text)


def sheet(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "meta.csv"
    file.write_bytes(text.encode(encoding, "surrogateescape"))
    return MetadataTable(file)


def test_columns_have_one_type_each(tmp_path):
    rows = sheet(tmp_path, "path,n,price,sold,code\na.jpg,1,2,true,01\nb.jpg,2,2.5,FALSE,2\nc.jpg,,,,\n")
    assert rows.row(str(tmp_path / "a.jpg")) == {"n": 1, "price": 2.0, "sold": True, "code": "01"}
    assert rows.row(str(tmp_path / "b.jpg")) == {"n": 2, "price": 2.5, "sold": False, "code": "2"}
    assert rows.row(str(tmp_path / "c.jpg")) == {}
    assert len(rows) == 3


def test_paths_are_relative_to_the_sheet_absolute_or_addresses(tmp_path, monkeypatch):
    rows = sheet(tmp_path, f"path,n\nsub/a.jpg,1\n{tmp_path}/x/../b.jpg,2\ns3://bucket/c.jpg,3\n")
    assert rows.row(str(tmp_path / "sub/a.jpg")) == {"n": 1}
    assert rows.row(str(tmp_path / "b.jpg")) == {"n": 2}
    assert rows.row("s3://bucket/c.jpg") == {"n": 3}
    monkeypatch.chdir(tmp_path)
    assert rows.row("sub/a.jpg") == {"n": 1}


def test_rows_name_images_in_any_way(tmp_path):
    rows = sheet(tmp_path, "path,n\nsub/a.jpg,1\nb.jpg,2\nc,3\nd.jpg,4\ngone,5\nelsewhere,6\nhere.csv,7\n")
    (tmp_path / "here.csv").touch()
    paths = [str(tmp_path / name) for name in ("sub/a.jpg", "x/b.jpg", "x/c.png", "x/d.jpg", "y/d.jpg")]
    resolution = rows.resolve(paths, lambda: ImageLookup([("id", ["/far/elsewhere.jpg"])]))
    assert [rows.row(path) for path in paths] == [{"n": 1}, {"n": 2}, {"n": 3}, {}, {}]
    # A row for another image of the collection, or for another file, is not lost.
    assert resolution.unmatched == {"gone": 1}
    assert resolution.ambiguous == {"d.jpg": paths[3:]}
    assert (resolution.n_rows, resolution.n_lost) == (7, 2)


def test_two_rows_for_one_image_are_refused(tmp_path):
    rows = sheet(tmp_path, "path,n\na,1\nx/a.jpg,2\n")
    with pytest.raises(MetadataError, match=r"the rows 'a' and 'x/a.jpg' name the same image"):
        rows.resolve([str(tmp_path / "x/a.jpg")], lambda: None)


def test_forms_of_unicode_do_not_matter(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    for in_table, on_disk in ((nfc, nfd), (nfd, nfc)):
        rows = sheet(tmp_path, f"path,place\n{in_table}.jpg,{nfd}\n")
        path = str(tmp_path / f"{on_disk}.jpg")
        assert rows.resolve([path], lambda: None).ids == {f"{in_table}.jpg": path}
        assert rows.row(path) == {"place": nfc}
    assert parse_pair(f"place={nfd}") == parse_pair(f'place="{nfd}"') == ("place", nfc)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_a_byte_order_mark(tmp_path, separator):
    text = "\ufeff" + separator.join(["name", "path"]) + "\r\n" + separator.join(["Zoë", "a.jpg"]) + "\r\n"
    assert sheet(tmp_path, text).row(str(tmp_path / "a.jpg")) == {"name": "Zoë"}


def test_a_decimal_comma_where_semicolons_separate(tmp_path):
    rows = sheet(tmp_path, "path;price;note;n\na.jpg;3,50;1,2 m;1\nb.jpg;4;x;2\nc.jpg;;;\n")
    assert rows.row(str(tmp_path / "a.jpg")) == {"price": 3.5, "note": "1,2 m", "n": 1}
    assert rows.row(str(tmp_path / "b.jpg")) == {"price": 4.0, "note": "x", "n": 2}
    assert rows.row(str(tmp_path / "c.jpg")) == {}
    assert sheet(tmp_path, 'path,price\na.jpg,"3,50"\n').row(str(tmp_path / "a.jpg")) == {"price": "3,50"}


def test_what_spreadsheets_call_unicode_and_large_letters(tmp_path):
    rows = sheet(tmp_path, "Path\tPlace\na.jpg\tZürich\n", encoding="utf-16")
    assert rows.row(str(tmp_path / "a.jpg")) == {"Place": "Zürich"}
    (tmp_path / "labels.csv").write_text("PATH,Label\na.jpg,cat\n")
    assert read_labels(tmp_path / "labels.csv") == [("a.jpg", "cat")]


def test_a_quote_that_is_never_closed(tmp_path):
    with pytest.raises(MetadataError, match="close each quote"):
        sheet(tmp_path, 'path,n\na.jpg,"' + "x" * 200_000)


def test_a_name_that_is_not_utf8_is_found(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    assert sheet(tmp_path, f"path,n\n{name},1\n").row(str(tmp_path / name)) == {"n": 1}


def test_quoted_cells_may_hold_separators_and_lines(tmp_path):
    rows = sheet(tmp_path, 'path,note\n"a,\nb.jpg","x, ""y"""\n')
    assert rows.row(str(tmp_path / "a,\nb.jpg")) == {"note": 'x, "y"'}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,n\na.jpg,1\n", "needs the column path"),
        ("", "needs the column path"),
        ("path,n,n\na.jpg,1,2\n", "2 columns named n"),
        ("path,n\na.jpg\n", "line 2: 1 cells where the header has 2"),
        ("path,n\na.jpg,1\n./a.jpg,2\n", "line 3: a second row"),
        ("path,n\n,1\n", "line 2: the path is empty"),
    ],
)
def test_a_bad_sheet_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(MetadataError, match=message):
        sheet(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,image\na,b\n", "customer and image"),
        ("customer,image\n,\n", "no line"),
        ("customer,image,weight\na,b,none\n", "line 2: the weight 'none'"),
        ("customer,image,weight\na,b,1\na,b,-1\n", "line 3.*delete the line"),
        ('customer,image,weight\na,b,"2,5"\n', "the weight '2,5'.*for example 2.5"),
        ("customer;image;weight\na;b;1.000,5\n", "the weight '1.000,5'"),
        ("customer,customer,image\na,b,c\n", "2 columns named customer"),
        ("customer\0,image\na,b\n", "is not a text file"),
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


@pytest.mark.parametrize(
    "text",
    [
        "basket,item\n1,a\n1,b\n2,a\n",
        "\ufeffbasket;item;price\n1;a;3,50\n1;b;\n2;a;1\n",
        "Basket,ITEM\n1,a\n1,b\n2,a\n",
        "item\tbasket\na\t1\n\nb\t1\nlonely\na\t2\n\t2\n",
    ],
)
def test_kinds_of_csv(tmp_path, text):
    file = tmp_path / "baskets.csv"
    file.write_text(text, encoding="utf-8")
    assert read_baskets(file) == {"1": ["a", "b"], "2": ["a"]}


@pytest.mark.parametrize(
    ("text", "message"), [("order,sku\n1,a\n", "order,sku"), ("basket,item\n", "no line")]
)
def test_a_csv_without_baskets(tmp_path, text, message):
    file = tmp_path / "baskets.csv"
    file.write_text(text)
    with pytest.raises(MetadataError, match=message):
        read_baskets(file)


NASTY = st.text(st.sampled_from("=+-@\t\r\n'\",; 15.eé\udcff"), max_size=6)


@given(st.lists(st.tuples(NASTY, NASTY), max_size=5))
def test_a_written_table_is_read_as_it_was_and_holds_no_formula(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("tables") / "table.csv"
    write_columns(file, ["path", "=note"], rows)
    assert [(row["path"], row["=note"]) for _, row in read_rows(file, "path")] == [r for r in rows if any(r)]
    # A reader that knows no marks, as a spreadsheet is, sees text or numbers.
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
        for cell in (cell for line in csv.reader(handle) for cell in line):
            if cell[:1] in {*"=+-@\t\r\n"} and cell:
                float(cell)
