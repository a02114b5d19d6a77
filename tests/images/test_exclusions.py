"""What a walk passes over, with git itself as the oracle for patterns."""

import os
import shutil
import subprocess
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearsight.errors import InvalidParameterError
from nearsight.images import Exclusions, count, excluded_from, find, roots
from nearsight.images.exclusions import PathRules


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, *patterns: str, hidden: bool = False, inputs=None, skipped=None) -> list[str]:
    exclusions = Exclusions(patterns, include_hidden=hidden)
    got = [str(one.path) for one in find(inputs or root, exclusions=exclusions, skipped=skipped)]
    assert count(inputs or root, exclusions=exclusions) == len(got)
    return sorted(os.path.relpath(path, root) for path in got)


SYSTEM = [
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "#recycle/a.jpg",
    "$RECYCLE.BIN/a.jpg",
    "$Recycle.Bin/S-1/a.jpg",
    "lost+found/a.jpg",
    ".thumbnails/a.jpg",
    ".Trash/a.jpg",
    ".Trash-1000/files/a.jpg",
    ".Trashes/a.jpg",
    ".@__thumb/a.jpg",
    "@Recycle/a.jpg",
    "System Volume Information/a.jpg",
    "__MACOSX/a.jpg",
    "._a.jpg",
    "sub/._b.jpg",
    "SYNOPHOTO_THUMB_M.jpg",
]


@pytest.mark.parametrize("hidden", [False, True])
def test_other_programs_leftovers_are_excluded(tmp_path, hidden):
    make(tmp_path, "a.jpg", "sub/b.jpg", *SYSTEM, *(f"deep/er/{name}" for name in SYSTEM))
    skipped = Counter()
    assert found(tmp_path, hidden=hidden, skipped=skipped) == ["a.jpg", "sub/b.jpg"]
    assert skipped == {"excluded": 2 * len(SYSTEM)}


def test_what_is_named_is_walked_whatever_its_name(tmp_path):
    make(tmp_path, "@eaDir/a.jpg", ".hidden/b.jpg", "n/.nomedia", "n/c.jpg")
    for name in ("@eaDir", ".hidden", "n"):
        assert len(found(tmp_path / name)) == 1
    assert found(tmp_path, inputs=str(tmp_path / "@eaDir" / "a.jpg")) == ["@eaDir/a.jpg"]


def test_a_folder_with_nomedia_is_excluded_with_all_below(tmp_path):
    make(tmp_path, "a.jpg", "b/.nomedia", "b/c.jpg", "b/d/e.jpg")
    assert found(tmp_path) == found(tmp_path, hidden=True) == ["a.jpg"]


def test_hidden_names_are_walked_if_wanted(tmp_path):
    make(tmp_path, "a.jpg", ".b.jpg", ".c/d.jpg", ".nearsight/collection.json", ".nearsight/x.jpg")
    assert found(tmp_path) == ["a.jpg"]
    assert found(tmp_path, hidden=True) == [".b.jpg", ".c/d.jpg", "a.jpg"]


def test_exclamation_marks_include_again(tmp_path):
    make(tmp_path, "a.jpg", "lost+found/b.jpg", ".c/d.jpg", "._e.jpg", "f.png", "g.png")
    assert found(tmp_path, "!lost+found/") == ["a.jpg", "f.png", "g.png", "lost+found/b.jpg"]
    assert found(tmp_path, "!.c/") == [".c/d.jpg", "a.jpg", "f.png", "g.png"]
    # As in a shell, a wildcard does not stand for a hidden name.
    assert found(tmp_path, "*.*", "!*.jpg", "!g.png") == ["a.jpg", "g.png"]


def test_nested_files_and_the_command_line(tmp_path):
    make(tmp_path, "1.jpg", "a/1.jpg", "a/2.jpg", "a/b/1.jpg", "a/b/3.jpg", "c/2.jpg")
    (tmp_path / ".nearsightignore").write_text("# comment\n1.jpg\n\n")
    (tmp_path / "a" / ".nearsightignore").write_text("/2.jpg\n!b/1.jpg\n")
    assert found(tmp_path) == ["a/b/1.jpg", "a/b/3.jpg", "c/2.jpg"]
    assert found(tmp_path, "!1.jpg", "b/") == ["1.jpg", "a/1.jpg", "c/2.jpg"]
    # The files of the folders above the one that is walked do not count, as nothing above it does.
    assert found(tmp_path / "a") == ["1.jpg", "b/1.jpg", "b/3.jpg"]


def test_paths_below_the_folder_will_do(tmp_path, monkeypatch):
    make(tmp_path, "p/a/1.jpg", "p/b/2.jpg", "p/a/b/3.jpg")
    assert found(tmp_path / "p", f"{tmp_path}/p/b") == ["a/1.jpg", "a/b/3.jpg"]
    assert found(tmp_path / "p", f"{tmp_path}/p/a/", f"!{tmp_path}/p/b/") == ["b/2.jpg"]
    monkeypatch.chdir(tmp_path)
    assert found(tmp_path / "p", "p/b/") == ["a/1.jpg", "a/b/3.jpg"]


def test_files_and_globs(tmp_path, monkeypatch):
    make(
        tmp_path,
        "a.jpg",
        "a_small.jpg",
        "s/b.jpg",
        "s/@eaDir/b.jpg",
        "s/.c.jpg",
        "s/notes.txt",
        "n/.nomedia",
        "n/d.jpg",
    )
    monkeypatch.chdir(tmp_path)
    assert found(tmp_path, "*_small.jpg", inputs=["a.jpg", "a_small.jpg"]) == ["a.jpg"]
    assert found(tmp_path, inputs="**/*.jpg") == ["a.jpg", "a_small.jpg", "s/b.jpg"]
    assert found(tmp_path, "s/", inputs="**/*.jpg") == ["a.jpg", "a_small.jpg"]
    assert found(tmp_path, inputs="**/*.jpg", hidden=True) == ["a.jpg", "a_small.jpg", "s/.c.jpg", "s/b.jpg"]
    assert found(tmp_path, inputs="s/.*.jpg") == ["s/.c.jpg"]
    skipped = Counter()
    assert found(tmp_path, inputs="s/*", skipped=skipped) == ["s/b.jpg"]
    assert skipped == {".txt": 1, "excluded": 1}


def test_forms_of_unicode_do_not_matter(tmp_path):
    nfd, nfc = (unicodedata.normalize(form, "été") for form in ("NFD", "NFC"))
    make(tmp_path, f"{nfd}/1.jpg", f"{nfc}/2.jpg", "3.jpg")
    for pattern in (nfd, nfc):
        assert found(tmp_path, f"{pattern}/") == ["3.jpg"]
    (tmp_path / ".nearsightignore").write_text(f"{nfd}/\n", encoding="utf-8")
    assert found(tmp_path) == ["3.jpg"]


@pytest.mark.parametrize("pattern", ["!", "[z-a]", "a\\\\\\"])
def test_a_pattern_that_is_not_valid_is_named(pattern):
    with pytest.raises(InvalidParameterError, match="gitignore"):
        Exclusions((pattern,))


NAMES = st.sampled_from(["a", "b", "c.jpg", "d.jpg", "é.jpg", "[x].jpg"])
PATTERNS = st.lists(
    st.from_regex(
        r"!?/?(\*\*/)?(a|b|\*|a/b|\*/b)?/?(/c\.jpg|\*\.jpg|d\.*|[ab]|é\.jpg|\?\.jpg|\\\[x\]\.jpg)?/?",
        fullmatch=True,
    ).filter(lambda text: text.strip("!/") and "//" not in text),
    max_size=4,
)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=PATTERNS, nested=PATTERNS)
def test_patterns_mean_what_they_mean_to_git(tmp_path_factory, patterns, nested):
    root = tmp_path_factory.mktemp("git")
    folders = ["", "a/", "b/", "a/a/", "a/b/", "b/a/b/"]
    make(root, *(f"{folder}{name}" for folder in folders for name in ("c.jpg", "d.jpg", "é.jpg", "[x].jpg")))
    for folder, lines in (("", patterns), ("a/", nested)):
        text = "".join(f"{line}\n" for line in lines)
        (root / folder / ".nearsightignore").write_text(text, encoding="utf-8")
        (root / folder / ".gitignore").write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"], cwd=root, check=True, capture_output=True
    )
    expected = sorted(name for name in listed.stdout.decode().split("\0") if name.endswith(".jpg"))
    assert found(root) == expected


def test_rules_of_a_path_are_those_of_the_walk(tmp_path):
    make(tmp_path, "a.jpg", "p/b.jpg", "p/q/c.jpg", ".h/d.jpg", "@eaDir/e.jpg", "n/.nomedia", "n/f.jpg")
    (tmp_path / "p" / ".nearsightignore").write_text("q/\n")
    rules = PathRules(Exclusions(("a.*",)), str(tmp_path))
    paths = ["a.jpg", "p/b.jpg", "p/q/c.jpg", ".h/d.jpg", "@eaDir/e.jpg", "n/f.jpg"]
    reasons = [rules.reason(path) for path in paths]
    assert reasons == ["excluded", None, "excluded", "hidden", "excluded", "excluded"]
    is_excluded = excluded_from(roots([tmp_path]), Exclusions(("a.*",)))
    assert [is_excluded(str(tmp_path / path)) for path in paths] == [True, False, True, False, True, True]
    # Not below a root that is walked; or below one that includes it.
    assert not excluded_from(roots([tmp_path / "p"]), Exclusions())(str(tmp_path / "@eaDir/e.jpg"))
    both = excluded_from(roots([tmp_path, tmp_path / "@eaDir"]), Exclusions())
    assert not both(str(tmp_path / "@eaDir/e.jpg"))
