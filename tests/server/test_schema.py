"""The service keeps to its own description: whatever the description allows is answered as it says."""

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from nearsight.server.app import create_app
from nearsight.server.service import Service
from nearsight.services.keys import KeyStore
from nearsight.services.server_settings import ServerSettings

schemathesis = pytest.importorskip("schemathesis", reason="needs the dependency group clients")
from schemathesis.specs.openapi import checks  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]

# Filters and images have a grammar that no description holds: what is allowed may be refused. HEAD and TRACE.
EXCLUDED = [checks.positive_data_acceptance, checks.unsupported_method]


@pytest.fixture
def service(tmp_path, jpeg, source, fake_texts, on_loopback):
    """The address of a service with images in a collection, a key for it, and the id of an image."""
    _, secret = KeyStore(tmp_path).add("tests", ["embed", "read", "write", "admin", "faces"])
    running = Service(ServerSettings(data=str(tmp_path), n_threads=2), {"default": source(texts=fake_texts)})
    headers = {"Authorization": f"Bearer {secret}"}
    with on_loopback(create_app(running)) as url, httpx2.Client(base_url=url, headers=headers) as client:
        client.post("/v1/collections", json={"name": "photos"}).raise_for_status()
        files = [("image", (f"{seed}.jpg", jpeg(seed))) for seed in range(8)]
        answer = client.post("/v1/collections/photos/items", files=files, timeout=120)
        yield url, headers, answer.json()["items"][0]["id"]


def test_every_route_answers_as_it_is_described(service):
    url, headers, id = service
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 90
    for operation in operations:
        # A stream ends when its job does.
        if not operation.label.endswith("/events"):
            check(operation, headers, id)


def check(operation, headers, id):
    is_removal = operation.method == "delete"

    @settings(
        max_examples=4,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def run(case):
        # A name that exists leads behind the first 404; what would remove it keeps a made-up one.
        known = {} if is_removal else {"name": "photos", "id": id}
        for name in known.keys() & case.path_parameters.keys():
            if name == "name" or "/items/{id}" in operation.path:
                case.path_parameters[name] = known[name]
        case.call_and_validate(headers=headers, excluded_checks=EXCLUDED)

    run()
