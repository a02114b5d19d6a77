"""The cost of work counts child processes, too."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.process_cost import ProcessCost

# Half a second of work in 60 MB, and then a while in which somebody can look at it.
_WORK = """
import time
data = bytearray(b"1") * 60_000_000
while time.process_time() < 0.5: pass
time.sleep(0.5)
"""


@pytest.mark.slow
def test_processor_time_and_memory_of_children_count():
    with ProcessCost() as cost:
        block = np.ones(10_000_000)
        subprocess.run([sys.executable, "-c", _WORK], check=True)
    assert cost.figures["processor_seconds_of_workers"] >= 0.4
    assert cost.figures["processor_seconds"] >= cost.figures["processor_seconds_of_workers"]
    assert cost.figures["peak_mb_of_workers"] >= 55
    assert cost.figures["peak_mb"] - cost.figures["before_mb"] >= 0.9 * block.nbytes / 1e6
