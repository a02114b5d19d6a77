"""Legacy torch checkpoints: what they hold, and what they must not do."""

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.errors import WeightsError
from nearsight.models.weights.torch_checkpoint import read_checkpoint

HEADER = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]


class Named:
    """Pickles as a call of any global, installed or not."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.module, self.name, self.arguments = module, name, arguments


class Storage:
    def __init__(self, key: str, kind: str, n_values: int) -> None:
        self.pid = ("storage", Global("torch", kind), key, "cpu", n_values, None)


class Global:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Writer(pickle._Pickler):
    """Writes globals by name, as torch does, without torch."""

    def persistent_id(self, value: object) -> object:
        return value.pid if isinstance(value, Storage) else None

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, Global):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Named):
            self.save(Global(value.module, value.name))
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def tensor(key: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, n: int = 6) -> Named:
    storage = Storage(key, "FloatStorage", n)
    return Named("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, OrderedDict())


def checkpoint(state: object, storages: dict[str, np.ndarray], header: list[object] = HEADER) -> bytes:
    file = io.BytesIO()
    for part in [*header, state, list(storages)]:
        Writer(file, protocol=2).dump(part)
    for values in storages.values():
        file.write(len(values).to_bytes(8, "little") + values.tobytes())
    return file.getvalue()


SIX = np.arange(6, dtype=np.float32)


def test_tensors_share_and_stride_storages() -> None:
    state = OrderedDict(
        rows=tensor("a", (2, 3), (3, 1)),
        columns=tensor("a", (2, 3), (1, 2)),
        tail=tensor("a", (2,), (1,), offset=4),
        scalar=tensor("b", (), (), n=1),
        empty=tensor("b", (0, 3), (3, 1), n=1),
        version=7,
    )
    read = read_checkpoint(checkpoint(state, {"b": SIX[5:], "a": SIX}))
    assert list(read) == ["rows", "columns", "tail", "scalar", "empty"]
    np.testing.assert_array_equal(read["rows"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(read["columns"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(read["tail"], [4, 5])
    assert read["scalar"].shape == ()
    assert read["scalar"] == 5
    assert read["empty"].shape == (0, 3)
    assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in read.values())


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("os", "mkdir", ("DIRECTORY",)),
        (os.mkdir.__module__, "mkdir", ("DIRECTORY",)),
        ("builtins", "eval", ("__import__('os').mkdir('DIRECTORY')",)),
        ("torch._utils", "_rebuild_parameter", ()),
        ("collections", "OrderedDict.__class__", ()),
    ],
)
def test_nothing_else_is_run(tmp_path: Path, module: str, name: str, arguments: tuple[str, ...]) -> None:
    made = tmp_path / "made"
    arguments = tuple(argument.replace("DIRECTORY", str(made)) for argument in arguments)
    with pytest.raises(WeightsError, match=f"names {module}.{name}"):
        read_checkpoint(checkpoint({"w": Named(module, name, *arguments)}, {}))
    assert not made.exists()


def test_the_attack_would_work_elsewhere(tmp_path: Path) -> None:
    # Proves that the test above refuses something real.
    file = io.BytesIO()
    Writer(file, protocol=2).dump(Named("os", "mkdir", str(tmp_path / "made")))
    pickle.loads(file.getvalue())
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("part", range(3))
def test_the_header_runs_nothing_either(tmp_path: Path, part: int) -> None:
    header = list(HEADER)
    header[part] = Named("os", "mkdir", str(tmp_path / "made"))
    with pytest.raises(WeightsError, match="names os.mkdir"):
        read_checkpoint(checkpoint({}, {}, header))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "state",
    [
        {"w": tensor("a", (3, 3), (3, 1))},
        {"w": tensor("a", (2, 3), (3, 1), offset=1)},
        {"w": tensor("a", (2, 3), (3, -1))},
        {"w": tensor("a", (-2,), (1,))},
        {"w": tensor("missing", (1,), (1,))},
        {"w": tensor("a", (2,), (1,), n=7)},
        {"w": Named("torch._utils", "_rebuild_tensor_v2", "no storage", 0, (), ())},
        {"w": Named("torch", "FloatStorage")},
        [1, 2],
    ],
)
def test_tensors_that_do_not_fit_are_refused(state: object) -> None:
    with pytest.raises(WeightsError):
        read_checkpoint(checkpoint(state, {"a": SIX}))


WHOLE = checkpoint({"w": tensor("a", (2, 3), (3, 1))}, {"a": SIX})


@pytest.mark.parametrize("length", [0, 1, 14, 40, len(WHOLE) - 1])
def test_cut_short(length: int) -> None:
    with pytest.raises(WeightsError):
        read_checkpoint(WHOLE[:length])


RAW_BYTES = 8 + SIX.nbytes


@settings(max_examples=300, deadline=None)
@given(position=st.integers(len(WHOLE) - RAW_BYTES, len(WHOLE) - 1), value=st.integers(0, 255))
def test_a_wrong_byte_is_an_error_or_another_number(position: int, value: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[position] = value
    try:
        read = read_checkpoint(bytes(damaged))
    except WeightsError:
        assert position < len(WHOLE) - SIX.nbytes
        return
    assert read["w"].shape == (2, 3)
