"""How far JPEGs are decoded, and that vectors of the two ways are not mixed."""

import io
from dataclasses import replace

import numpy as np
import pytest
from models.convolutions import network
from models.layouts import write_layout
from PIL import Image

from nearsight import Collection, Embedder
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, UnknownModelError
from nearsight.models import decode_mode, find_model, load_model, named_with_decode
from nearsight.models.model_name import ModelVariant, split_model_name
from nearsight.models.runtimes import gpu_decode
from nearsight.models.synthetic_images import synthetic_images
from nearsight.services.collections import add_images, open_or_create


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(gpu_decode, "is_usable", lambda device: device in ("auto", "cuda"))


@pytest.fixture
def model(tmp_path):
    """A small network whose JPEGs may be decoded at reduced size."""
    name = network(tmp_path / "net.onnx")
    facts = tmp_path / "net.onnx.json"
    facts.write_text(facts.read_text().replace("{", '{"draft": true, ', 1))
    return name


@pytest.fixture
def photograph(tmp_path):
    image = synthetic_images(1, seed=5)[0].resize((800, 600))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    path = tmp_path / "images" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(file.getvalue())
    return path


def test_the_name_says_it_and_leads_back():
    name = ModelVariant(decode="full").applied_to("efficientnet-lite0#bf16")
    assert name == "efficientnet-lite0#decode=full,bf16"
    assert split_model_name(name)[1].decode == "full"
    assert find_model(name).spec.id == name


def test_only_the_rule_differs():
    reduced, full = find_model("efficientnet-lite0").spec, find_model("efficientnet-lite0#decode=full").spec
    assert decode_mode(reduced) == "draft"
    assert decode_mode(full) == "full"
    assert reduced.fingerprint.differences(full.fingerprint) == ["decoder.draft_factor: 2, there None"]
    assert replace(full, draft=True, id=reduced.id, identity="") == reduced


def test_existing_fingerprints_are_unchanged():
    """Of collections that earlier commits wrote."""
    assert find_model("efficientnet-lite0").spec.fingerprint.digest == "fbabf842bfacc6ac"


@pytest.mark.parametrize("value", ["draft", "half"])
def test_the_name_knows_full_only(value):
    with pytest.raises(UnknownModelError, match="decode must be full"):
        find_model(f"efficientnet-lite0#decode={value}")


def test_a_large_jpeg_is_decoded_in_full(model, photograph, cache_dir):
    reduced, full = (
        Embedder(model, device="cpu", decode=decode, cache_dir=cache_dir) for decode in ("draft", "full")
    )
    assert reduced.backend.decode_px == 32
    assert full.backend.decode_px is None
    near, exact = (embedder.embed(photograph).vectors[0] for embedder in (reduced, full))
    assert not np.array_equal(near, exact)
    with Image.open(photograph) as image:
        backend = full.backend
        wanted = backend.embed([backend.prepare(image.convert("RGB"))])[0]
    np.testing.assert_array_equal(exact, wanted)


def test_models_of_folders_decode_in_full_already(tmp_path):
    name = f"dir:{write_layout(tmp_path)}"
    assert named_with_decode(name, "full") == name
    assert find_model(f"{name}#decode=full").spec == find_model(name).spec
    with pytest.raises(InvalidParameterError, match="as the model's reference does; remove decode='draft'"):
        named_with_decode(name, "draft")


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidParameterError, match="decode is 'half'; it must be auto, draft, full"):
        named_with_decode("efficientnet-lite0", "half")
    with pytest.raises(InvalidParameterError, match="at reduced size only"):
        named_with_decode("sift-vlad", "full")
    with pytest.raises(InvalidParameterError, match="remove decode=full, or decode='draft'"):
        named_with_decode("efficientnet-lite0#decode=full", "draft")


def test_a_loaded_model_has_its_rule(model, cache_dir):
    backend = load_model(model, device="cpu", cache_dir=cache_dir)
    assert Embedder(backend, decode="draft").backend is backend
    with pytest.raises(InvalidParameterError, match="decodes in 'draft'; give its name instead"):
        Embedder(backend, decode="full")


@pytest.mark.parametrize(
    ("name", "device", "wanted"),
    [
        ("efficientnet-lite0", "auto", "efficientnet-lite0#decode=full"),
        ("efficientnet-lite0", "cpu", "efficientnet-lite0"),
        ("sift-vlad", "auto", "sift-vlad"),
    ],
)
def test_auto_is_full_where_a_gpu_decodes(with_gpu, name, device, wanted):
    assert named_with_decode(name, "auto", device=device) == wanted


def test_auto_is_draft_on_a_processor(monkeypatch):
    monkeypatch.setattr(gpu_decode, "is_usable", lambda device: False)
    assert named_with_decode("efficientnet-lite0", "auto") == "efficientnet-lite0"


class TestCollections:
    def add(self, folder, photograph, **options):
        options = {"device": "cpu", **options}
        return add_images(str(folder), lambda collection: collection.add(photograph), **options)

    @pytest.mark.parametrize("dim", [None, 1])
    def test_it_is_a_fact_of_the_collection(self, tmp_path, model, photograph, cache_dir, dim):
        options = {"model": model, "decode": "full", "cache_dir": cache_dir}
        if dim:
            Image.open(photograph).rotate(90).save(photograph.with_name("b.jpg"))
            Image.open(photograph).rotate(180).save(photograph.with_name("c.jpg"))
            options["dim"] = dim
        assert self.add(tmp_path / "c", photograph.parent, **options).added
        collection = Collection.open(tmp_path / "c", device="cpu", cache_dir=cache_dir)
        assert collection.decode == collection.info()["decode"] == "full"
        assert collection.search(photograph, k=1)[0].similarity > 0.9999
        # Without a word, and with the model's name alone, images are decoded as before.
        for again in ({"model": None}, {"model": model}, {"model": model, "decode": "auto"}):
            extra = {"dim": dim} if dim else {}
            assert self.add(
                tmp_path / "c", photograph.parent, cache_dir=cache_dir, **{**again, **extra}
            ).unchanged

    def test_the_two_are_never_mixed(self, tmp_path, model, photograph, cache_dir):
        self.add(tmp_path / "c", photograph, model=model, cache_dir=cache_dir)
        with pytest.raises(
            FingerprintMismatchError, match=r"with --decode draft, .*Omit --decode, or .* -c DIR"
        ):
            self.add(tmp_path / "c", photograph, decode="full", cache_dir=cache_dir)
        with pytest.raises(FingerprintMismatchError, match=r"Decode as it does \(--decode draft\), or index"):
            Collection.open(tmp_path / "c", model=f"{model}#decode=full", cache_dir=cache_dir)

    def test_auto_keeps_what_an_older_collection_has(self, with_gpu, tmp_path, model, cache_dir):
        Collection.create(tmp_path / "c", model=model, cache_dir=cache_dir)
        for name in (None, model):
            opened = open_or_create(str(tmp_path / "c"), model=name, decode="auto", cache_dir=cache_dir)
            assert opened.decode == "draft"
