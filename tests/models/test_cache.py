"""The cache of made files: checked, repaired, shared, and never in the way."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nearsight.models.cache import cached_bytes

DATA = b"dear to make" * 1000
NAME = f"thing-g1-{hashlib.sha256(DATA).hexdigest()[:16]}.bin"


def build() -> bytes:
    return DATA


def refuse() -> bytes:
    raise AssertionError("built again")


def test_built_once(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert cached_bytes(folder, "thing-g1", ".bin", build) == DATA
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert cached_bytes(folder, "thing-g1", ".bin", refuse) == DATA


def test_another_version_is_another_file(tmp_path: Path) -> None:
    cached_bytes(tmp_path, "thing-g1", ".bin", build)
    assert cached_bytes(tmp_path, "thing-g2", ".bin", lambda: b"new") == b"new"
    assert cached_bytes(tmp_path, "thing-g1", ".bin", refuse) == DATA


@pytest.mark.parametrize("damage", [b"", DATA[:-1], DATA[:-1] + b"?"])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_bytes(damage)
    assert cached_bytes(tmp_path, "thing-g1", ".bin", build) == DATA
    assert "damaged" in caplog.text
    assert (tmp_path / NAME).read_bytes() == DATA


def test_a_damaged_file_of_another_name_is_removed(tmp_path: Path) -> None:
    (tmp_path / "thing-g1-0123456789abcdef.bin").write_bytes(DATA)
    assert cached_bytes(tmp_path, "thing-g1", ".bin", build) == DATA
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_folder_in_the_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).mkdir()
    assert cached_bytes(tmp_path, "thing-g1", ".bin", build) == DATA
    assert "could not be cached" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_file_where_the_folder_belongs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "models").write_text("")
    assert cached_bytes(tmp_path / "models", "thing-g1", ".bin", build) == DATA
    assert str(tmp_path / "models") in caplog.text


LIMITED = """
import resource, sys
from pathlib import Path
from nearsight.models.cache import cached_bytes
# Writing beyond this fails in the system, as it does on a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
assert len(cached_bytes(Path(sys.argv[1]), "thing-g1", ".bin", lambda: b"x" * 9000)) == 9000
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of files")
def test_no_room(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "could not be cached" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_built_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="built again"):
        cached_bytes(tmp_path, "thing-g1", ".bin", refuse)
    assert list(tmp_path.iterdir()) == []


def test_files_are_as_readable_as_any(tmp_path: Path) -> None:
    cached_bytes(tmp_path, "thing-g1", ".bin", build)
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / NAME).stat().st_mode == (tmp_path / "plain").stat().st_mode


WORKER = """
import sys, time
from pathlib import Path
from nearsight.models import load_model
while time.time() < float(sys.argv[2]):
    pass
model = load_model(cache_dir=Path(sys.argv[1]))
print(model.spec.dim)
"""


@pytest.mark.slow
def test_processes_starting_at_once(tmp_path: Path) -> None:
    start = time.time() + 1.5
    command = [sys.executable, "-W", "error", "-c", WORKER, str(tmp_path), str(start)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in running:
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out.strip(), error) == (0, "1280", "")
    (only,) = (tmp_path / "models").iterdir()
    assert only.stem.rpartition("-")[2] == hashlib.sha256(only.read_bytes()).hexdigest()[:16]
