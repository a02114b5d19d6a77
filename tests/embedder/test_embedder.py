"""Order, failures, memory and equality of the one road from images to vectors."""

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearsight import Embedder, ImageFailure
from nearsight.embedder import BATCH_SIZE
from nearsight.errors import ImageError, InvalidParameterError, UnknownModelError
from nearsight.images import find

from fake import FakeBackend

# As many threads as there are cores.
on_all_cores = pytest.mark.processor


def arrays(n: int, size: int = 24) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8))


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 8])
def test_results_come_in_input_order_whatever_the_threads(n_threads: int, batch_size: int) -> None:
    images = arrays(37)
    expected = np.concatenate(
        [Embedder(FakeBackend(), n_threads=1, batch_size=1).embed(p).vectors for p in images]
    )
    result = Embedder(FakeBackend(), n_threads=n_threads, batch_size=batch_size).embed(images)
    assert np.allclose(result.vectors, expected, atol=1e-5)
    assert result.positions.tolist() == list(range(37))
    assert result.failed == []


@on_all_cores
def test_every_kind_of_input_gives_the_same_vector(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    [pixels] = arrays(1)
    Image.fromarray(pixels).save(file)
    kinds = [
        pixels,
        Image.fromarray(pixels),
        file,
        str(file),
        file.read_bytes(),
        tmp_path,
        f"{tmp_path}/*.png",
    ]
    result = Embedder(FakeBackend()).embed(kinds)
    assert len(result.vectors) == len(kinds)
    assert np.ptp(result.vectors, axis=0).max() == 0
    assert result.paths[2:4] == [str(file), str(file)]
    assert len({*result.ids[2:]}) == 1


@on_all_cores
def test_failures_are_recorded_in_place(tmp_path: Path) -> None:
    good = arrays(3)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    result = Embedder(FakeBackend()).embed([good[0], bad, good[1], tmp_path / "none.png", good[2]])
    assert result.positions.tolist() == [0, 2, 4]
    assert [failure.path for failure in result.failed] == [str(bad), str(tmp_path / "none.png")]
    assert all(failure.reason for failure in result.failed)
    with pytest.raises(ImageError, match="bad.png"):
        Embedder(FakeBackend()).embed([good[0], bad], on_error="raise")


def test_a_vector_that_is_not_finite_is_a_failure() -> None:
    class Broken(FakeBackend):
        def embed(self, prepared):
            vectors = super().embed(prepared)
            vectors[0, 0] = np.nan
            return vectors

    result = Embedder(Broken(), n_threads=1, batch_size=1).embed(arrays(2))
    assert (len(result.vectors), len(result.failed)) == (0, 2)
    assert "finite" in result.failed[0].reason


def test_streaming_holds_a_bounded_number_of_images() -> None:
    """The source is never asked for more than the workers can hold."""
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        rng = np.random.default_rng(1)
        while True:
            taken += 1
            yield rng.integers(0, 256, (16, 16, 3), np.uint8)

    embedder = Embedder(FakeBackend(), n_threads=2)
    stream = embedder.stream(find(endless()))
    for n in range(1, 400):
        next(stream)
        assert taken - n <= BATCH_SIZE * (2 * embedder.n_threads + 2)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("nearsight-embed")]


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        images = (np.full((64, 64, 3), i % 256, np.uint8) for i in range(n))
        for _ in Embedder(FakeBackend(), n_threads=2).stream(find(images)):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(100)
    assert peak(2000) < 1.5 * peak(400)


def test_known_contents_are_not_embedded(tmp_path: Path) -> None:
    calls = []

    class Counting(FakeBackend):
        def prepare(self, image):
            calls.append(image)
            return super().prepare(image)

    results = list(Embedder(Counting(), n_threads=1).stream(find(arrays(5)), known=lambda _: True))
    assert [result.vector for result in results] == [None] * 5
    assert calls == []


@on_all_cores
def test_nothing_in_nothing_out() -> None:
    result = Embedder(FakeBackend()).embed([])
    assert result.vectors.shape == (0, FakeBackend().spec.dim)
    assert result.vectors.dtype == np.float32
    assert (result.paths, result.ids, result.failed) == ([], [], [])


def test_bad_parameters_are_named() -> None:
    with pytest.raises(InvalidParameterError, match="n_threads is 0"):
        Embedder(FakeBackend(), n_threads=0)
    with pytest.raises(InvalidParameterError, match="batch_size is -1"):
        Embedder(FakeBackend(), batch_size=-1)
    with pytest.raises(InvalidParameterError, match="on_error is 'ignore'"):
        Embedder(FakeBackend()).embed([], on_error="ignore")
    with pytest.raises(UnknownModelError, match="efficientnet-lite0"):
        Embedder("efficientnet-lite")


@on_all_cores
def test_a_failing_network_is_no_image_failure() -> None:
    """A bug in a model must be seen, not listed under images."""

    class Bug(FakeBackend):
        def embed(self, prepared):
            raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        Embedder(Bug()).embed(arrays(3))


def test_failures_compare_and_print() -> None:
    assert ImageFailure("a", "b") == ImageFailure("a", "b")
    assert "a: b" in str(ImageError("a", "b"))


def test_the_progress_bar_is_for_people_only(capsys: pytest.CaptureFixture[str]) -> None:
    Embedder(FakeBackend()).embed(arrays(9))
    assert capsys.readouterr().err == ""
    Embedder(FakeBackend(), progress=True).embed(arrays(9))
    shown = capsys.readouterr().err
    assert "9/9" in shown
    assert "images/s" in shown


def test_an_embedder_shows_its_model() -> None:
    backend = FakeBackend()
    shown = repr(Embedder(backend, n_threads=2))
    assert shown == f"Embedder(model={backend.spec.id!r}, dim={backend.spec.dim}, n_threads=2)"
