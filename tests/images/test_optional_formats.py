"""Which endings an installation reads."""

import pytest

from nearsight.images import EXTENSIONS, find, optional_formats
from nearsight.images.optional_formats import OPTIONAL_EXTENSIONS, readable_extensions, remedy, skipped_text


@pytest.fixture
def installed(monkeypatch):
    """Return a function that pretends that only these packages are installed."""

    def pretend(*packages):
        monkeypatch.setattr(optional_formats, "find_spec", lambda name: name if name in packages else None)
        readable_extensions.cache_clear()

    return pretend


def test_an_ending_is_served_once_and_by_the_base_or_a_package():
    served = [extension for extensions in OPTIONAL_EXTENSIONS.values() for extension in extensions]
    assert len(served) == len(set(served))
    assert not EXTENSIONS & set(served)


def test_endings_follow_the_installation(installed, tmp_path):
    for name in ("a.CR2", "b.psd", "c.jxl", "d.svg", "e.jpg", "f.txt"):
        (tmp_path / name).write_bytes(b"x")
    installed()
    assert readable_extensions() == EXTENSIONS
    assert [remedy(name) for name in (".cr2", "PSD", "jpg", "txt")] == [optional_formats.REMEDY] * 2 + [
        None
    ] * 2
    assert [source.path[-5:] for source in find(tmp_path)] == ["e.jpg"]
    installed("rawpy", "imagecodecs")
    assert remedy(".cr2") is None
    assert [source.path[-5:] for source in find(tmp_path)] == ["a.CR2", "c.jxl", "e.jpg"]


def test_the_remedy_is_named_once(installed):
    skipped = {".mp4": 2, ".psd": 1, ".cr2": 3, "hidden": 1}
    installed()
    assert skipped_text(skipped) == (
        "skipped: 3 .cr2, 2 .mp4, 1 .psd, 1 hidden (for .cr2, .psd: pip install 'nearsight[formats]')"
    )
    installed("rawpy", "psd_tools")
    assert skipped_text(skipped) == "skipped: 3 .cr2, 2 .mp4, 1 .psd, 1 hidden"
