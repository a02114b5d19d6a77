"""Checks that the engine can run on this processor and in this process."""

import os
import platform
import re
from pathlib import Path

from nearsight.errors import StorageError, UnsupportedMachineError


def check_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Refuse a processor on which importing LanceDB would kill the process.

    Raises
    ------
    UnsupportedMachineError
        On Linux on x86, where the processor lacks AVX2.
    """
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64", "i686"):
        return
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if flags and "avx2" not in flags[1].split():
        raise UnsupportedMachineError(
            "this processor has no AVX2 instructions, which LanceDB's package needs (Intel since 2013, "
            "AMD since 2015). Use another machine, or in a virtual machine pass the host's processor through "
            "(for QEMU: -cpu host)."
        )


_first_process: int | None = None


def check_process() -> None:
    """Refuse to go on in a child forked after the first call.

    The engine's threads do not survive a fork: calls in the child hang or crash, now and then.

    Raises
    ------
    StorageError
        In such a child.
    """
    global _first_process
    _first_process = _first_process or os.getpid()
    if _first_process != os.getpid():
        raise StorageError(
            "a collection cannot be used in a process forked from one that has opened a collection. "
            "Start workers with multiprocessing.get_context('spawn'), or use threads."
        )
