"""The memory of this process: what it has, what it may still take, and how it gives freed memory back."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path


def resident_bytes() -> int:
    """Return the memory that this process has; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how much memory this process may still take; half of all where the system does not say."""
    free = []
    with suppress(OSError):
        lines = meminfo.read_text(encoding="ascii").splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # no limit is "max"
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        free.append(max(limit - used, 0))
    return min(free, default=_half_of_memory_bytes())


def return_freed() -> None:
    """Give freed memory back to the system: the C library and Arrow keep it for later, in many pieces."""
    if arrow := sys.modules.get("pyarrow"):  # it takes a fifth of a second to import
        arrow.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _half_of_memory_bytes() -> int:
    with suppress(AttributeError, OSError, ValueError):  # Windows has no sysconf
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 8 << 30
