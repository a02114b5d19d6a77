"""The conformance suite over the backends there are."""

import pytest
from models.conformance import BackendConformance

from nearsight.models import Backend

from fake import FakeBackend


class TestFake(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return FakeBackend()


class TestEfficientNetLite0(BackendConformance):
    @pytest.fixture
    def backend(self, lite0: Backend) -> Backend:
        return lite0


class TestEfficientNetLite2(BackendConformance):
    @pytest.fixture
    def backend(self, lite2: Backend) -> Backend:
        return lite2


def test_fakes_of_two_seeds_are_two_models() -> None:
    assert FakeBackend(1).spec.fingerprint == FakeBackend(1).spec.fingerprint
    assert FakeBackend(1).spec.fingerprint != FakeBackend(2).spec.fingerprint
