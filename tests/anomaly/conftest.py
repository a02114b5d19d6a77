import pytest

from nearsight import AnomalyDetector

from sample_images import fabric


@pytest.fixture(scope="session")
def detector() -> AnomalyDetector:
    return AnomalyDetector(false_alarm_rate=0.1, n_patches=300, n_threads=2).fit(map(fabric, range(40)))


@pytest.fixture(scope="session")
def file(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "fabric.npz"
    detector.save(path)
    return path
