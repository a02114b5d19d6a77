"""What clients of other services send, and how they read answers and errors."""

import base64
import json

import numpy as np
import pytest

from nearsight import Embedder
from nearsight.errors import InvalidParameterError
from nearsight.server.app import create_immich_app
from nearsight.server.dialects import immich
from nearsight.server.service import Service
from nearsight.services.server_settings import ServerSettings

from fake import DIM, FakeBackend

starlette = pytest.importorskip("starlette.testclient")


def bare(data):
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def expected(jpeg):
    return Embedder(FakeBackend(), n_threads=1, progress=False).embed([jpeg(1)]).vectors[0]


def test_cohere(client, jpeg, expected):
    image = f"data:image/jpeg;base64,{bare(jpeg(1))}"
    body = {
        "model": "default",
        "input_type": "image",
        "embedding_types": ["float", "base64"],
        "images": [image],
    }
    document = client.post("/v2/embed", json=body).json()
    np.testing.assert_allclose(document["embeddings"]["float"][0], expected, atol=1e-6)
    packed = np.frombuffer(base64.b64decode(document["embeddings"]["base64"][0]), "<f4")
    np.testing.assert_allclose(packed, expected, atol=1e-6)
    assert document["images"] == [{"width": 64, "height": 48, "format": "jpeg", "bit_depth": 24}]
    part = {"type": "image_url", "image_url": {"url": image}}
    body = {"model": "default", "inputs": [{"content": [part]}], "input_type": "image"}
    document = client.post("/v2/embed", json=body).json()
    np.testing.assert_allclose(document["embeddings"]["float"][0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"images": "x"},
        {"texts": ["a"], "images": ["b"]},
        {"texts": ["a"], "embedding_types": ["int8"]},
        {"texts": ["a"], "embedding_types": [["float"]]},
        {"texts": ["a"], "output_dimension": "x"},
        {"inputs": [3]},
        {"texts": ["a"]},
    ],
)
def test_cohere_reads_errors_as_a_message(client, body):
    answer = client.post("/v2/embed", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"message"}


def test_voyage(client, jpeg, expected, fake_texts):
    image = {"type": "image_base64", "image_base64": f"data:image/jpeg;base64,{bare(jpeg(1))}"}
    body = {"model": "clip", "inputs": [{"content": [{"type": "text", "text": "dog"}]}, {"content": [image]}]}
    document = client.post("/v1/multimodalembeddings", json={**body, "input_type": "document"}).json()
    usage = {"text_tokens": 0, "image_pixels": 64 * 48, "video_pixels": 0, "total_tokens": 0}
    assert (document["object"], document["model"], document["usage"]) == ("list", "clip", usage)
    assert [each["index"] for each in document["data"]] == [0, 1]
    words = fake_texts(FakeBackend(1)).embed(["dog"])[0]
    np.testing.assert_allclose(document["data"][0]["embedding"], words, atol=1e-6)
    body = {"inputs": [{"content": [image]}], "encoding_format": "base64", "truncation": True}
    [packed] = client.post("/v1/multimodalembeddings", json=body).json()["data"]
    vector = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    np.testing.assert_allclose(vector, expected, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": ["x"]},
        {"inputs": [{"content": "x"}]},
        {"inputs": [{"content": [{"type": "image_base64"}]}]},
        {"inputs": [{"content": [{"type": "text", "text": "a dog"}]}]},
        {"inputs": [{"content": ["x"]}]},
        {"inputs": [], "encoding_format": "hex"},
        {"inputs": [], "output_dtype": "int8"},
        {"inputs": [], "output_dimension": "x"},
        {"inputs": [], "model": 3},
    ],
)
def test_voyage_reads_errors_as_a_detail(client, body):
    answer = client.post("/v1/multimodalembeddings", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"detail"}


@pytest.mark.parametrize("bad", ["not base64", ""])
def test_an_error_names_the_input_that_is_wrong(client, jpeg, bad):
    good = f"data:image/jpeg;base64,{bare(jpeg(1))}"
    inputs = [
        {"content": [{"type": "image_url", "image_url": {"url": url}}] if url else []} for url in (good, bad)
    ]
    message = client.post("/v2/embed", json={"inputs": inputs}).json()["message"]
    assert client.post("/v1/multimodalembeddings", json={"inputs": inputs}).json() == {"detail": message}
    assert message.startswith("input 1: ")


def test_weaviate(client, jpeg, expected):
    document = client.post("/vectorize", json={"texts": None, "images": [bare(jpeg(1))]}).json()
    np.testing.assert_allclose(document["imageVectors"][0], expected, atol=1e-6)
    assert document["textVectors"] == []
    assert client.get("/.well-known/live").status_code == 204
    assert client.get("/.well-known/ready").status_code in (204, 503)
    assert client.get("/meta").json()["id"] == "default"


@pytest.mark.parametrize("body", [{"images": ["@@"]}, {"texts": ["a"]}, {}, {"texts": 3}])
def test_weaviate_reads_errors_as_a_text(client, body):
    answer = client.post("/vectorize", json=body)
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


def test_a_problem_before_the_route_has_the_shape_of_the_dialect(client):
    answer = client.post("/vectorize", json={}, headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert isinstance(answer.json()["error"], str)


def test_tei(serve, source, fake_texts):
    client = serve({"default": source(texts=fake_texts)})
    expected = fake_texts(FakeBackend()).embed(["a", "b"])
    np.testing.assert_allclose(client.post("/embed", json={"inputs": ["a", "b"]}).json(), expected, atol=1e-6)
    np.testing.assert_allclose(client.post("/embed", json={"inputs": "a"}).json(), expected[:1], atol=1e-6)
    assert client.get("/info").json()["model_id"] == "default"
    answer = client.post("/embed", json={"inputs": 3})
    assert (answer.status_code, set(answer.json())) == (400, {"error", "error_type"})


@pytest.fixture
def listener(tmp_path, source, fake_texts, monkeypatch):
    """A client of the listener for Immich, as the peer's server sends requests."""
    monkeypatch.setattr(immich, "_DIMENSIONS", [("ViT-B-32__", DIM)])
    settings = ServerSettings(
        data=str(tmp_path), immich=("ViT-B-32__openai=clip",), immich_allow=("10.0.0.0/8",), n_threads=1
    )
    service = Service(settings, {"clip": source(texts=fake_texts)})
    return starlette.TestClient(create_immich_app(service), client=("10.1.2.3", 5000)), service


def entries(kind, name="ViT-B-32__openai"):
    return {"entries": json.dumps({"clip": {kind: {"modelName": name, "options": {"language": "en"}}}})}


def test_immich(listener, jpeg, expected, fake_texts):
    client, _ = listener
    assert client.get("/ping").text == "pong"
    assert client.get("/").json() == {"message": "Immich ML"}
    document = client.post("/predict", data=entries("visual"), files={"image": ("blob", jpeg(1))}).json()
    np.testing.assert_allclose(json.loads(document["clip"]), expected, atol=1e-6)
    assert (document["imageWidth"], document["imageHeight"]) == (64, 48)
    # Without a file, a form is multipart only if it says so.
    fields = {name: (None, value) for name, value in {**entries("textual"), "text": "dog"}.items()}
    document = client.post("/predict", files=fields).json()
    np.testing.assert_allclose(
        json.loads(document["clip"]), fake_texts(FakeBackend()).embed(["dog"])[0], atol=1e-6
    )


@pytest.mark.parametrize(
    "data",
    [
        entries("visual", "ViT-L-14__openai"),
        entries("ocr"),
        {"entries": '{"facial-recognition": {}}'},
        {"entries": "x"},
        {},
    ],
)
def test_immich_is_told_what_is_not_served(listener, jpeg, data):
    client, _ = listener
    assert client.post("/predict", data=data, files={"image": ("blob", jpeg(1))}).status_code == 422


def test_only_allowed_addresses_may_use_the_listener(listener):
    _, service = listener
    stranger = starlette.TestClient(create_immich_app(service), client=("192.168.0.1", 5000))
    assert stranger.get("/ping").status_code == 403


def test_the_main_service_does_not_answer_immich(client, jpeg):
    assert client.post("/predict", data=entries("visual"), files={"image": jpeg(1)}).status_code == 404


@pytest.mark.parametrize(
    ("name", "dim", "message"),
    [
        ("ViT-B-32__openai", 640, "expects vectors of 512"),
        ("unheard-of__x", 512, "not known how long"),
    ],
)
def test_a_model_that_immich_could_not_store_is_refused_at_the_start(name, dim, message):
    with pytest.raises(InvalidParameterError, match=message):
        immich.check_models({name: "clip"}, {"clip": dim})
    with pytest.raises(InvalidParameterError, match="there are: clip"):
        immich.check_models({"ViT-B-32__openai": "other"}, {"clip": 512})
    immich.check_models({"ViT-B-32__openai": "clip"}, {"clip": 512})
