import subprocess
import sys

import pytest

from nearsight import process_memory

_FREE = """
import numpy as np
from nearsight.process_memory import resident_bytes, return_freed
sizes = [resident_bytes()]
arrays = [np.ones(12_000) for _ in range(1_000)]  # below the size that goes back by itself
sizes.append(resident_bytes())
last = arrays.pop()
arrays.clear()
sizes.append(resident_bytes())
return_freed()
print(*sizes, resident_bytes())
"""


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
    # In a process of its own: among the pieces that other tests have freed there is room.
    done = subprocess.run([sys.executable, "-c", _FREE], capture_output=True, text=True, check=True)
    before, most, kept, after = map(int, done.stdout.split())
    assert most - before > 80e6
    assert kept - before > 80e6
    assert after - before < 20e6
