"""What this machine can compute with: the one place where the package asks.

The environment variable ``NEARSIGHT_WITHOUT`` hides features, so that one machine can behave like another:
``NEARSIGHT_WITHOUT=bfloat16,cores`` is a single core without bfloat16. Child processes inherit it.
"""

import os
import platform
import shutil
from pathlib import Path

from nearsight.errors import InvalidParameterError

#: Features that can be hidden. `cores` leaves one core; `gpu` hides GPUs of NVIDIA and Intel.
FEATURES = ("avx512", "vnni", "bfloat16", "float16", "gpu", "cores")

# What is computed with another feature goes with it.
_NEEDS = {"vnni": "avx512", "bfloat16": "avx512", "float16": "avx512"}

# By feature, parts of the names of its instruction sets in /proc/cpuinfo.
_FLAG_PARTS = {
    "avx512": ("avx512", "amx"),
    "vnni": ("vnni", "amx_int8"),
    "bfloat16": ("bf16",),
    "float16": ("avx512_fp16", "amx_fp16"),
}


def is_hidden(feature: str) -> bool:
    """Whether ``NEARSIGHT_WITHOUT`` names a feature, or one that it needs.

    Raises
    ------
    InvalidParameterError
        The variable names something else than `FEATURES`.
    """
    hidden = [name.strip() for name in os.environ.get("NEARSIGHT_WITHOUT", "").split(",") if name.strip()]
    for name in hidden:
        if name not in FEATURES:
            raise InvalidParameterError(
                f"NEARSIGHT_WITHOUT names {name!r}; it takes {', '.join(FEATURES)}, separated by commas"
            )
    return feature in hidden or _NEEDS.get(feature) in hidden


def n_cores() -> int:
    """Return the number of cores that this process may use, as containers and affinity limit them."""
    # Imported here: it takes a fifth of a second that `nearsight ls` does not need.
    from joblib import cpu_count

    return 1 if is_hidden("cores") else int(cpu_count())


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return what Linux names under ``flags`` or ``Features`` for any core; empty on other systems."""
    lines = _lines(cpuinfo, ("flags", "Features"))
    return frozenset(name for line in lines for name in line.partition(":")[2].split())


def describe(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model and instruction sets as one text, the same at each call."""
    # The clock, which the other lines hold, changes from moment to moment.
    lines = _lines(cpuinfo, ("model", "flags", "Features", "CPU part"))
    return "".join(sorted(lines)) or platform.processor()


def has_nvidia_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU that a process may open."""
    if is_hidden("gpu"):
        return False
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    # On Windows, and on Linux under Windows, the driver's tool shows that there is one.
    return (os.name == "nt" or Path("/dev/dxg").exists()) and shutil.which("nvidia-smi") is not None


def _lines(cpuinfo: Path, starts: tuple[str, ...]) -> set[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    hidden = [part for feature in _FLAG_PARTS if is_hidden(feature) for part in _FLAG_PARTS[feature]]
    return {_without(line, hidden) for line in lines if line.startswith(starts)}


def _without(line: str, hidden: list[str]) -> str:
    if not hidden:
        return line
    return " ".join(word for word in line.split() if not any(part in word for part in hidden))
