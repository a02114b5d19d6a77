"""The conformance suite over the backends there are."""

import pytest

from nearsight.models import Backend
from nearsight.testing import BackendTests

from fake import FakeBackend


class TestFake(BackendTests):
    @pytest.fixture
    def backend(self) -> Backend:
        return FakeBackend()


class TestEfficientNetLite0(BackendTests):
    @pytest.fixture
    def backend(self, lite0: Backend) -> Backend:
        return lite0


class TestEfficientNetLite2(BackendTests):
    @pytest.fixture
    def backend(self, lite2: Backend) -> Backend:
        return lite2


def test_fakes_of_two_seeds_are_two_models() -> None:
    assert FakeBackend(1).spec.fingerprint == FakeBackend(1).spec.fingerprint
    assert FakeBackend(1).spec.fingerprint != FakeBackend(2).spec.fingerprint
