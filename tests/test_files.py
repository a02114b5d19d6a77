"""Files that appear whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from nearsight.errors import StorageError
from nearsight.files import replacing, write_npz


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "page.html"
    target.write_text("old")
    with pytest.raises(TypeError), replacing(target) as file:
        file.write("not bytes")
    assert target.read_text() == "old"
    with replacing(target) as file:
        file.write(b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert target.read_text() == "new"


def test_an_npz_is_streamed_and_loads_without_pickle(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5, 3)).astype(np.float32)
    chunks = [
        (["a", "b"], ["p", "q\udce9"], vectors[:2]),
        ([], [], vectors[:0]),
        (list("cde"), list("rst"), vectors[2:]),
    ]
    assert write_npz(tmp_path / "x.npz", 3, iter(chunks), {"model": "m"}) == 5
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["vectors"], vectors)
        assert archive["ids"].tolist() == list("abcde")
        assert archive["paths"].tolist() == ["p", "q\udce9", "r", "s", "t"]
        assert archive["model"] == "m"


def test_a_failing_stream_leaves_the_old_file(tmp_path: Path) -> None:
    def broken():
        yield ["a"], ["p"], np.zeros((1, 2), np.float32)
        raise RuntimeError("stream")

    (tmp_path / "x.npz").write_text("old")
    with pytest.raises(RuntimeError, match="stream"):
        write_npz(tmp_path / "x.npz", 2, broken())
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]
    assert (tmp_path / "x.npz").read_text() == "old"


def test_a_refusing_disk_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="another place"):
        write_npz(tmp_path / "nowhere" / "x.npz", 2, [])
