"""One cache for the whole session, so that the default model is converted once."""

from pathlib import Path

import pytest

from nearsight.models import Backend, load_model

# Its imports are not installed here.
collect_ignore = ["canonical/make.py"]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def lite0(cache_dir: Path) -> Backend:
    return load_model("efficientnet-lite0", cache_dir=cache_dir)
