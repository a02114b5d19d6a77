"""Labels and classifiers of a service, with the results of the library."""

import numpy as np
import pytest

from fake import FakeBackend

pytest.importorskip("fastapi")

from nearsight import AsyncClient, Client, Collection
from nearsight.errors import InvalidParameterError, ServiceError, UnknownIdError
from nearsight.server.app import create_app
from nearsight.server.model_pool import ModelSource
from nearsight.server.routes import classify
from nearsight.server.routes import labels as label_routes
from nearsight.server.service import Service
from nearsight.services.server_settings import ServerSettings

from coroutines import run_coroutine

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    backend = FakeBackend()

    def no_texts():
        raise InvalidParameterError("none")

    sources = {"default": ModelSource("fake", lambda: backend.spec, lambda: backend, no_texts)}
    return Service(ServerSettings(data=str(tmp_path_factory.mktemp("data")), n_threads=1), sources)


@pytest.mark.slow
def test_labels_are_given_learned_and_checked(service, serve_on_loopback, monkeypatch):
    # Every other image is lighter.
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 60, (20, 30, 3), np.uint8) + np.uint8(150 * (n % 2)) for n in range(48)]
    with serve_on_loopback(create_app(service)) as url, Client(url) as client:
        remote = client.create_collection("shelf")
        assert remote.add(images).added == 48
        local = Collection.open(service.catalog.directory("shelf"), model=FakeBackend())
        queue = remote.next_images(n=6)
        assert [image.prediction.label for image in queue] == [""] * 6
        ann, bob = (
            {image.prediction.id for image in remote.next_images(n=6, labeler=name)}
            for name in ("ann", "bob")
        )
        assert (len(ann), len(bob), len(ann & bob)) == (6, 6, 0)
        truth = {item.id: "light" if n % 2 else "dark" for n, item in enumerate(local.items())}
        some = dict(list(truth.items())[:24])
        assert remote.set_labels(some) == [1, 2]
        assert remote.labels() == some
        wrong = next(iter(some))
        remote.set_labels({wrong: "light"})
        assert remote.undo_labels() == {wrong: "dark"}
        with pytest.raises(ServiceError, match="nothing to undo"):
            remote.undo_labels(999)
        with pytest.raises(UnknownIdError):
            remote.set_labels({"0" * 32: "dark"})

        fitted = remote.fit_classifier(method="probe")
        assert fitted.estimator.method_ == "probe"
        assert sorted(fitted.ids) == sorted(some)
        predictions = {(p.id, p.label, p.unknown) for p in remote.classify(where="width = 30")}
        assert predictions == {(p.id, p.label, p.unknown) for p in local.classify()}
        assert remote.label_accuracy()["calibration"] == "too_few"
        remote.save_classifier("first")
        assert remote.classifiers() == ["default", "first"]
        remote.delete_classifier("first")

        # With many labels, fitting and checking are jobs, which the client waits for.
        monkeypatch.setattr(classify, "_MOST_AT_ONCE", 10)
        monkeypatch.setattr(label_routes, "_MOST_CHECKED_AT_ONCE", 10)
        remote.set_labels({wrong: "light"})
        check = remote.check_labels()
        expected = local.check_labels(remote.labels(), progress=False)
        assert check.confusion == expected.confusion
        assert [(s.id, s.suggested, s.margin) for s in check.suspects] == [
            (s.id, s.suggested, s.margin) for s in expected.suspects
        ]
        assert check.suspects[0].id == wrong
        assert remote.confirm_labels([wrong]) == 1

        async def check_again():
            async with AsyncClient(url) as other:
                return await other.collection("shelf").check_labels()

        assert wrong not in {suspect.id for suspect in run_coroutine(check_again()).suspects}
        assert remote.fit_classifier(name="second").counts == {"dark": 11, "light": 13}
