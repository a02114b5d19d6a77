"""The pipelines give the same rows: in threads, in processes, and with the network in one process."""

import numpy as np
import pytest
from fake_workers import FaultyBackend, KillingBackend

from nearsight import Embedder, ImageFailure
from nearsight.embedder.batch import ReadOptions
from nearsight.embedder.pipelines import DevicePipeline, ProcessPipeline, ThreadPipeline
from nearsight.images import Limits, find

from fake import DIM, FakeBackend


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_image):
    folder = tmp_path_factory.mktemp("images")
    for seed in range(30):
        save_image(folder / f"{seed:02}.jpg", seed)
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


def rows(pipeline, sources):
    try:
        return [
            row for at in range(0, len(sources), 4) for row in pipeline.submit(sources[at : at + 4]).result()
        ]
    finally:
        pipeline.close()


def test_rows_are_the_same_to_the_last_bit(folder):
    sources = list(find(folder))
    options = ReadOptions(Limits(), thumbnails=True)
    backend = FakeBackend()
    expected = rows(ThreadPipeline(backend, options, None, n_threads=2), sources)
    processes = rows(ProcessPipeline(backend, options, None, n_processes=2), sources)
    device = DevicePipeline(
        backend, backend, options, None, n_processes=1, batch_size=4, input_bytes=4 * 3 * 16 * 16
    )
    for results in (processes, rows(device, sources)):
        for row, wanted in zip(results, expected, strict=True):
            if isinstance(wanted, ImageFailure):
                assert row == wanted
                continue
            assert (row.vector == wanted.vector).all()
            assert (row.stat, row.id, row.thumbnail, row.exif) == (
                wanted.stat,
                wanted.id,
                wanted.thumbnail,
                wanted.exif,
            )
            assert (row.width, row.height) == (160, 120)


def test_the_default_model_gives_the_same_vectors_in_processes(folder):
    threads = Embedder(n_threads=1).embed(folder)
    processes = Embedder(n_threads=2, n_processes=1).embed(folder)
    assert (threads.vectors == processes.vectors).all()
    assert threads.paths == processes.paths
    assert threads.failed == processes.failed


def test_a_crash_of_a_codec_costs_one_image(folder, tmp_path, save_image):
    bad = save_image(tmp_path / "killer.png", 1, (77, 60))
    files = [*sorted(folder.glob("[0-9]*.jpg"))[:10], bad, *sorted(folder.glob("[0-9]*.jpg"))[10:]]
    result = Embedder(KillingBackend(), n_threads=1, n_processes=1).embed(files)
    assert [failure.path for failure in result.failed] == [str(bad)]
    assert "killed" in result.failed[0].reason
    assert result.positions.tolist() == [*range(10), *range(11, 31)]
    assert (result.vectors == Embedder(FakeBackend()).embed(files[:10] + files[11:]).vectors).all()


def test_images_in_memory_may_be_sent(folder):
    images = list(np.random.default_rng(0).integers(0, 256, (9, 24, 24, 3), np.uint8))
    result = Embedder(FakeBackend(), n_threads=1, n_processes=1).embed(images)
    assert (result.vectors == Embedder(FakeBackend()).embed(images).vectors).all()
    assert result.vectors.shape == (9, DIM)


def test_processes_ask_which_contents_are_known(folder):
    sources = list(find(folder))[:12]
    ids = [row.id for row in Embedder(FakeBackend()).stream(sources)]
    embedder = Embedder(FakeBackend(), n_threads=1, n_processes=1)
    results = list(embedder.stream(sources, known=lambda id: id in ids[::2]))
    assert [result.vector is None for result in results] == [i % 2 == 0 for i in range(12)]


def test_a_bug_of_a_model_is_raised_with_its_traceback(folder):
    with pytest.raises(TypeError) as caught:
        Embedder(FaultyBackend(), n_threads=1, n_processes=1).embed(folder)
    assert "fake_workers.py" in str(caught.value.__cause__)
