"""A detector of a service scores as the same detector does here."""

from pathlib import Path

import numpy as np
import pytest

from fake import FakeBackend

pytest.importorskip("fastapi")

from nearsight import AnomalyDetector, AsyncClient, Client
from nearsight.errors import CollectionNotFoundError, ImageFailure, ServiceError, UnknownIdError
from nearsight.server.app import create_app
from nearsight.server.model_pool import ModelSource
from nearsight.server.service import Service
from nearsight.services.inspections import Inspection
from nearsight.services.server_settings import ServerSettings

from coroutines import run_coroutine
from sample_images import fabric, torn

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def fitted():
    options = {"false_alarm_rate": 0.1, "n_patches": 100, "max_tiles": 1, "level": "patch"}
    return AnomalyDetector(n_threads=1, **options).fit(map(fabric, range(30)))


@pytest.fixture(scope="module")
def address(tmp_path_factory, serve_on_loopback, fitted):
    data = tmp_path_factory.mktemp("data")
    backend = FakeBackend()
    models = {"default": ModelSource("fake", lambda: backend.spec, lambda: backend, lambda: None)}
    with serve_on_loopback(create_app(Service(ServerSettings(data=str(data), n_threads=1), models))) as url:
        with Client(url) as client:
            client.create_collection("line")
        facts = {"source": {"shown": {"folder": "line/good"}}, "options": {}, "fit": {"images": 30}}
        Inspection(data / "detectors/line/fabric").save(fitted, facts)
        yield url


def test_scores_heatmaps_and_verdicts_are_those_of_the_library(address, fitted, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    inputs = [torn(100), fabric(101), str(broken), str(tmp_path / "missing.png")]
    own = fitted.score(inputs[:2], heatmaps=True)
    with Client(address) as client:
        collection = client.collection("line")
        assert [each["name"] for each in collection.detectors()] == ["fabric"]
        detector = collection.detector("fabric")
        results = detector.score(inputs, heatmaps=True)
        assert [type(result) for result in results[2:]] == [ImageFailure, ImageFailure]
        assert [Path(result.path).name for result in results[2:]] == ["broken.png", "missing.png"]
        for remote, local in zip(results[:2], own, strict=True):
            assert (remote.score, remote.threshold, remote.defect) == (
                local.score,
                local.threshold,
                local.defect,
            )
            assert remote.levels == local.levels
            assert remote.image.size == local.image.size
            np.testing.assert_allclose(remote.heatmap, local.heatmap, rtol=2e-3, atol=2e-3)
        worst, best = detector.scored_images()
        assert (worst["score"], best["score"]) == (own[0].score, own[1].score)
        assert detector.scored_images(side="defect") == [worst]
        assert detector.heatmap(worst["id"]).shape == (96, 96)
        assert detector.decide(worst["id"], "good") == 1
        assert detector.info()["counts"]["false_alarms"] == 1
        effect = detector.threshold_effect(worst["score"])
        assert [image["id"] for image in effect["become_good"]] == [worst["id"]]
        assert detector.set_threshold(worst["score"])["threshold"] == worst["score"]
        assert detector.set_threshold(None)["threshold"] == fitted.threshold_.value
        assert detector.threshold()["good_scores"] == sorted(fitted.good_scores_.tolist())
        with pytest.raises(UnknownIdError):
            detector.heatmap("0" * 32)
        with pytest.raises(ServiceError, match="no detector 'none'"):
            collection.detector("none").info()
        with pytest.raises(CollectionNotFoundError):
            client.collection("none").detectors()

    async def scores():
        async with AsyncClient(address) as client:
            return await client.collection("line").detector("fabric").score(torn(100), keep=False)

    assert [result.score for result in run_coroutine(scores())] == [own[0].score]
