"""What a notebook shows of results: the first images and rows, and how many more there are."""

import pickle

from nearsight.collection.notebook import ShownImage, Thumbnails, images_html, rows_html
from nearsight.errors import UnknownIdError


def read(ids):
    return dict.fromkeys(ids, b"\xff\xd8\xff")


def test_the_first_rows_and_images_are_shown():
    rows = [(f"row {number}", [ShownImage(f"{number}-{i}") for i in range(number)]) for number in range(14)]
    page = rows_html(rows, Thumbnails(read))
    assert [f"<p>row {number}</p>" in page for number in range(14)] == [True] * 10 + [False] * 4
    assert page.count("data:image/jpeg;base64,/9j/") == sum(range(10))
    assert page.endswith("<p>and 4 more</p>")
    [longest] = [rows_html(rows[13:], Thumbnails(read))]
    assert longest.count("<img") == 10
    assert longest.endswith("<p>and 3 more</p>")


def test_texts_are_escaped_and_empty_ones_left_out():
    cards = [ShownImage("0123456789abcdef"), ShownImage("", "/p/<i>.png", "a & b")]
    page = rows_html([("<b>", cards)], Thumbnails())
    assert "<p>&lt;b&gt;</p>" in page
    assert '<figcaption title="">0123456789ab</figcaption>' in page
    assert '<figcaption title="/p/&lt;i&gt;.png">a &amp; b<br>&lt;i&gt;.png</figcaption>' in page


def test_an_image_that_is_gone_and_a_copy_are_shown_without_thumbnails():
    def gone(ids):
        raise UnknownIdError("no image has that id")

    cards = [ShownImage("a"), ShownImage("b")]
    for thumbnails in (Thumbnails(gone), pickle.loads(pickle.dumps(Thumbnails(read))), Thumbnails()):
        page = images_html(cards, thumbnails)
        assert page.count("<figure") == 2
        assert "<img" not in page
