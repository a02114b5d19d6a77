import sys

import numpy as np
import pytest

from nearsight import process_memory


def test_free_memory_is_what_the_system_and_the_container_leave(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  16000 kB\nMemFree:   100 kB\nMemAvailable:  8000 kB\n", encoding="utf-8")
    assert process_memory.free_bytes(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.current").write_text("1000\n", encoding="utf-8")
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    assert process_memory.free_bytes(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.max").write_text("5000\n", encoding="utf-8")
    assert process_memory.free_bytes(meminfo, tmp_path) == 4000
    assert process_memory.free_bytes(tmp_path / "none", tmp_path / "none") > 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what a process has")
def test_what_was_freed_goes_back_to_the_system():
    before = process_memory.resident_bytes()
    kept = [np.ones(12_000) for _ in range(1_000)]  # below the size that goes back by itself
    most = process_memory.resident_bytes()
    last = kept.pop()
    kept.clear()
    process_memory.return_freed()
    assert last.any()
    assert most - before > 80e6
    assert process_memory.resident_bytes() < before + 20e6
