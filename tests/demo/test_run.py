import pytest

from nearsight.demo.run import run_demo
from nearsight.errors import InvalidParameterError, MissingExtraError


def test_demo_of_very_few_images(cache, tmp_path, save_image):
    folder = tmp_path / "one"
    folder.mkdir()
    save_image(folder / "only.png", 1)
    result = run_demo(str(folder), tmp_path / "out", cache_dir=cache, progress=False)
    assert len(result.collection) == 1
    assert result.queries[0].matches == []
    (folder / "only.png").unlink()
    with (
        pytest.warns(UserWarning, match="there is no image in"),
        pytest.raises(InvalidParameterError, match="no image"),
    ):
        run_demo(str(folder), tmp_path / "out2", cache_dir=cache, progress=False)


def test_demo_without_its_packages(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearsight\[demo\]'.*nearsight demo FOLDER"):
        run_demo(None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
