import pytest


@pytest.fixture(scope="session")
def text_cache(cache_dir):
    """The converted encoder and the classes' vectors take seconds to make: once for all."""
    return cache_dir
