import unicodedata

import pytest

from nearsight.errors import InvalidParameterError
from nearsight.images.image_lookup import ImageLookup
from nearsight.text_format import nfc

NFC, NFD = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))


def lookup(*paths):
    return ImageLookup((letter * 32, [path]) for letter, path in zip("abcdef", paths, strict=False))


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("a" * 32, "a"),
        ("/shop/shoes/1.jpg", "a"),
        ("shoes/1.jpg", "a"),
        ("./shoes/../shoes/1.jpg", "a"),
        ("1.jpg", "ab"),
        ("2", "c"),
        ("hoes/1.jpg", ""),
        ("1.png", ""),
        ("a.b", "d"),
        ("c" * 12, "c"),
        # Fewer digits could be an article number.
        ("c" * 11, ""),
        ("", ""),
    ],
)
def test_names(name, ids):
    found = lookup("/shop/shoes/1.jpg", "/shop/hats/1.jpg", "/shop/hats/2.jpg", "/shop/a.b.jpg").find(name)
    assert found == {letter * 32 for letter in ids}


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("shoes/1.jpg", "a"),
        ("1.jpg", "ab"),
        ("2", "c"),
        ("hoes/1.jpg", ""),
        ("a", ""),
        ("tar://shoes/1.jpg::/data/a.tar", "a"),
        ("3.jpg", "d"),
        ("x/3.jpg", "d"),
        ("4", "e"),
    ],
)
def test_names_of_images_in_shards_and_at_urls(name, ids):
    members = [f"tar://{member}::/data/a.tar" for member in ("shoes/1.jpg", "hats/1.jpg", "2.jpg")]
    found = lookup(*members, "https://example.org/x/3.jpg?w=300", "s3://bucket/4.png").find(name)
    assert found == {letter * 32 for letter in ids}


def test_a_name_comes_before_the_beginning_of_an_id():
    images = ImageLookup([("4711" + "a" * 28, ["/x.jpg"]), ("b" * 32, ["/4711.jpg"])])
    assert images.find("4711", id_digits=4) == {"b" * 32}


def test_a_path_relative_to_the_table_comes_before_the_end_of_a_path():
    images = lookup("/shop/new/1.jpg", "/shop/old/new/1.jpg")
    assert images.find("new/1.jpg", "/shop") == {"a" * 32}
    assert images.find("new/1.jpg", "/shop/old") == {"b" * 32}
    assert images.find("new/1.jpg", "/elsewhere") == {"a" * 32, "b" * 32}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_compare_by_form_c(form):
    for stored in (NFC, NFD):
        for name in (f"/p/{stored}.jpg", f"{stored}.jpg", stored, f"p/{stored}.jpg"):
            assert lookup(f"/p/{stored}.jpg").find(unicodedata.normalize(form, name)) == {"a" * 32}


def test_two_files_that_differ_in_form_only_stay_two():
    images = lookup(f"/p/{NFC}.jpg", f"/p/{NFD}.jpg")
    for name in (f"/p/{NFC}.jpg", f"p/{NFC}.jpg", f"{NFC}.jpg", NFC):
        assert images.find(name) == {"a" * 32}
    for name in (f"/p/{NFD}.jpg", f"p/{NFD}.jpg", f"{NFD}.jpg", NFD):
        assert images.find(name) == {"b" * 32}


def test_rows_that_match_nothing_or_several_are_listed():
    images = lookup("/p/1.jpg", "/q/1.jpg", "/p/2.jpg")
    resolution = images.resolve(["2", "2.jpg", "p/1.jpg", "1", "gone", "gone"])
    assert resolution.ids == {"2": "c" * 32, "2.jpg": "c" * 32, "p/1.jpg": "a" * 32}
    assert resolution.unmatched == {"gone": 2}
    assert resolution.ambiguous == {"1": ["/p/1.jpg", "/q/1.jpg"]}
    assert (resolution.n_rows, resolution.n_lost) == (6, 3)
    resolution.require_most("t.csv")
    assert resolution.report("t.csv") == [
        "2 rows of t.csv skipped, because no image has the name: gone",
        "1 name of t.csv skipped, because several images have it; give the path instead:"
        " 1 (/p/1.jpg or /q/1.jpg)",
    ]


def test_a_table_with_more_than_half_of_its_rows_unmatched_is_refused():
    resolution = lookup("/p/1.jpg").resolve(["1", "x", "y"])
    with pytest.raises(InvalidParameterError, match=r"2 of the 3 rows of t\.csv name no image.*'x', 'y'"):
        resolution.require_most("t.csv")


def test_nfc():
    assert nfc(NFD) == nfc(NFC) == NFC
    assert nfc("\udcffe\u0301") == "\udcff\xe9"
