"""Searches by the new model, while the collection is still moved to it."""

import signal

import dying_upgrade
import numpy as np
import preloaded
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection import bridge
from nearsight.collection.bridged_search import BridgedSearch
from nearsight.collection.schema import ESTIMATED_KEY
from nearsight.collection.upgrade import Upgrade, UpgradeState, abandon, commit, rollback
from nearsight.errors import CollectionNotFoundError, FingerprintMismatchError, InvalidParameterError
from nearsight.store import locate

from fake import FakeBackend

OLD, NEW = FakeBackend(0), FakeBackend(1)
N = 240
# Where the same code moves a collection.
ENGINES = ["directory", "s3", "postgres", "milvus"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images that share a few shapes, so that both models have the same things to see."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    y, x = np.mgrid[0:24, 0:24] / 24
    shapes = np.stack([np.sin(6 * (a * x + b * y)) for a, b in rng.normal(size=(10, 2))])
    for number in range(N + 20):
        pixels = 128 + 40 * np.tensordot(rng.normal(size=10), shapes, 1) + rng.normal(0, 4, (24, 24))
        name = f"{number}.png" if number < N else f"query {number}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def collection(place, tmp_path, folder):
    collection = Collection.create(place, model=OLD, cache_dir=tmp_path / "cache")
    collection.add(
        sorted(folder.glob("[0-9]*.png")),
        progress=False,
        metadata=lambda path: {"even": int(path[-5]) % 2 == 0},
    )
    return collection


@pytest.fixture(scope="module")
def whole(tmp_path_factory, folder):
    """What the new model answers once every image has its vector."""
    collection = Collection.create(tmp_path_factory.mktemp("whole") / "c", model=NEW)
    collection.add(sorted(folder.glob("[0-9]*.png")), progress=False)
    return collection


def queries(folder):
    return sorted(folder.glob("query*.png"))


def shadow_ids(collection):
    """Return the ids of the new model's rows; none before the store is made."""
    state = UpgradeState.read(collection.location)
    try:
        rows = collection.location.open_store(state.store)
    except CollectionNotFoundError:
        return []
    return [id for batch in rows.scan(["id"]) for id in batch.column("id").to_pylist()]


@pytest.mark.slow
def test_the_bridge_finds_what_the_new_model_would_and_keeps_what_it_embedded(
    collection, whole, folder, monkeypatch
):
    monkeypatch.setattr(bridge, "N_PROPOSED", 40)
    run = Upgrade(collection, NEW)
    assert run.sample(60, progress=False) == 60
    assert run.sample(60, progress=False) == 0
    assert UpgradeState.read(collection.directory).phase == "shadow"
    before = [match.id for match in collection.search(queries(folder)[0])]
    search = BridgedSearch(collection, NEW)
    shares, n_embedded, results = [], 60, []
    for query in queries(folder):
        result = search.search(query)
        expected = {match.id: match.similarity for match in whole.search(query)}
        ids = [match.id for match in result.matches]
        shares.append(len(expected.keys() & set(ids)) / 10)
        assert all(
            m.similarity == pytest.approx(expected[m.id], abs=1e-4)
            for m in result.matches
            if m.id in expected
        )
        n_embedded += result.n_embedded
        assert result.n_embedded <= 40
        assert result.share == pytest.approx(n_embedded / N)
        results.append(result)
    first = results[0]
    assert np.mean(shares) > 0.9
    assert 0 < first.low <= first.recall <= first.high <= 1
    # What was embedded once is not embedded again, and the upgrade has less to do.
    assert search.search(queries(folder)[0]).n_embedded == 0
    assert Upgrade(collection, NEW).shadow(progress=False) == N - n_embedded
    run = Upgrade(collection, NEW)
    run.verify()
    assert len(run.switch()) == N
    # The old model answered all the time as before.
    assert [match.id for match in collection.search(queries(folder)[0])] == before


def test_filters_ids_and_removed_images_are_those_of_the_old_rows(collection, folder):
    Upgrade(collection, NEW).sample(100, progress=False)
    search = BridgedSearch(collection, NEW)
    query = queries(folder)[1]
    matches = search.search(query, where="even = true", k=N).matches
    assert len(matches) == collection.count("even = true")
    assert all(match.metadata["even"] for match in matches)
    assert [m.similarity for m in matches] == sorted((m.similarity for m in matches), reverse=True)
    # All have a new row now; what is removed, and what is changed, is seen at once.
    collection.remove([matches[0].id])
    collection.update_metadata([matches[1].id], {"even": False})
    after = search.search(query, where="even = true", k=5).matches
    assert [match.id for match in after] == [match.id for match in matches[2:7]]
    own = search.search(id=matches[2].id, k=3)
    assert matches[2].id not in [match.id for match in own.matches]


def test_what_is_written_while_the_upgrade_ends_is_lost_without_harm(collection, whole, folder):
    Upgrade(collection, NEW).sample(60, progress=False)
    search = BridgedSearch(collection, NEW)
    run = Upgrade(collection, NEW)
    run.shadow(progress=False)
    run.verify()
    run.switch()
    query = queries(folder)[2]
    assert [m.id for m in search.search(query).matches] == [m.id for m in whole.search(query)]
    with pytest.raises(FingerprintMismatchError, match="no upgrade to fake is under way"):
        BridgedSearch(collection, NEW)
    rollback(collection.directory)
    abandon(collection.directory)
    assert not (collection.directory / bridge.FILENAME).exists()


def test_a_bridge_that_is_learned_while_the_upgrade_ends_serves_and_is_not_kept(
    collection, folder, monkeypatch
):
    Upgrade(collection, NEW).sample(60, progress=False)
    (collection.directory / bridge.FILENAME).unlink()
    fit = bridge.fit_bridge

    def ended_meanwhile(*args):
        found = fit(*args)
        abandon(collection.directory)
        return found

    monkeypatch.setattr(bridge, "fit_bridge", ended_meanwhile)
    assert BridgedSearch(collection, NEW)
    assert not (collection.directory / bridge.FILENAME).exists()


def test_no_upgrade_and_too_small_a_sample_are_refused(collection, folder):
    with pytest.raises(FingerprintMismatchError, match="nearsight upgrade --to fake --dry-run begins one"):
        BridgedSearch(collection, NEW)
    Upgrade(collection, NEW).sample(20, progress=False)
    with pytest.raises(InvalidParameterError, match="20 images have vectors of both models"):
        BridgedSearch(collection, NEW)
    Upgrade(collection, NEW).sample(60, progress=False)
    with pytest.raises(FingerprintMismatchError, match="no upgrade to fake is under way"):
        BridgedSearch(collection, FakeBackend(2))
    with pytest.raises(InvalidParameterError, match="name what to search for"):
        BridgedSearch(collection, NEW).search()


@pytest.mark.slow
def test_images_whose_files_are_gone_keep_an_estimate_and_say_so(collection, whole, folder, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    files = sorted(folder.glob("[0-9]*.png"))[:30]
    gone = {collection.search(file, k=1)[0].id for file in files}
    for file in files:
        file.rename(moved / file.name)
    try:
        run = Upgrade(collection, NEW, missing="keep")
        run.sample(150, progress=False)
        query = queries(folder)[3]
        result = BridgedSearch(collection, NEW).search(query, k=N)
        assert set(result.estimated) == gone
        assert run.shadow(progress=False) == 0
        run.verify()
        new = run.switch()
        assert UpgradeState.read(collection.directory).estimated == 30
        assert len(new) == N
        marked = {item.id for item in new.items(f"{ESTIMATED_KEY} = true")}
        assert marked == gone
        true = whole.vectors(sorted(gone))
        kept = new.vectors(sorted(gone))
        estimated = np.einsum("ij,ij->i", true, kept)
        others = np.einsum("ij,ij->i", true, np.roll(kept, 1, axis=0))
        assert (estimated > 0.7).mean() > 0.9
        assert estimated.mean() > others.mean() + 0.2
    finally:
        for file in moved.iterdir():
            file.rename(folder / file.name)
    # The next upgrade embeds them, and their mark goes; so does indexing them again.
    commit(new.directory)
    report = new.add(files[:10], progress=False)
    assert (report.embedded, report.unchanged, report.added) == (10, 10, 0)
    assert new.count(f"{ESTIMATED_KEY} = true") == 20
    again = [new.search(file, k=1)[0].id for file in files[:10]]
    assert new.vectors(again) == pytest.approx(whole.vectors(again), abs=1e-4)
    assert new.add(files[:10], progress=False).embedded == 0
    run = Upgrade(new, FakeBackend(2))
    run.sample(60, progress=False)
    run.shadow(progress=False)
    run.verify()
    assert run.switch().count(f"{ESTIMATED_KEY} = true") == 0


def killed(place, step, n_writes, query):
    """Run a step in a process that dies before a write; return whether it finished."""
    code = preloaded.Preloaded(dying_upgrade.run, str(place), step, n_writes, str(query)).wait()
    assert code in (0, -signal.SIGKILL)
    return code == 0


@pytest.mark.slow
@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_kill_9_at_every_write_loses_nothing(place, collection, whole, folder):
    """One process after another dies some writes later; each goes on where the last one died.

    In a directory before every write; in engines, which take seconds to open, before every third.
    """
    every, least = (3, 2) if isinstance(place, str) else (1, 6)
    query = queries(folder)[4]
    ids = {item.id for item in collection.items()}
    old_answer = [match.id for match in collection.search(query)]
    n_deaths, kept = 0, 0
    # The first writes of a step repeat what was written before.
    for step, first in (("sample", 1), ("search", 0), ("upgrade", 2)):
        for n_writes in range(first, 12, every):
            done = killed(place, step, n_writes, query)
            n_deaths += not done
            state = UpgradeState.read(collection.location)
            if state is not None and state.phase == "switched":
                break
            now = Collection.open(place, model=OLD)
            assert [match.id for match in now.search(query)] == old_answer
            if state is not None:
                there = shadow_ids(collection)
                assert len(there) == len(set(there)) >= kept
                kept = len(there)
            if done:
                break
    assert n_deaths >= least
    new = Collection.open(place, model=NEW)
    assert {item.id for item in new.items()} == ids
    assert [m.id for m in new.search(query)] == [m.id for m in whole.search(query)]
    for step, model, expected, deaths in (
        ("rollback", OLD, old_answer, (0, 1, 2)),
        ("commit", NEW, [m.id for m in whole.search(query)], (0, 1, 2)),
    ):
        if step == "commit":
            Upgrade(Collection.open(place, model=OLD), NEW).switch()
        # Dies before each of its writes, one after the other, and then not at all.
        for n_writes in (*deaths, 9):
            assert killed(place, step, n_writes, query) == (n_writes == 9)
            now = Collection.open(place)
            assert {item.id for item in now.items()} == ids
        now = Collection.open(place, model=model)
        assert [match.id for match in now.search(query)] == expected
    with pytest.raises(CollectionNotFoundError):
        locate(place).open_store("store")
    assert UpgradeState.read(locate(place)) is None
