import pytest
from fake_faces import ColorRecognizer, SquareDetector, strangers_background

from nearsight.faces import FaceReader


@pytest.fixture
def reader():
    return FaceReader(SquareDetector(), ColorRecognizer(), progress=False, n_threads=2)


@pytest.fixture(autouse=True)
def background(monkeypatch):
    """Similarities of strangers under the made-up models."""
    values = strangers_background()
    for module in ("bank", "results"):
        monkeypatch.setattr(f"nearsight.faces.{module}.background_of", lambda fingerprint: values)
    return values
