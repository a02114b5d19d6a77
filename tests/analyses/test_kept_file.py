"""Which of identical files is kept."""

import os

import pytest

from nearsight.analyses.kept_file import kept_file, n_distinct_files, passing_folder
from nearsight.collection import Item


@pytest.fixture
def item(tmp_path):
    """Make an item of files of the same bytes, each a second younger than the one before."""

    def make(*names):
        paths = []
        for age, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"image")
            os.utime(path, (1_000_000 + age, 1_000_000 + age))
            paths.append(str(path))
        return Item("0" * 32, paths[0], paths)

    return make


@pytest.mark.parametrize(
    "passing",
    [
        *("Trash", ".Trash-1000/files", "$RECYCLE.BIN/S-1-5", "#recycle", "lost+found", "Papierkorb"),
        *(".cache/viewer", "Caches", "a/tmp/b", "Temp", "@eaDir/a", ".thumbnails"),
        *("Downloads", "home/Download", "te\u0301le\u0301chargements", "Téléchargements"),
    ],
)
def test_a_file_that_may_disappear_is_not_kept_although_it_is_older_and_sorts_first(item, passing):
    kept = kept_file(item(f"{passing}/a.jpg", "photos/b.jpg"))
    assert kept.item.path.endswith("photos/b.jpg")
    assert [path.endswith("a.jpg") for path in kept.item.paths] == [False, True]
    assert kept.why.startswith("identical, and not in ")


@pytest.mark.parametrize("folder", ["template", "cached-light", "temperature", "trashy", "my downloads list"])
def test_folders_that_only_sound_alike(folder):
    assert passing_folder(f"/a/{folder}/b.jpg") == (0, "")


def test_a_download_outlasts_a_cache_and_a_cache_outlasts_a_bin(item):
    kept = kept_file(item("bin/Trash/a", "x/cache/a", "y/Downloads/a"))
    assert [path.split("/")[-2] for path in kept.item.paths] == ["Downloads", "cache", "Trash"]


def test_folders_that_hold_all_of_the_files_say_nothing(item):
    kept = kept_file(item("Downloads/new/b.jpg", "Downloads/a.jpg"))
    assert kept.item.path.endswith("new/b.jpg")
    assert kept.why == "the oldest of identical files"


def test_the_oldest_then_the_one_not_named_as_a_copy_then_the_first(item):
    assert kept_file(item("b.jpg", "a.jpg")).item.path.endswith("b.jpg")
    same_age = item("a (1).jpg", "a.jpg", "b.jpg")
    for path in same_age.paths:
        os.utime(path, (5, 5))
    kept = kept_file(same_age)
    assert (os.path.basename(kept.item.path), kept.why) == ("a.jpg", "the first of identical files")


def test_a_missing_file_is_not_kept(item):
    several = item("a.jpg", "b.jpg")
    os.unlink(several.paths[0])
    kept = kept_file(several)
    assert kept.item.path.endswith("b.jpg")
    assert kept.why == "the only one of identical files that is still there"


def test_hard_links_are_names_of_one_file(item, tmp_path):
    one = item("Trash/a.jpg", "new/copy.jpg")
    for name in ("b.jpg", "c.jpg"):
        os.link(tmp_path / "Trash/a.jpg", tmp_path / name)
    paths = [*one.paths, str(tmp_path / "b.jpg"), str(tmp_path / "c.jpg")]
    kept = kept_file(Item(one.id, paths[0], paths))
    names = {str(tmp_path / name) for name in ("Trash/a.jpg", "b.jpg", "c.jpg")}
    # The name outside the bin is kept; its further names free nothing, and only the copy does.
    assert (kept.item.path, set(kept.hard_links)) == (
        str(tmp_path / "b.jpg"),
        names - {str(tmp_path / "b.jpg")},
    )
    assert kept.item.paths[1:] == [str(tmp_path / "new/copy.jpg")]
    assert n_distinct_files(paths) == 2


def test_links_lead_to_the_kept_file(item, tmp_path):
    several = item("a.jpg", "b.jpg")
    (tmp_path / "link.jpg").symlink_to("b.jpg")
    kept = kept_file(Item(several.id, several.path, [*several.paths, str(tmp_path / "link.jpg")]))
    assert kept.item.paths == [str(tmp_path / "b.jpg"), str(tmp_path / "a.jpg")]
    assert kept.why == "identical, and links lead to it"


def test_one_file_and_none():
    alone = Item("0" * 32, "/gone/a.jpg", ["/gone/a.jpg"])
    assert (kept_file(alone).item, kept_file(alone).why) == (alone, "")
    memory = Item("0" * 32, "", [])
    assert kept_file(memory).item is memory


def test_members_of_shards_have_no_age(item):
    urls = ["tar://a.jpg::/data/a.tar", "https://example.org/a.jpg"]
    local = item("a.jpg")
    kept = kept_file(Item(local.id, urls[0], [*urls, *local.paths]))
    assert kept.item.path == local.path
    assert set(kept.item.paths[1:]) == {*urls}
