"""A collection moves to another model and answers all the time."""

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection import upgrade
from nearsight.collection.shadow_rows import ShadowRows
from nearsight.collection.upgrade import MissingFilesError, Upgrade, UpgradeState, abandon, commit, rollback
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, StorageError
from nearsight.store import locate

from fake import FakeBackend

OLD, NEW = FakeBackend(0), FakeBackend(1)


def image(number):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8))


def named(path):
    return {"name": path.rpartition("/")[2]}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        image(number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def collection(tmp_path, folder):
    collection = Collection.create(tmp_path / "c", model=OLD, cache_dir=tmp_path / "cache")
    collection.add(folder, progress=False, metadata=named)
    return collection


def upgraded(collection, **options):
    run = Upgrade(collection, NEW, **options)
    run.shadow(progress=False)
    run.verify()
    return run.switch()


def check(collection, folder, backend, numbers=range(12)):
    """Every image is there once, with the vector of this model, its metadata and its thumbnail."""
    items = list(collection.items())
    assert sorted(item.metadata["name"] for item in items) == sorted(f"{n}.png" for n in numbers)
    assert len(collection.thumbnails([item.id for item in items])) == len(items)
    query = folder / f"{numbers[0]}.png"
    [match] = collection.search(query, k=1)
    assert match.path == str(query)
    assert match.similarity == pytest.approx(1, abs=1e-4)
    [vector] = [
        row["vector"]
        for batch in collection.iter_batches(["id", "vector"])
        for row in batch.to_pylist()
        if row["id"] == match.id
    ]
    [expected] = backend.embed([backend.prepare(Image.open(query).convert("RGB"))])
    assert float(np.dot(vector, expected)) == pytest.approx(1, abs=1e-3)


def test_rows_of_the_new_model_replace_the_old_ones_and_come_back(collection, folder, tmp_path):
    new = upgraded(collection)
    check(new, folder, NEW)
    check(Collection.open(tmp_path / "c", model=NEW), folder, NEW)
    with pytest.raises(FingerprintMismatchError):
        Collection.open(tmp_path / "c", model=OLD)
    # What was opened before goes on answering from the old rows, and may not write any more.
    check(collection, folder, OLD)
    image(99).save(folder / "99.png")
    with pytest.raises(FingerprintMismatchError, match="was upgraded to fake since it was opened"):
        collection.add(folder, progress=False)
    new.add(folder / "99.png", progress=False, metadata={"name": "99.png"})
    assert rollback(tmp_path / "c") == 1
    check(Collection.open(tmp_path / "c", model=OLD), folder, OLD)
    assert UpgradeState.read(tmp_path / "c").phase == "ready"
    assert rollback(tmp_path / "c") == 1
    again = Upgrade(Collection.open(tmp_path / "c", model=OLD), NEW).switch()
    check(again, folder, NEW)
    commit(tmp_path / "c")
    check(Collection.open(tmp_path / "c", model=NEW), folder, NEW)
    assert not (tmp_path / "c" / "store").exists()
    with pytest.raises(InvalidParameterError, match="was not upgraded, or its old rows were deleted"):
        rollback(tmp_path / "c")
    # And on to a third model.
    check(upgraded_to(FakeBackend(2), tmp_path / "c"), folder, FakeBackend(2))


def upgraded_to(backend, directory):
    run = Upgrade(Collection.open(directory, model=NEW), backend)
    run.shadow(progress=False)
    run.verify()
    return run.switch()


def test_what_others_write_meanwhile_is_carried_over(collection, folder):
    run = Upgrade(collection, NEW)
    assert run.shadow(progress=False) == 12
    run.verify()
    image(50).save(folder / "50.png")
    (folder / "0.png").unlink()
    collection.add(
        folder, prune=True, progress=False, metadata=lambda path: {"name": path.rpartition("/")[2]}
    )
    [id] = [item.id for item in collection.items() if item.metadata["name"] == "1.png"]
    collection.update_metadata([id], [{"name": "1.png", "color": "red"}])
    new = run.switch()
    check(new, folder, NEW, [*range(1, 12), 50])
    assert new.get(id).metadata["color"] == "red"


def test_what_changed_since_the_upgrade_is_carried_back(collection, folder):
    (folder / "3.png").unlink()
    new = upgraded(collection, missing="drop")
    ids = {item.metadata["name"]: item.id for item in new.items()}
    new.update_metadata([ids["1.png"]], [{"color": "red"}])
    new.remove([ids["2.png"]])
    (folder / "5.png").rename(folder / "moved.png")
    image(77).save(folder / "4.png")
    new.add([folder / "moved.png", folder / "4.png"], progress=False)
    assert rollback(new.directory) == 1
    old = Collection.open(new.directory, model=OLD)
    # What the upgrade left out is there again; what was removed since is not.
    check(old, folder, OLD, [n for n in range(12) if n != 2])
    assert old.get(ids["1.png"]).metadata == {"name": "1.png", "color": "red"}
    assert str(folder / "moved.png") in old.get(ids["5.png"]).paths
    # A file that changed is embedded again, and keeps its metadata.
    old.add(folder, prune=True, progress=False)
    assert {item.metadata["name"] for item in old.items() if item.path == str(folder / "4.png")} == {"4.png"}


def test_files_that_are_gone_are_named_or_left_out(collection, folder):
    (folder / "3.png").unlink()
    image(77).save(folder / "4.png")
    run = Upgrade(collection, NEW)
    with pytest.raises(MissingFilesError, match=r"2 images cannot be embedded again.*--missing drop"):
        run.shadow(progress=False)
    assert UpgradeState.read(collection.directory).phase == "shadow"
    check(collection, folder, OLD)
    new = upgraded(collection, missing="drop")
    assert len(new) == 10
    check(new, folder, NEW, [n for n in range(12) if n not in (3, 4)])


def test_another_upgrade_must_be_ended_first(collection, tmp_path):
    Upgrade(collection, NEW).shadow(progress=False)
    with pytest.raises(FingerprintMismatchError, match=r"to fake has begun \(step: verifying\).*--abandon"):
        Upgrade(collection, FakeBackend(2))
    with pytest.raises(FingerprintMismatchError, match="holds vectors of fake already"):
        Upgrade(collection, OLD)
    Upgrade(collection, NEW).switch()
    moved = Collection.open(tmp_path / "c", model=NEW)
    with pytest.raises(FingerprintMismatchError, match="was upgraded to fake and keeps .* upgrade --commit"):
        Upgrade(moved, FakeBackend(2))
    rollback(tmp_path / "c")
    with pytest.raises(FingerprintMismatchError, match=r"to fake was rolled back.* upgrade --abandon"):
        Upgrade(collection, FakeBackend(2))
    abandon(collection.directory)
    with pytest.raises(InvalidParameterError, match="no upgrade of .* has begun"):
        abandon(collection.directory)
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.is_dir()) in (["store"], ["cache", "store"])
    (collection.directory / upgrade.STATE).write_text("{")
    with pytest.raises(StorageError, match="is damaged"):
        Upgrade(collection, NEW)


def test_images_that_come_while_the_others_are_embedded_are_taken_in(collection, folder, monkeypatch):
    run, keep = Upgrade(collection, NEW), ShadowRows.keep
    late = iter(range(50, 52))

    def keep_and_index(self, *args, **options):
        for number in late:
            image(number).save(folder / f"{number}.png")
            collection.add(folder / f"{number}.png", progress=False, metadata=named)
            break
        return keep(self, *args, **options)

    monkeypatch.setattr(ShadowRows, "keep", keep_and_index)
    assert run.shadow(progress=False) == 14
    # And the last ones right before the comparison, as late as can be.
    image(52).save(folder / "52.png")
    collection.add(folder / "52.png", progress=False, metadata=named)
    run.verify()
    check(run.switch(), folder, NEW, [*range(12), 50, 51, 52])


@pytest.mark.parametrize("place", ["directory", "s3"], indirect=True)
def test_rows_that_were_half_deleted_are_not_brought_back(place, folder, tmp_path, monkeypatch):
    """A process dies while it deletes rows; only the command that began it goes on."""
    collection = Collection.create(place, model=OLD, cache_dir=tmp_path / "cache")
    collection.add(folder, progress=False, metadata=named)
    location = locate(place)

    def dies(self, name):
        raise KeyboardInterrupt

    def interrupted(command):
        with monkeypatch.context() as patched:
            patched.setattr(type(location), "delete_store", dies)
            with pytest.raises(KeyboardInterrupt):
                command(place)

    new = upgraded(collection)
    interrupted(commit)
    for command in (rollback, lambda _: Upgrade(new, OLD)):
        with pytest.raises(InvalidParameterError, match=r"nearsight upgrade --commit finishes that"):
            command(place)
    check(Collection.open(place, model=NEW), folder, NEW)
    commit(place)
    check(Collection.open(place, model=NEW), folder, NEW)
    run = Upgrade(new, OLD)
    run.shadow(progress=False)
    interrupted(abandon)
    for command in (rollback, lambda _: run.verify(), lambda _: Upgrade(new, OLD)):
        with pytest.raises((InvalidParameterError, StorageError), match="--abandon finishes|ended meanwhile"):
            command(place)
    abandon(place)
    check(upgraded_to(OLD, place), folder, OLD)


def test_a_model_that_gives_other_vectors_each_time_is_refused(collection):
    class Random(FakeBackend):
        def embed(self, prepared):
            return np.random.default_rng().normal(size=(len(prepared), 64)).astype(np.float32)

    run = Upgrade(collection, Random(1))
    run.shadow(progress=False)
    with pytest.raises(StorageError, match="another vector than the one stored a moment ago"):
        run.verify()
    assert UpgradeState.read(collection.directory).phase == "verifying"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_another_machine_goes_on_and_readers_learn_of_the_change(place, folder, tmp_path, monkeypatch):
    reader = Collection.create(place, model=OLD, cache_dir=tmp_path / "cache")
    reader.add(folder, progress=False, metadata=named)
    assert Upgrade(reader, NEW).sample(5, progress=False) == 5
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "elsewhere"))
    run = Upgrade(Collection.open(place, model=OLD), NEW)
    assert run.state.phase == "shadow"
    assert run.shadow(progress=False) == 7
    run.verify()
    assert not reader.was_upgraded()
    check(run.switch(), folder, NEW)
    assert reader.was_upgraded()
    check(reader, folder, OLD)
    location = locate(place)
    assert rollback(location) == 0
    assert not reader.was_upgraded()
    check(Collection.open(place, model=OLD), folder, OLD)
    Upgrade(reader, NEW).switch()
    commit(location)
    check(Collection.open(place, model=NEW), folder, NEW)
    assert UpgradeState.read(location) is None
