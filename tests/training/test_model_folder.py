"""The folder of a trained model is replaced as a whole, or stays."""

from pathlib import Path

import pytest

from nearsight.training.model_folder import _replace_folder


def test_the_model_before_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    directory = tmp_path / "model"
    _replace_folder(directory, {"model.onnx": b"before"})
    rename = Path.rename

    def refusing(self, target):
        if self.name.endswith(".new"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refusing)
        with pytest.raises(PermissionError):
            _replace_folder(directory, {"model.onnx": b"after"})
    assert (directory / "model.onnx").read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [directory]
    _replace_folder(directory, {"model.onnx": b"after"})
    assert (directory / "model.onnx").read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [directory]
