"""Files that appear whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from nearsight.artifacts import read_artifact, replacing, write_artifact, write_npz
from nearsight.errors import InvalidParameterError, NewerFormatError, StorageError


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
    with pytest.raises(StorageError, match="another directory"):
        write_npz(tmp_path / "nowhere" / "x.npz", 2, [])


def read(path, version=1):
    with read_artifact(
        path, "thing", version, error=InvalidParameterError, remedy="make one: thing fit"
    ) as found:
        return found


@pytest.mark.parametrize("compressed", [True, False])
def test_what_was_learned_comes_back_without_pickle(tmp_path, compressed):
    path = tmp_path / "a.npz"
    write_artifact(
        path, "thing", 1, {"a": [1, None]}, {"x": np.eye(2), "y": np.array("é")}, compressed=compressed
    )
    facts, arrays = read(path)
    assert facts == {"a": [1, None], "kind": "nearsight thing", "format": 1}
    np.testing.assert_array_equal(arrays["x"], np.eye(2))
    assert arrays.keys() == {"x", "y"}
    with pytest.raises(ValueError, match="allow_pickle"):
        write_artifact(path, "thing", 1, {}, {"x": np.array([{}], dtype=object)})
    assert read(path)[0] == facts


def test_what_is_missing_damaged_or_else_says_how_to_get_one(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(InvalidParameterError, match=r"no thing at .*a\.npz; make one: thing fit"):
        read(path)
    write_artifact(path, "thing", 2, {}, {"x": np.arange(1000)})
    whole = path.read_bytes()
    with pytest.raises(NewerFormatError, match="upgrade"):
        read(path)
    assert len(read(path, 2)[1]["x"]) == 1000
    write_artifact(tmp_path / "else.npz", "other", 1, {}, {})
    np.savez(tmp_path / "none.npz", about=np.array(["no JSON"]))
    np.savez(tmp_path / "evil.npz", about=np.array([{"a": 1}], dtype=object))
    (tmp_path / "torn.npz").write_bytes(whole[:-100])
    (tmp_path / "flipped.npz").write_bytes(whole[:600] + bytes([whole[600] ^ 255]) + whole[601:])
    (tmp_path / "text.npz").write_text("text")
    for name in ("else", "none", "evil", "torn", "flipped", "text"):
        with pytest.raises(InvalidParameterError, match="holds no sound thing"):
            read(tmp_path / f"{name}.npz", 2)
    with pytest.raises(InvalidParameterError, match="KeyError: 'wanted'"):  # noqa: SIM117 - the block fails
        with read_artifact(path, "thing", 2, error=InvalidParameterError, remedy="x") as (facts, _):
            facts["wanted"]


def test_nobody_is_told_to_load_a_pickle(tmp_path):
    (tmp_path / "any.npz").write_bytes(b"\x80 no archive")
    with pytest.raises(InvalidParameterError, match="it is not an npz file") as caught:
        read(tmp_path / "any.npz")
    assert "pickle" not in str(caught.value)
