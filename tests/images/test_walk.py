"""The walk of a folder: order, links, memory, and that each folder is read once."""

import os
import tracemalloc
from collections import Counter

import pytest

from nearsight.errors import ImageFailure
from nearsight.images import Exclusions, count, find, walk

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


def test_folders_that_link_in_circles_end(here):
    make("root/a.jpg", "root/sub/b.jpg", "outside/c.jpg")
    os.symlink("..", "root/sub/up")
    os.symlink(".", "root/self")
    os.symlink("sub", "root/another")
    os.symlink("../outside", "root/out")
    os.symlink("../outside", "root/out-again")
    os.symlink("../root", "outside/back")
    # what lies inside is met under its own name, what lies outside under the first link to it
    assert found("root") == ["root/a.jpg", "root/out-again/c.jpg", "root/sub/b.jpg"]
    assert count("root") == 3
    assert found("root/self") == ["root/self/a.jpg", "root/self/out-again/c.jpg", "root/self/sub/b.jpg"]


def test_a_link_to_a_hidden_folder_is_followed(here):
    make("root/.store/a.jpg")
    os.symlink(".store", "root/shown")
    assert found("root") == ["root/shown/a.jpg"]


def test_very_deep_folders(here):
    path = here
    for _ in range(60):
        path = path / ("d" * 50)
    folder = os.open(here, os.O_RDONLY)
    try:
        for _ in range(60):
            os.mkdir("d" * 50, dir_fd=folder)
            deeper = os.open("d" * 50, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = deeper
        os.close(os.open("a.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    finally:
        os.close(folder)
    assert len(str(path)) > 3000
    assert [one.path for one in find(".")] == [str(path / "a.jpg")]


def test_a_large_folder_is_sorted_in_parts(here, monkeypatch):
    make(*(f"{i * 7919 % 1000:03}.jpg" for i in range(1000)), "500/x.jpg")
    expected = [one.path for one in find(".")]
    assert len(expected) == 1001
    assert expected == sorted(expected)
    for n_names in (7, 999, 1000, 1001, 1002):
        monkeypatch.setattr(walk, "_MAX_SORTED_NAMES", n_names)
        assert [one.path for one in find(".")] == expected, n_names


def test_names_of_every_kind_survive_the_temporary_files(here, monkeypatch):
    monkeypatch.setattr(walk, "_MAX_SORTED_NAMES", 1)
    for name in (b"new\nline.jpg", b"caf\xe9.jpg", "été.jpg".encode(), b'"\\.jpg', b"folder.jpg"):
        os.mkdir(name) if name == b"folder.jpg" else os.close(os.open(name, os.O_CREAT))
    os.symlink("nowhere", "broken\n.jpg")
    make("folder.jpg/a.jpg")
    got = list(find("."))
    assert [one.path for one in got] == sorted(one.path for one in got)
    assert len(got) == 6
    assert next(one for one in got if isinstance(one, ImageFailure)).path == str(here / "broken\n.jpg")


def test_a_folder_is_read_once(here, monkeypatch):
    make(*(f"{i}.jpg" for i in range(50)))
    monkeypatch.setattr(walk, "_MAX_SORTED_NAMES", 10)
    folders, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: folders.append(folder) or scandir(folder))
    assert len(list(find("."))) == 50
    assert folders == [str(here)]


def test_memory_does_not_grow_with_the_number_of_images(here, monkeypatch):
    monkeypatch.setattr(walk, "_MAX_SORTED_NAMES", 1000)
    for name in range(6000):
        os.close(os.open(f"{name:05}.jpg", os.O_CREAT))
    tracemalloc.start()
    try:
        n_found = sum(1 for _ in find("."))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_found == 6000
    assert peak_bytes < 250_000  # the names alone take 450,000


def test_a_folder_that_vanishes_while_it_is_walked(here):
    make("a/1.jpg", "b/2.jpg", "c/3.jpg")
    images = find(".")
    first = next(images)
    os.remove("b/2.jpg")
    os.rmdir("b")
    rest = list(images)
    assert first.path.endswith("1.jpg")
    assert rest[0] == ImageFailure(str(here / "b"), "does not exist")
    assert rest[1].path.endswith("3.jpg")


def test_what_is_passed_over_is_counted_by_kind(here):
    make(
        "a.jpg", "sub/b.CR2", "c.cr2", "sub/d.psd", "e.mp4", ".f.jpg", ".g/h.jpg", "README", "i.a b", "j.jpg"
    )
    make("@eaDir/k.jpg", "sub/l.cr2", "sub/._m.jpg", ".nearsight/store/n.jpg", ".nearsightignore")
    os.truncate(".nearsightignore", 0)
    skipped = Counter()
    assert [os.path.relpath(one.path) for one in find(".", skipped=skipped)] == ["a.jpg", "j.jpg"]
    assert skipped == {
        ".cr2": 3,
        ".psd": 1,
        ".mp4": 1,
        "no ending": 2,
        "hidden": 2,
        "excluded": 2,
    }


def test_kinds_are_bounded(here):
    for number in range(300):
        os.close(os.open(f"file.{number}", os.O_CREAT))
    skipped = Counter()
    assert list(find(".", skipped=skipped)) == []
    assert sum(skipped.values()) == 300
    assert len(skipped) <= 101


def test_a_link_to_an_excluded_folder_is_not_followed(here):
    make("root/private/a.jpg", "root/b.jpg")
    os.symlink("private", "root/shown")
    assert found("root", exclusions=Exclusions(("private/",))) == ["root/b.jpg"]


def test_an_ignore_file_that_cannot_be_used_hides_its_folder(here):
    make("a/1.jpg", "b/2.jpg")
    with open("a/.nearsightignore", "w") as file:
        file.write("[z-a]\n")
    assert found(".") == [("a", f"{here}/a/.nearsightignore"), "b/2.jpg"]
