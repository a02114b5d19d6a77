"""Folders, globs and files: what is found, in which order, and what is said about the rest."""

import os

import pytest

from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.images import count, covers, decode, exists, find, require_any, roots

from sample_images import samples

IMAGE = samples()["jpeg"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names):
    for name in names:
        folder = os.path.dirname(name)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(name, "wb") as file:
            file.write(IMAGE)


def found(inputs, **options):
    """Return relative paths; failures as (path, first words of the reason)."""
    got = []
    for one in find(inputs, **options):
        path = os.path.relpath(one.path) if os.path.isabs(one.path) else one.path
        got.append((path, one.reason.split(":")[0]) if isinstance(one, ImageFailure) else path)
    return got


def test_a_folder_is_walked_in_the_order_of_its_paths(here):
    make("b.jpg", "a/z.png", "a/b/c.WEBP", "a.jpg", "a-b.jpg", "B.jpg", "d/e.heic")
    got = [one.path for one in find(".")]
    assert got == sorted(
        str(here / n) for n in ("b.jpg", "a/z.png", "a/b/c.WEBP", "a.jpg", "a-b.jpg", "B.jpg", "d/e.heic")
    )
    assert [one.key for one in find(".")] == got
    assert count(".") == 7


def test_hidden_things_and_other_files_are_skipped(here):
    make("a.jpg", ".b.jpg", ".git/c.jpg", "d.txt", "e", "f.jpg.part", "g/.h/i.jpg")
    assert found(".") == ["a.jpg"]
    assert count(".") == 1


def test_a_folder_called_like_an_image_is_walked(here):
    make("x.jpg/y.jpg")
    os.mkdir("empty.jpg")
    assert found(".") == found("x.jpg") == ["x.jpg/y.jpg"]
    assert found("empty.jpg") == []


def test_a_named_file_is_always_tried_and_keeps_its_name(here):
    make("photo", ".hidden.dat", "sub/a.jpg")
    for name in ("photo", ".hidden.dat", "./photo", "sub/../photo"):
        [one] = find(name)
        assert one.path == name
        assert one.key == str(here / os.path.basename(name))
        assert decode(one).image.size == (64, 48)
    [one] = find(here / "photo")
    assert one.path == str(here / "photo")


def test_what_is_not_there_is_a_failure(here):
    make("a.jpg")
    assert found(["no.jpg", "a.jpg", "a.jpg/b.jpg", ""]) == [
        ("no.jpg", "does not exist"),
        "a.jpg",
        ("a.jpg/b.jpg", "does not exist"),
        ("", "does not exist"),
    ]
    assert count(["no.jpg", "a.jpg"]) == 2


def test_dangling_links_and_loops_of_links(here):
    make("a.jpg", "far/b.jpg")
    os.symlink("nowhere.jpg", "dangling.jpg")
    os.symlink("loop2.jpg", "loop1.jpg")
    os.symlink("loop1.jpg", "loop2.jpg")
    os.symlink("gone-folder", "album")
    os.symlink("nowhere.txt", "notes.txt")
    os.symlink("a.jpg", "link.jpg")
    assert found(".") == [
        "a.jpg",
        ("album", "is a dangling link"),
        ("dangling.jpg", "is a dangling link"),
        "far/b.jpg",
        "link.jpg",
        ("loop1.jpg", "is a loop of links"),
        ("loop2.jpg", "is a loop of links"),
    ]
    assert found(["dangling.jpg", "loop1.jpg"]) == [
        ("dangling.jpg", "is a dangling link"),
        ("loop1.jpg", "is a loop of links"),
    ]


def test_names_of_every_kind(here):
    odd = [
        b"new\nline.jpg",
        b"caf\xe9.jpg",
        "été.jpg".encode(),
        b" .jpg",
        b"a\\b.jpg",
        b"*.jpg",
        b"[1].jpg",
        b"100%.jpg",
    ]
    for name in odd:
        with open(name, "wb") as file:
            file.write(IMAGE)
    got = [os.fsencode(os.path.basename(one.path)) for one in find(".")]
    assert sorted(got) == sorted(odd)
    for name in odd:
        [one] = find(os.fsdecode(name))
        assert decode(one).image.size == (64, 48)
        assert one.path == os.fsdecode(name)


def test_globs(here):
    make(
        "a1.jpg",
        "a2.png",
        "b.jpg",
        ".h.jpg",
        "sub/a3.jpg",
        "sub/deep/a4.jpg",
        ".hid/a5.jpg",
        "t.txt",
        "raw.dat",
    )
    assert found("a*") == ["a1.jpg", "a2.png"]
    assert found("?[12].*") == ["a1.jpg", "a2.png"]
    assert found("**/*.jpg") == ["a1.jpg", "b.jpg", "sub/a3.jpg", "sub/deep/a4.jpg"]
    assert found("./sub/**/a*.jpg") == ["./sub/a3.jpg", "./sub/deep/a4.jpg"]
    assert found("s*/*.jpg") == ["sub/a3.jpg"]
    assert found(".h*.jpg") == [".h.jpg"]
    assert found("*") == ["a1.jpg", "a2.png", "b.jpg", "sub/a3.jpg", "sub/deep/a4.jpg"]  # text is no image
    assert found("*.dat") == ["raw.dat"]  # but what the pattern spells out is tried
    assert found("sub/**") == ["sub/a3.jpg", "sub/deep/a4.jpg"]
    assert found(str(here / "s?b" / "*.jpg")) == ["sub/a3.jpg"]
    assert found("*.bmp") == [("*.bmp", "does not exist, and as a pattern it matches nothing")]
    assert count("**/*.jpg") == 4
    assert count("*.bmp") == 1
    [one] = find("s*/a3.jpg")
    assert (one.path, one.key) == ("sub/a3.jpg", str(here / "sub/a3.jpg"))


def test_globs_do_not_run_in_circles(here):
    make("a/b.jpg")
    os.symlink("..", "a/up")
    assert found("**/*.jpg") == ["a/b.jpg"]


def test_inputs_keep_their_order_and_may_be_an_iterator(here):
    make("z.jpg", "f/b.jpg", "f/a.jpg", "a.jpg")
    inputs = ["z.jpg", "f", "a.jpg"]
    assert found(iter(inputs)) == found(tuple(inputs)) == ["z.jpg", "f/a.jpg", "f/b.jpg", "a.jpg"]
    assert count(iter(inputs)) is None
    assert count(inputs) == 4


def test_finding_is_lazy(here):
    make("a.jpg", "b/c.jpg")

    def endless():
        while True:
            yield "b"

    got = find(endless())
    assert [os.path.basename(next(got).path) for _ in range(3)] == ["c.jpg"] * 3


# -- what is covered, what still exists --------------------------------------------------------------------


def test_roots_cover_what_lies_below_them(here):
    make("f/a.jpg", "g.jpg", "p/x1.jpg", "p/y1.jpg", "p/s/x2.jpg")
    covered = roots(["f", "g.jpg", "p/x*.jpg", "gone.jpg", "no/such/place", b"bytes", "s3://bucket/dir"])

    def is_covered(name):
        return covers(covered, str(here / name))

    assert is_covered("f/a.jpg")
    assert is_covered("f/deep/er.jpg")
    assert not is_covered("f2/a.jpg")
    assert is_covered("g.jpg")
    assert is_covered("p/x1.jpg")
    assert is_covered("p/x-gone.jpg")
    assert not is_covered("p/y1.jpg")
    assert not is_covered("p/s/x2.jpg")
    assert is_covered("gone.jpg")
    assert not is_covered("gone.jpg/below.jpg")  # an unmounted disk is not an emptied one
    assert not is_covered("no/such/place/a.jpg")
    assert covers(covered, "s3://bucket/dir/a.jpg")
    assert not covers(covered, "s3://bucket/directory/a.jpg")


def test_everything_found_is_covered(here):
    make("a.jpg", "f/b.jpg", "f/s/c.jpg", "g/d1.jpg", "g/h/d2.jpg", "[x].jpg")
    for inputs in (".", ["a.jpg", "f"], "g/**/d*.jpg", "*", "g/**", ["[x].jpg", "./f/../a.jpg"], str(here)):
        covered = roots(inputs)
        keys = [one.key for one in find(inputs)]
        assert keys
        assert all(covers(covered, key) for key in keys), inputs


def test_patterns_with_several_depths():
    covered = ["glob:/p/**/x*/*.jpg"]
    assert covers(covered, "/p/x1/a.jpg")
    assert covers(covered, "/p/q/r/x1/a.jpg")
    assert not covers(covered, "/p/q/a.jpg")
    assert not covers(covered, "/o/x1/a.jpg")


def test_existence_is_denied_only_when_certain(here):
    make("a.jpg")
    os.symlink("loop", "loop")
    os.symlink("nowhere", "dangling.jpg")
    assert exists(str(here / "a.jpg"))
    assert not exists(str(here / "b.jpg"))
    assert not exists(str(here / "a.jpg/b.jpg"))
    assert not exists(str(here / "dangling.jpg"))
    assert exists(str(here / "loop"))
    assert exists("unknown://no-driver-here/a.jpg")
    assert not exists("memory://no/such.jpg")


def test_file_urls_are_local_files(here):
    make("a b.jpg", "f/c.jpg")
    [one] = find(f"file://{here}/a%20b.jpg")
    assert (one.path, one.key) == (f"file://{here}/a%20b.jpg", str(here / "a b.jpg"))
    assert [one.path for one in find(f"file://{here}/f")] == [str(here / "f/c.jpg")]
    assert covers(roots(f"file://{here}/f"), str(here / "f/c.jpg"))


def test_inputs_without_an_image_are_refused_with_the_rule(here):
    make("films/a.mp4", "notes/b.txt", "single.scan")
    rule = r"\. Of a folder, files count that end in \.jpg, .* single files, which may end in anything$"
    with pytest.raises(
        InvalidParameterError, match=r"^there is no image in films, notes: skipped: .*1 \.mp4.*" + rule
    ):
        require_any(["films", "notes"])
    with pytest.raises(InvalidParameterError, match="^there is no image in the inputs" + rule):
        require_any([])
    # As the rule says.
    require_any(["films", "single.scan"])
