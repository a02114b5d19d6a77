"""Whether the embedded engine can run here at all; asked before it is imported."""

import platform
import re
from pathlib import Path

from nearsight.errors import UnsupportedMachineError


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
