"""`POST /v1/embeddings`: all forms give the vector of the library."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from nearsight import Embedder

from fake import DIM, FakeBackend


def uri(data, media="image/jpeg"):
    return f"data:{media};base64,{bare(data)}"


def bare(data):
    return base64.b64encode(data).decode()


def vectors_of(answer):
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert [item["index"] for item in document["data"]] == list(range(len(document["data"])))
    return np.array([item["embedding"] for item in document["data"]], np.float32)


@pytest.fixture(scope="module")
def library():
    """The vectors of the library, by the bytes of images."""

    def embed(*images, seed=0):
        return Embedder(FakeBackend(seed), n_threads=1, progress=False).embed(list(images)).vectors

    return embed


def forms(image):
    """Every way to send one image."""
    part = {"type": "image_url", "image_url": {"url": uri(image)}}
    return {
        "infinity": {"json": {"model": "default", "input": [uri(image)], "modality": "image"}},
        "data URI": {"json": {"input": uri(image)}},
        "bare": {"json": {"input": bare(image), "modality": "image"}},
        "Jina": {"json": {"input": [{"image": bare(image)}]}},
        "Jina URI": {"json": {"input": [{"image": uri(image)}], "normalized": True, "task": "x"}},
        "llama-index": {"json": {"input": [{"bytes": bare(image)}], "dimensions": None}},
        "vLLM": {"json": {"messages": [{"role": "user", "content": [part]}]}},
        "multipart": {"files": {"image": ("a.jpg", image)}, "data": {"model": "default"}},
        "raw": {"content": image, "headers": {"content-type": "image/jpeg"}},
        "octets": {"content": image, "headers": {"content-type": "application/octet-stream"}},
        "curl -d": {
            "content": b'{"input": "%s"}' % uri(image).encode(),
            "headers": {"content-type": "application/x-www-form-urlencoded"},
        },
    }


@pytest.mark.parametrize("form", list(forms(b"")))
def test_every_form_gives_the_vector_of_the_library(client, jpeg, library, form):
    image = jpeg(3)
    answer = client.post("/v1/embeddings", **forms(image)[form])
    vectors = vectors_of(answer)
    assert vectors.shape == (1, DIM)
    assert vectors[0] @ library(image)[0] >= 0.99999
    document = answer.json()
    assert document["model"] == "default"
    assert document["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert document["nearsight"]["fingerprint"] == FakeBackend().spec.fingerprint.digest
    assert answer.headers["server-timing"].startswith("queue;dur=")


@pytest.mark.parametrize("path", ["/embeddings", "/embeddings_image"])
def test_paths_of_other_services(client, jpeg, path):
    assert vectors_of(client.post(path, json={"input": uri(jpeg())})).shape == (1, DIM)


def test_base64_holds_the_same_numbers(client, jpeg):
    images = [uri(jpeg(i)) for i in range(3)]
    floats = vectors_of(client.post("/v1/embeddings", json={"input": images}))
    for option in ({"encoding_format": "base64"}, {"embedding_type": "base64"}):
        data = client.post("/v1/embeddings", json={"input": images, **option}).json()["data"]
        packed = np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data])
        np.testing.assert_array_equal(packed, floats)


def test_a_vector_does_not_depend_on_its_neighbors(client, jpeg, library):
    images = [jpeg(i, (64 + i, 48)) for i in range(32)]
    files = [("image", data) for data in images]
    together = vectors_of(client.post("/v1/embeddings", files=files))
    expected = library(*images)
    assert (together * expected).sum(1).min() >= 0.99999
    alone = vectors_of(client.post("/v1/embeddings", json={"input": uri(images[9])}))
    np.testing.assert_array_equal(alone[0], together[9])


def test_texts_where_texts_and_images_share_a_space(client, jpeg, fake_texts, library):
    body = {"model": "clip", "input": [{"text": "a dog"}, {"image": uri(jpeg())}, {"text": "a cat"}]}
    vectors = vectors_of(client.post("/v1/embeddings", json=body))
    texts = fake_texts(FakeBackend(1)).embed(["a dog", "a cat"])
    np.testing.assert_allclose(vectors, [texts[0], library(jpeg(), seed=1)[0], texts[1]], atol=1e-6)
    many = [f"text {i}" for i in range(70)]
    vectors = vectors_of(client.post("/v1/embeddings", json={"model": "clip", "input": many}))
    np.testing.assert_allclose(vectors, fake_texts(FakeBackend(1)).embed(many), atol=1e-6)
    one = {"model": "clip", "messages": [{"role": "user", "content": "a dog"}]}
    np.testing.assert_allclose(vectors_of(client.post("/v1/embeddings", json=one))[0], texts[0], atol=1e-6)


@pytest.mark.parametrize("model", ["default", "conse"])
def test_texts_are_refused_elsewhere_with_the_reason(client, model):
    answer = client.post("/v1/embeddings", json={"model": model, "input": "a dog"})
    assert answer.status_code == 400
    assert "share no space" in answer.json()["error"]["message"]


def test_dimensions_are_cut_where_the_model_was_trained_for_it(client, jpeg, library):
    cut = vectors_of(
        client.post("/v1/embeddings", json={"model": "short", "input": uri(jpeg()), "dimensions": 16})
    )
    expected = library(jpeg(), seed=2)[0, :16]
    np.testing.assert_allclose(cut[0], expected / np.linalg.norm(expected), atol=1e-6)
    form = {"files": {"image": jpeg()}, "data": {"model": "short", "dimensions": "16"}}
    np.testing.assert_array_equal(vectors_of(client.post("/v1/embeddings", **form)), cut)
    assert (
        vectors_of(client.post("/v1/embeddings", json={"input": uri(jpeg()), "dimensions": DIM})).shape[1]
        == DIM
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2, 3]]}, "check_embedding_ctx_length=False"),
        ({}, "neither input nor messages"),
        ({"input": []}, "nothing to embed"),
        ({"input": " "}, "empty"),
        ({"input": None}, "neither"),
        ({"input": [None]}, "a text is a string"),
        ({"input": "x", "modality": "audio"}, "must be text or image"),
        ({"input": "x", "encoding_format": "int8"}, "float or base64"),
        ({"input": "x", "model": 3}, "must be a text"),
        ({"input": "data:image/png,abc"}, "must be base64"),
        ({"input": "data:image/png;base64,@@@@"}, "not valid base64"),
        ({"input": [{"image": 3}]}, "data URI"),
        ({"input": [{"video": "x"}]}, "a text is a string"),
        ({"input": "https://example.org/a.jpg", "modality": "image"}, "--allow-urls"),
        ({"input": bare(b"\xff\xd8\xff\xe0" * 40)}, "an image in base64"),
        ({"input": uri(b"GIF89a"), "dimensions": 3}, "not trained for shorter"),
        ({"input": uri(b"GIF89a"), "dimensions": "3"}, "whole number"),
        ({"input": uri(b"GIF89a"), "model": "short", "dimensions": 8}, "must be in 16..64"),
        ({"messages": [{"role": "user"}]}, "content"),
        (
            {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:,"}}] * 2}]},
            "several images",
        ),
        ({"input": [uri(b"x")] * 33}, "at most 32"),
        ({"model": "clip", "input": ["x"] * 2049}, "at most 2048"),
    ],
)
def test_what_is_wrong_is_said(client, body, message):
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["detail"]


@pytest.mark.parametrize("digits", ["²", "9" * 5000])
def test_dimensions_of_a_form_are_digits_that_can_be_read(client, jpeg, digits):
    form = {"files": {"image": jpeg()}, "data": {"model": "short", "dimensions": digits}}
    answer = client.post("/v1/embeddings", **form)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dimensions")


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff", b'{"input": NaN}'])
def test_what_is_no_json_object_is_refused(client, content):
    answer = client.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_other_media_are_refused(client):
    answer = client.post("/v1/embeddings", content=b"x", headers={"content-type": "text/csv"})
    assert answer.status_code == 415


def test_a_warning_beside_an_instruction(client, jpeg):
    parts = [
        {"type": "image_url", "image_url": {"url": uri(jpeg())}},
        {"type": "text", "text": "Represent this"},
    ]
    document = client.post("/v1/embeddings", json={"messages": [{"content": parts}]}).json()
    assert "ignored" in document["nearsight"]["warning"]


def test_one_bad_image_refuses_the_request_and_is_named(client, jpeg):
    answer = client.post(
        "/v1/embeddings", json={"input": [uri(jpeg()), uri(b"Dear diary"), uri(jpeg(1)[:90])]}
    )
    assert answer.status_code == 400
    problem = answer.json()
    assert [each["index"] for each in problem["errors"]] == [1, 2]
    assert problem["error"]["code"] == "invalid_image"


def test_a_model_is_named_by_alias_only(client, monkeypatch):
    opened = []
    monkeypatch.setattr("nearsight.models.registry.find_model", opened.append)
    answer = client.post("/v1/embeddings", json={"model": "onnx:/etc/passwd", "input": "x"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "passwd" not in answer.text
    assert "secret" not in client.get("/v1/models").text
    assert not opened


def test_large_images_are_refused_by_bytes_and_by_pixels(serve, jpeg):
    client = serve(max_image_mb=1, max_pixels=10_000)
    answer = client.post("/v1/embeddings", files={"image": b"x" * (2**20 + 1)})
    assert answer.status_code == 413
    assert "--max-image-mb" in answer.json()["detail"]
    file = io.BytesIO()
    Image.new("RGB", (200, 200)).save(file, "PNG")
    answer = client.post("/v1/embeddings", files={"image": file.getvalue()})
    assert answer.status_code == 400
    assert "pixels" in answer.json()["detail"]


def test_models_are_listed_as_openai_lists_them(client, jpeg):
    client.post("/v1/embeddings", json={"input": uri(jpeg())})
    models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert list(models) == ["default", "clip", "conse", "short"]
    assert models["default"]["dim"] == DIM
    assert models["default"]["loaded"]
    assert client.get("/v1/models/default").json() == models["default"]
    assert client.get("/v1/models/a/b%23c").status_code == 404
