"""The trash: what went there comes back byte for byte and row for row, whenever the process is killed."""

import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import preloaded
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection import removal
from nearsight.collection.upgrade import Upgrade
from nearsight.errors import InvalidParameterError, StorageError
from nearsight.services import trash as trash_module
from nearsight.services.trash import FOLDER, Trash, certainly_redundant

from fake import FakeBackend


def save(path, seed):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Three images; one lies in two identical files, of the same name."""
    for i, name in enumerate(["a.png", "b.png", "deep/c.png"]):
        save(tmp_path / "root" / name, i)
    (tmp_path / "root" / "deep" / "a.png").write_bytes((tmp_path / "root" / "a.png").read_bytes())
    return tmp_path / "root"


@pytest.fixture
def collection(tmp_path, root):
    collection = Collection.create(tmp_path / "c", model=FakeBackend())
    collection.add(root, metadata=lambda path: {"name": Path(path).name}, progress=False)
    return collection


@pytest.fixture
def trash(collection, root):
    return Trash(collection, [root])


def digest(data):
    return hashlib.sha256(data).hexdigest()


def state(collection, root):
    """Everything that must come back: files below the root, and rows with vectors, thumbnails and dates."""
    files = {
        str(path.relative_to(root)): digest(path.read_bytes())
        for path in root.rglob("*")
        if path.is_file() and FOLDER not in path.parts
    }
    stored = Collection.open(collection.directory)
    rows = stored.rows([item.id for item in stored.items()]).to_pylist()
    return files, {row["id"]: digest(repr(row).encode()) for row in rows}


def image(collection, name):
    return next(item.id for item in collection.items() if any(Path(p).name == name for p in item.paths))


def contents(folder):
    return sorted(digest(path.read_bytes()) for path in folder.rglob("*.png"))


def test_an_image_with_all_its_files_comes_back_as_it_was(collection, root, trash):
    before = state(collection, root)
    a, b = image(collection, "a.png"), image(collection, "b.png")
    thumbnails = collection.thumbnails([a, b])
    assert trash.thumbnail(a) is None
    report = trash.put({a: None, b: None})
    assert {id: trash.thumbnail(id) for id in (a, b)} == thumbnails
    assert trash.thumbnail(image(collection, "c.png")) is None
    files, rows = state(collection, root)
    assert set(files) == {"deep/c.png"}
    assert len(rows) == 1
    assert contents(collection.directory / FOLDER) == sorted(
        before[0][n] for n in ("a.png", "b.png", "deep/a.png")
    )
    assert report.refused == []
    [entry] = Trash(collection, [root]).entries()
    assert entry == report.entry or sorted(entry.ids) == sorted([a, b])
    trash.restore(entry.id)
    assert state(collection, root) == before
    assert trash.entries() == []
    assert list((collection.directory / FOLDER).iterdir()) == []
    with pytest.raises(InvalidParameterError, match="put back already"):
        trash.restore(entry.id)


def test_images_come_back_to_a_collection_that_was_upgraded_since(collection, root, trash):
    a, b = image(collection, "a.png"), image(collection, "b.png")
    put = trash.put({a: [str(root / "a.png")], b: None})
    run = Upgrade(collection, FakeBackend(1))
    run.shadow(progress=False)
    run.verify()
    new = run.switch()
    new.update_metadata([a], [{"name": "new"}])
    later = Trash(new, [root])
    later.restore(put.entry.id)
    assert later.entries() == []
    assert set(new.get(a).paths) == {str(root / "a.png"), str(root / "deep" / "a.png")}
    assert (new.get(a).metadata, new.get(b).metadata) == ({"name": "new"}, {"name": "b.png"})
    [match] = new.search(root / "b.png", k=1)
    assert (match.id, match.similarity) == (b, pytest.approx(1, abs=1e-4))
    assert later.put({b: None}).entry is not None


def test_one_of_identical_files_goes_and_the_image_stays(collection, root, trash):
    before = state(collection, root)
    a = image(collection, "a.png")
    deep = str(root / "deep" / "a.png")
    group = {"keep": a, "ids": [a], "certain": True, "redundant": [deep]}
    assert certainly_redundant(collection, group) == {a: [deep]}
    entry = trash.put(certainly_redundant(collection, group)).entry
    assert [Path(p) for p in collection.get(a).paths] == [root / "a.png"]
    assert set(state(collection, root)[0]) == {"a.png", "b.png", "deep/c.png"}
    trash.restore(entry.id)
    assert state(collection, root) == before
    with pytest.raises(InvalidParameterError, match="needs a look"):
        certainly_redundant(collection, {**group, "certain": False})
    (root / "a.png").write_bytes(b"something else")
    with pytest.raises(InvalidParameterError, match="gone or has changed"):
        certainly_redundant(collection, group)


def test_files_that_may_not_move_are_refused_and_their_image_stays(collection, root, tmp_path, monkeypatch):
    names = ("a.png", "b.png", "c.png")
    a, b, c = (image(collection, name) for name in names)
    deep = Trash(collection, [root / "deep"])
    # One of the two files of the first image lies outside.
    report = deep.put({a: None, b: None, c: None})
    assert {each.id for each in report.refused} == {a, b}
    assert "--root" in report.refused[0].reason
    deep.restore(report.entry.id)
    before = state(collection, root)
    trash = Trash(collection, [root])
    (root / "b.png").write_bytes(b"another image")
    os.utime(root / "b.png", (1, 1))
    (root / "deep" / "c.png").rename(tmp_path / "c.png")
    (root / "deep" / "c.png").symlink_to(tmp_path / "c.png")
    reasons = {each.id: each.reason for each in trash.put({b: None, c: None}).refused}
    assert "changed" in reasons[b]
    assert "link" in reasons[c]
    with monkeypatch.context() as patched:
        patched.setattr(trash_module.os, "access", lambda path, mode: Path(path) != root / "deep")
        [refused] = trash.put({a: None}).refused
    assert "folder may not be written" in refused.reason
    assert state(collection, root)[1] == before[1]
    assert trash.entries() == []


def test_a_disk_that_refuses_leaves_everything_as_it_was(collection, root, trash, monkeypatch):
    before, rename, n_moved = state(collection, root), os.rename, []

    def refuse(source, target):
        if len(n_moved) == 2:
            raise PermissionError(13, "Permission denied")
        n_moved.append(source)
        rename(source, target)

    monkeypatch.setattr(trash_module.os, "rename", refuse)
    with pytest.raises(StorageError, match="where they were"):
        trash.put({item.id: None for item in collection.items()})
    assert len(n_moved) == 2
    assert state(collection, root) == before
    assert trash.entries() == []


def test_another_file_in_the_place_is_never_replaced(collection, root, trash):
    entry = trash.put({image(collection, "b.png"): None}).entry
    save(root / "b.png", 99)
    newer = (root / "b.png").read_bytes()
    with pytest.raises(InvalidParameterError, match=r"b\.png is there now"):
        trash.restore(entry.id)
    assert (root / "b.png").read_bytes() == newer
    assert len(contents(collection.directory / FOLDER)) == 1


def test_a_file_in_the_way_or_a_damaged_journal_stops_nothing_else(collection, root, trash, monkeypatch):
    a, b = image(collection, "a.png"), image(collection, "b.png")
    with monkeypatch.context() as patched:
        patched.setattr(Collection, "remove_files", killed)
        with pytest.raises(Killed):
            trash.put({b: None})
    save(root / "b.png", 99)
    newer = (root / "b.png").read_bytes()
    trash.recover()
    assert (root / "b.png").read_bytes() == newer
    entry = trash.put({a: None}).entry
    trash.restore(entry.id)
    (root / "b.png").unlink()
    trash.recover()
    assert trash.entries() == []
    assert (root / "b.png").exists()
    entry = trash.put({b: None}).entry
    (collection.directory / FOLDER / entry.id / "entry.json").write_text("{")
    trash.recover()
    with pytest.raises(StorageError, match="damaged"):
        trash.restore(entry.id)
    assert len(contents(collection.directory / FOLDER)) == 1


class Killed(BaseException):
    """Ends the process as `kill -9` would: nothing that catches errors may catch it."""


def killed(*_):
    raise Killed


def kill_at(patched, step):
    """Raise `Killed` before or after one of all calls that change something; return the list of steps."""
    steps = []

    def tick(name):
        steps.append(name)
        if len(steps) == step:
            raise Killed(name)

    def counted(owner, name):
        real = getattr(owner, name)

        def call(*args, **options):
            tick(f"before {name}")
            result = real(*args, **options)
            tick(f"after {name}")
            return result

        patched.setattr(owner, name, call)

    for name in ("rename", "link", "unlink"):
        counted(trash_module.os, name)
    for name in ("mkdir", "rmdir"):
        counted(Path, name)
    for name in ("_write_rows", "_remove_folder"):
        counted(trash_module, name)
    for name in ("_update", "_set_files"):
        counted(removal, name)
    counted(Trash, "_note")
    for name in ("remove_files", "restore_rows"):
        counted(Collection, name)
    return steps


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_all_or_nothing(collection, root, monkeypatch):
    before = state(collection, root)
    a, b = image(collection, "a.png"), image(collection, "b.png")
    wanted = {a: [str(root / "deep" / "a.png")], b: None}
    outcomes = {"put": set(), "restore": set()}
    for work in ("put", "restore"):
        step, finished = 0, False
        while not finished:
            step += 1
            trash = Trash(Collection.open(collection.directory), [root])
            if work == "restore":
                trash.put(wanted)
                away = state(collection, root)
            with monkeypatch.context() as patched:
                kill_at(patched, step)
                try:
                    trash.put(wanted) if work == "put" else trash.restore(trash.entries()[0].id)
                    finished = True
                except Killed:
                    pass
            later = Trash(Collection.open(collection.directory), [root])
            later.recover()
            now, entries = state(collection, root), later.entries()
            if entries:
                assert set(now[0]) == {"a.png", "deep/c.png"}, step
                assert b not in now[1], step
                if work == "restore":
                    assert now == away, step
                later.restore(entries[0].id)
            else:
                assert now == before, step
            outcomes[work].add(bool(entries))
            assert state(collection, root) == before, step
            assert later.entries() == [], step
            assert list((collection.directory / FOLDER).glob("*")) == [], step
        assert step > 15
    assert outcomes == {"put": {True, False}, "restore": {True, False}}


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from nearsight import Collection
from nearsight.services import trash
collection = Collection.open({directory!r})
real = getattr({owner}, {name!r})
def call(*args, **options):
    real(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr({owner}, {name!r}, call)
trash.Trash(collection, [{root!r}]).put(dict.fromkeys([item.id for item in collection.items()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
@pytest.mark.parametrize(("owner", "name"), [("os", "rename"), ("Collection", "remove_files")])
def test_after_a_real_kill_files_and_rows_are_back(collection, root, owner, name):
    before = state(collection, root)
    program = KILLED.format(
        tests=str(Path(__file__).parents[1]),
        directory=str(collection.directory),
        root=str(root),
        owner=owner,
        name=name,
    )
    done = preloaded.run(program)
    assert done.returncode == -signal.SIGKILL
    assert state(collection, root) != before
    Trash(Collection.open(collection.directory), [root]).recover()
    assert state(collection, root) == before
