"""Labels as exports leave them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.errors import InvalidParameterError
from nearsight.services.doubtful_labels import find_doubtful, settle_labels

EXPORT = [
    ("1.jpg", "Shirt"), ("2.jpg", "shirt"), ("3.jpg", "shirt"), ("4.jpg", "hat"), ("5.jpg", "n/a"),
    ("6.jpg", "NaN"), ("7.jpg", "hat;shirt"), ("8.jpg", "hat, shirt"), ("9.jpg", "hat"), ("9.jpg", "shirt"),
    ("10.jpg", "t-shirt"), ("11.jpg", "T shirt"), ("12.jpg", "t-shirt"),
]  # fmt: skip


def kinds(pairs):
    return {(doubt.kind, *doubt.labels) for doubt in find_doubtful(pairs)}


def test_each_kind_of_doubt_is_named():
    assert kinds(EXPORT) == {
        ("spelling", "shirt", "Shirt"),
        ("spelling", "t-shirt", "T shirt"),
        ("missing", "n/a"),
        ("missing", "NaN"),
        ("several", "hat;shirt"),
        ("several", "hat, shirt"),
        ("contradiction", "hat", "shirt"),
    }


def test_what_is_no_doubt():
    pairs = [
        ("1", "salt, black and white"),
        ("2", "24/7 store"),
        ("3", "S & M"),
        ("4", "unknown"),
        ("5", "other"),
    ]
    assert kinds(pairs) == set()
    assert kinds([("1", "a"), ("1", "a"), ("2", "b")]) == set()


def test_two_forms_of_one_letter_are_one_label():
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert kinds([("1", composed), ("2", decomposed), ("3", composed)]) == {
        ("spelling", composed, decomposed)
    }


def test_doubt_stops_and_lists_everything():
    with pytest.raises(InvalidParameterError) as error:
        settle_labels(EXPORT, "refuse")
    for text in (
        "'shirt', 'Shirt'",
        "'n/a'",
        "'hat;shirt'",
        "9.jpg",
        "--doubtful-labels merge",
        "drop",
        "keep",
    ):
        assert text in str(error.value)


def test_merge_takes_one_spelling_and_leaves_the_rest_out():
    labels, doubts = settle_labels(EXPORT, "merge")
    assert labels == {
        "1.jpg": "shirt", "2.jpg": "shirt", "3.jpg": "shirt", "4.jpg": "hat",
        "10.jpg": "t-shirt", "11.jpg": "t-shirt", "12.jpg": "t-shirt",
    }  # fmt: skip
    assert len(doubts) == 7


def test_drop_leaves_all_of_them_out():
    labels, _ = settle_labels(EXPORT, "drop")
    assert labels == {
        "2.jpg": "shirt", "3.jpg": "shirt", "4.jpg": "hat", "10.jpg": "t-shirt", "12.jpg": "t-shirt",
    }  # fmt: skip


def test_a_row_that_says_nothing_contradicts_nothing():
    pairs = [("1.jpg", "hat"), ("1.jpg", "n/a"), ("2.jpg", "hat;scarf"), ("2.jpg", "scarf")]
    assert {doubt.kind for doubt in find_doubtful(pairs)} == {"missing", "several"}
    for doubtful in ("merge", "drop"):
        assert settle_labels(pairs, doubtful)[0] == {"1.jpg": "hat", "2.jpg": "scarf"}


def test_keep_takes_them_as_written_but_not_two_for_one_image():
    with pytest.raises(InvalidParameterError, match="9.jpg has the labels 'hat', 'shirt'") as error:
        settle_labels(EXPORT, "keep")
    assert "or keep" not in str(error.value)
    with pytest.raises(InvalidParameterError, match="1.jpg has the labels 'hat', 'n/a'"):
        settle_labels([("1.jpg", "hat"), ("1.jpg", "n/a")], "keep")
    pairs = [pair for pair in EXPORT if pair[0] != "9.jpg"]
    assert settle_labels(pairs, "keep")[0] == dict(pairs)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.text(max_size=6)), max_size=12))
def test_settled_labels_raise_no_more_doubts(pairs):
    for doubtful in ("merge", "drop"):
        labels, _ = settle_labels(pairs, doubtful)
        assert settle_labels(list(labels.items()), "refuse")[0] == labels
