"""Real clients of other services, against a service on loopback. Each is skipped where it is missing."""

import base64
import gc
import io

import numpy as np
import pytest
from PIL import Image

from nearsight import Embedder

from fake import DIM, FakeBackend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    # Their own warnings are not ours.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """No client asks others, and none goes through a proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    monkeypatch.setenv("NO_PROXY", "*")
    yield
    gc.collect()  # some never close their connections; that is a warning of this test, not of a later one


@pytest.fixture(scope="module")
def image(jpeg):
    return jpeg(5)


@pytest.fixture(scope="module")
def uri(image):
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


@pytest.fixture(scope="module")
def expected(image):
    return Embedder(FakeBackend(), n_threads=1, progress=False).embed([image]).vectors[0]


@pytest.fixture(scope="module")
def dog(fake_texts):
    """The vector of "a dog" by the model `clip`."""
    return fake_texts(FakeBackend(1)).embed(["a dog"])[0]


def test_openai_in_all_forms(address, uri, expected):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client:
        inputs = [
            {"input": [uri], "extra_body": {"modality": "image"}},
            {"input": [{"image": uri}]},
            {"input": [{"image": uri.split(",")[1]}]},
            {"input": [uri], "encoding_format": "float"},
        ]
        for options in inputs:
            answer = client.embeddings.create(model="default", **options)
            np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-6)
        part = {"type": "image_url", "image_url": {"url": uri}}
        answer = client.post(
            "/embeddings",
            cast_to=openai.types.CreateEmbeddingResponse,
            body={"model": "default", "messages": [{"role": "user", "content": [part]}]},
        )
        np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-6)
        assert next(iter(client.models.list())).id == "default"
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
            client.embeddings.create(model="default", input=[[1, 2]])
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="none", input="x")
        assert missing.value.request_id
        assert missing.value.code == "model_not_found"


def test_cohere(address, uri, expected):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="any", base_url=address)
    answer = client.embed(model="default", input_type="image", embedding_types=["float"], images=[uri])
    np.testing.assert_allclose(answer.embeddings.float_[0], expected, atol=1e-6)
    with pytest.raises(cohere.BadRequestError, match="share no space"):
        client.embed(model="default", input_type="search_query", embedding_types=["float"], texts=["a dog"])


def test_voyage(address, uri, expected, image):
    voyage = pytest.importorskip("voyageai")
    client = voyage.Client(api_key="any", base_url=f"{address}/v1")
    with Image.open(io.BytesIO(image)) as opened:
        answer = client.multimodal_embed(inputs=[["a dog"], [opened]], model="clip", input_type="document")
    assert np.shape(answer.embeddings) == (2, DIM)
    assert answer.image_pixels == 64 * 48
    part = {"type": "image_base64", "image_base64": uri}
    answer = client.multimodal_embed(inputs=[{"content": [part]}], model="default")
    np.testing.assert_allclose(answer.embeddings[0], expected, atol=1e-6)
    with pytest.raises(voyage.error.InvalidRequestError, match="share no space"):
        client.multimodal_embed(inputs=[["a dog"]], model="default")


def test_infinity(address, image):
    infinity = pytest.importorskip("infinity_client")
    from infinity_client.vision_client import InfinityVisionAPI

    assert infinity
    with Image.open(io.BytesIO(image)) as opened:
        client = InfinityVisionAPI(url=address, model="clip")
        vectors, _ = client.image_embed("clip", [opened.convert("RGB")]).result()
    # The client encodes the image anew.
    expected = Embedder(FakeBackend(1), n_threads=1, progress=False).embed([image]).vectors[0]
    assert np.dot(np.ravel(vectors), expected) > 0.999


def test_langchain(address, dog):
    langchain = pytest.importorskip("langchain_openai")
    client = langchain.OpenAIEmbeddings(
        model="clip", base_url=f"{address}/v1", api_key="any", check_embedding_ctx_length=False
    )
    np.testing.assert_allclose(client.embed_query("a dog"), dog, atol=1e-6)
    cat, again = client.embed_documents(["a cat", "a dog"])
    np.testing.assert_allclose(again, dog, atol=1e-6)
    assert not np.allclose(cat, dog, atol=0.1)


def test_llama_index(address, dog):
    llama_index = pytest.importorskip("llama_index.embeddings.openai_like")
    client = llama_index.OpenAILikeEmbedding(model_name="clip", api_base=f"{address}/v1", api_key="any")
    np.testing.assert_allclose(client.get_text_embedding("a dog"), dog, atol=1e-6)


def test_haystack(address, dog):
    embedders = pytest.importorskip("haystack.components.embedders")
    secret = pytest.importorskip("haystack.utils").Secret.from_token("any")
    embedder = embedders.OpenAITextEmbedder(api_key=secret, api_base_url=f"{address}/v1", model="clip")
    np.testing.assert_allclose(embedder.run("a dog")["embedding"], dog, atol=1e-6)
