import pytest
from fake_faces import ColorRecognizer, SquareDetector, fake_impostor_quantiles

from nearsight.faces import FaceReader


@pytest.fixture
def reader():
    return FaceReader(SquareDetector(), ColorRecognizer(), progress=False, n_threads=2)


@pytest.fixture(autouse=True)
def impostor_quantiles(monkeypatch):
    """Similarities of different persons under the fake models."""
    values = fake_impostor_quantiles()
    for module in ("bank", "results"):
        monkeypatch.setattr(f"nearsight.faces.{module}.impostor_quantiles", lambda fingerprint: values)
    return values
