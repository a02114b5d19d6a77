"""What may be created where, and that an interrupted creation goes on."""

import shutil
import textwrap
from pathlib import Path

import numpy as np
import preloaded
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses.dimension_reduction import fill_reduced
from nearsight.artifacts import DirectoryState
from nearsight.collection import manifest
from nearsight.errors import CollectionNotFoundError, InvalidParameterError, NotACollectionError

from fake import FakeBackend

# Dies, as by kill -9, before the n-th change of the file system that Python makes below the directory; says
# on stdout when there is no n-th.
CREATE = """
    import os, sys
    from fake import FakeBackend
    from nearsight import Collection

    directory, n_allowed = sys.argv[1], int(sys.argv[2])
    CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}

    def hook(event, arguments):
        global n_allowed
        is_written = event == "open" and arguments[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        if (event in CHANGES or is_written) and directory in os.fsdecode(str(arguments[0])):
            if n_allowed == 0:
                os._exit(9)
            n_allowed -= 1

    sys.addaudithook(hook)
    Collection.create(directory, model=FakeBackend())
    print("done", flush=True)
"""


def create(directory: Path) -> Collection:
    return Collection.create(directory, model=FakeBackend())


def check_usable(directory: Path) -> None:
    assert manifest.state_of(directory) is not DirectoryState.FOREIGN
    collection = create(directory)
    assert collection.add(np.zeros((2, 16, 16, 3), np.uint8) + np.uint8([[[[0]]], [[[99]]]])).added == 2
    assert len(Collection.open(directory)) == 2


@pytest.mark.slow
def test_a_creation_killed_at_any_step_goes_on(tmp_path: Path) -> None:
    for n_allowed in range(100):
        directory = tmp_path / str(n_allowed) / "collection"
        result = preloaded.run(textwrap.dedent(CREATE), directory, n_allowed)
        if result.stdout == "done\n":
            break
        assert result.returncode == 9, result.stderr
        if not directory.exists() or manifest.state_of(directory) is not DirectoryState.COMPLETE:
            with pytest.raises(CollectionNotFoundError):
                Collection.open(directory)
        check_usable(directory)
    assert n_allowed >= 5


def test_a_store_of_which_any_files_are_there_is_made_again(tmp_path: Path) -> None:
    """The engine writes in Rust, which no audit hook sees: so every subset in order of writing is tried."""
    create(tmp_path / "whole")
    store = tmp_path / "whole" / manifest.STORE
    files = sorted((p for p in store.rglob("*")), key=lambda path: (path.stat().st_mtime_ns, str(path)))
    assert len(files) >= 4
    for n_files in range(len(files) + 1):
        directory = tmp_path / str(n_files)
        directory.mkdir()
        (directory / manifest.LOCK).touch()
        for source in files[:n_files]:
            target = directory / manifest.STORE / source.relative_to(store)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                shutil.copy(source, target)
        check_usable(directory)


@pytest.mark.parametrize(
    "leftovers",
    [
        (),
        (manifest.LOCK,),
        (manifest.LOCK, ".collection.json.0a1b2c3d"),
        (manifest.LOCK, manifest.BUILD_LOCK, ".projection.npz.0a1b2c3d", manifest.PROJECTION),
    ],
)
def test_leftovers_are_no_hindrance(tmp_path: Path, leftovers: tuple[str, ...]) -> None:
    for name in leftovers:
        (tmp_path / name).write_bytes(b"half")
    state = manifest.state_of(tmp_path)
    assert state is (DirectoryState.RECOVERABLE if leftovers else DirectoryState.FREE)
    with pytest.raises(CollectionNotFoundError, match=r"Collection\.create"):
        Collection.open(tmp_path)
    check_usable(tmp_path)


@pytest.mark.parametrize(
    "name", ["letter.txt", "store/letter.txt", "store", ".collection.json.txt", "full/letter.txt", "faces"]
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("dear")
    assert manifest.state_of(tmp_path) is DirectoryState.FOREIGN
    for attempt in (Collection.open, create):
        with pytest.raises(NotACollectionError, match="not a nearsight collection"):
            attempt(tmp_path)
    assert file.read_text() == "dear"
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()] == [name]


def test_rows_without_a_manifest_are_never_deleted(tmp_path: Path) -> None:
    collection = create(tmp_path / "c")
    collection.add(np.zeros((16, 16, 3), np.uint8))
    kept = (tmp_path / "c" / manifest.FILENAME).rename(tmp_path / "kept.json")
    with pytest.raises(NotACollectionError, match="restore that file"):
        create(tmp_path / "c")
    kept.rename(tmp_path / "c" / manifest.FILENAME)
    assert len(Collection.open(tmp_path / "c")) == 1


def test_a_dangling_link_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert manifest.state_of(tmp_path / "link") is DirectoryState.FOREIGN
    with pytest.raises(NotACollectionError):
        create(tmp_path / "link")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["postgres", "milvus"], indirect=True)
def test_shorter_vectors_are_made_at_a_uri_and_searched_from_another_machine(place, tmp_path, monkeypatch):
    # So long is the projection that Milvus has no row for it.
    rng = np.random.default_rng(0)
    images = [Image.fromarray(pixels) for pixels in rng.integers(0, 256, (12, 24, 24, 3), np.uint8)]
    models = {"model": "efficientnet-lite0", "cache_dir": tmp_path / "cache"}
    with pytest.raises(InvalidParameterError, match="embedded images are kept"):
        fill_reduced(place, 10, lambda collection: collection.add(images[:2], progress=False), **models)
    with pytest.raises(NotACollectionError, match="an unfinished collection of projected vectors"):
        Collection.open(place)
    report = fill_reduced(place, 10, lambda collection: collection.add(images, progress=False), **models)
    assert report.added + report.unchanged == 12
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "elsewhere"))
    collection = Collection.open(place, cache_dir=tmp_path / "cache")
    assert (collection.spec.dim, len(collection)) == (10, 12)
    [match] = collection.search(images[3], k=1)
    assert match.similarity > 0.999
