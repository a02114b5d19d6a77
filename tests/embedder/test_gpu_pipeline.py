"""The pipeline of a GPU that decodes, against threads that decode by themselves."""

import io
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from jpeg_decoders import PillowDecoder, jpeg
from models.layouts import write_layout
from PIL import Image, ImageFile
from runtime import FakeRuntime

from nearsight import Collection, Embedder
from nearsight.embedder import embedder as embedder_module
from nearsight.embedder.batch import ReadOptions
from nearsight.embedder.candidates import Pipelines
from nearsight.embedder.gpu_pipeline import GpuPipeline
from nearsight.embedder.pipelines import ThreadPipeline
from nearsight.errors import ImageFailure
from nearsight.images import Limits, decode, find
from nearsight.models import load_model
from nearsight.models.precision import parity
from nearsight.models.runtimes import cuda_runtime, placement
from nearsight.models.runtimes.gpu_decode import GpuDecoder
from nearsight.models.synthetic_images import synthetic_images

N_IMAGES = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return f"dir:{write_layout(tmp_path_factory.mktemp('model'))}"


@pytest.fixture
def backend(monkeypatch, model, tmp_path):
    monkeypatch.setattr(placement, "_warned", set())
    monkeypatch.setattr(parity, "_N_IMAGES", 12)
    # A package may have brought CUDA's library, without a GPU.
    monkeypatch.setattr(cuda_runtime, "_library", lambda: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime("CUDAExecutionProvider"))
    return load_model(model, device="cuda", cache_dir=tmp_path / "cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """JPEGs, other formats, and what is damaged in several ways."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(2)
    for i, image in enumerate(synthetic_images(N_IMAGES, seed=8)):
        image = image.resize((80 + i, 64 + 2 * i))
        name = folder / f"{i:02}.jpg"
        if i % 10 == 3:
            image.save(name.with_suffix(".png"))
        elif i % 10 == 5:
            name.write_bytes(jpeg(image.convert("CMYK")))
        elif i == 6:
            name.write_bytes(jpeg(image)[:900])
        elif i == 14:
            # It has an end marker, though most of it is missing.
            noise = Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8))
            name.write_bytes(jpeg(noise)[:-5000] + b"\xff\xd9")
        elif i == 17:
            name.write_bytes(b"no image at all")
        elif i == 20:
            name.write_bytes(b"")
        else:
            name.write_bytes(jpeg(image, turned=i % 8 + 1, subsampling=i % 3, progressive=i % 7 == 2))
    return folder


def rows(pipeline, folder, size=8):
    sources = list(find(str(folder)))
    with closing(pipeline):
        batches = [pipeline.submit(sources[at : at + size]) for at in range(0, len(sources), size)]
        return [row for batch in batches for row in batch.result(60)]


OPTIONS = ReadOptions(Limits(), thumbnails=True)


@pytest.mark.parametrize("n_threads", [1, 6])
def test_every_row_is_that_of_the_processor(backend, folder, tmp_path, monkeypatch, n_threads):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    found = rows(GpuPipeline(backend, decoder, OPTIONS, None, n_threads=n_threads), folder)
    wanted = rows(ThreadPipeline(backend, OPTIONS, None, n_threads=n_threads), folder)
    failures = [row for row in wanted if isinstance(row, ImageFailure)]
    assert len(failures) == 4
    assert [row for row in found if isinstance(row, ImageFailure)] == failures
    for mine, theirs in zip(found, wanted, strict=True):
        if isinstance(theirs, ImageFailure):
            assert mine == theirs
            continue
        assert mine.vector @ theirs.vector > 0.9999
        bare = {"vector": None, "thumbnail": None}
        assert replace(mine, **bare) == replace(theirs, **bare)
        small, exact = (decode(row.thumbnail).image for row in (mine, theirs))
        assert small.size == exact.size
        assert np.abs(np.asarray(small, np.int16) - np.asarray(exact)).mean() < 4


def test_a_gpu_that_decodes_nothing_costs_no_image(backend, folder, tmp_path):
    decoder = GpuDecoder(backend, lambda: PillowDecoder(lambda data: True), tmp_path)
    found = rows(GpuPipeline(backend, decoder, OPTIONS, None, n_threads=3), folder)
    wanted = rows(ThreadPipeline(backend, OPTIONS, None, n_threads=3), folder)
    for mine, theirs in zip(found, wanted, strict=True):
        if isinstance(theirs, ImageFailure):
            assert mine == theirs
        else:
            np.testing.assert_allclose(mine.vector, theirs.vector, atol=1e-6)


def test_a_gpu_that_breaks_costs_no_image(backend, folder, tmp_path):
    n_batches = iter(range(100))

    def delay():
        # When it is opened, and once more.
        if next(n_batches) >= 2:
            raise RuntimeError("the driver is gone")

    decoder = GpuDecoder(backend, lambda: PillowDecoder(delay=delay), tmp_path)
    with pytest.warns(UserWarning, match="the processor goes on: the driver is gone"):
        found = rows(GpuPipeline(backend, decoder, OPTIONS, None, n_threads=3), folder)
    assert sum(isinstance(row, ImageFailure) for row in found) == 4


def test_a_slow_gpu_leaves_images_to_the_threads(backend, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    data = jpeg(synthetic_images(1, seed=1)[0].resize((64, 48)))
    for i in range(60):
        (folder / f"{i:02}.jpg").write_bytes(data)
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    # As measured, but without a clock: the GPU is much slower than a thread.
    decoder.split.has_run(1000, 10.0)
    decoder.split.was_decoded(1000, 0.001)
    decoder.split.has_run(-1000, -10.0)
    decoder.split.was_decoded = lambda n_pixels, seconds: None
    sent = []
    submit = decoder.submit
    decoder.submit = lambda jpegs, **options: sent.append(len(jpegs)) or submit(jpegs, **options)
    assert len(rows(GpuPipeline(backend, decoder, OPTIONS, None, n_threads=2), folder)) == 60
    assert sum(sent) < 30


def test_known_images_are_not_sent(backend, folder, tmp_path):
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    pipeline = GpuPipeline(backend, decoder, OPTIONS, lambda ids: ["known"] * len(ids), n_threads=2)
    assert all(isinstance(row, ImageFailure) or row.vector is None for row in rows(pipeline, folder))


def test_the_embedder_uses_it_in_order_and_fills_a_collection(backend, folder, tmp_path, monkeypatch):
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    monkeypatch.setattr(embedder_module, "decoder_for", lambda backend, cache_dir: decoder)
    found = Embedder(backend).embed(folder)
    monkeypatch.setattr(embedder_module, "decoder_for", lambda backend, cache_dir: None)
    wanted = Embedder(backend).embed(folder)
    assert found.paths == wanted.paths
    assert found.failed == wanted.failed
    assert (found.vectors * wanted.vectors).sum(1).min() > 0.9999
    collection = Collection.create(tmp_path / "c", model=backend)
    monkeypatch.setattr(embedder_module, "decoder_for", lambda backend, cache_dir: decoder)
    report = collection.add(folder)
    assert (report.added, len(report.failed)) == (len(found.paths), 4)
    assert collection.add(folder).added == 0


def test_the_bytes_of_an_image_are_not_kept(backend, tmp_path):
    """In memory are the images of a batch a thread, whatever their number."""
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    file = io.BytesIO()
    synthetic_images(1, seed=1)[0].save(file, "JPEG")
    result = decoder.submit(decoder.choose([file.getvalue()], Limits()))()
    assert result[0].vector.base is None or result[0].vector.base.nbytes < 4096


def test_it_is_what_a_job_begins_with(backend, tmp_path):
    """It is compared with worker processes like any other pipeline, and kept if it is the fastest."""
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    candidate = Pipelines(backend, OPTIONS, None, 6, 8, decoder).threads()
    assert candidate.name == "cuda, 6 threads, decoding on the GPU"
    with closing(candidate.open()) as pipeline:
        assert isinstance(pipeline, GpuPipeline)
    assert Pipelines(backend, OPTIONS, None, 6, 8).threads().name == "cuda, 6 threads"
