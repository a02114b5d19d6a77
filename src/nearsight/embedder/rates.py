"""How many images per second each plan has done on this machine, kept for the next run."""

import hashlib
import json
import logging
import math
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nearsight import processor
from nearsight.artifacts import replacing
from nearsight.models.runtimes import devices

_MAX_AGE_S = 30 * 24 * 3600

_log = logging.getLogger(__name__)


class Rates:
    """Measured rates of one model on this machine, by size of the images and by plan.

    Parameters
    ----------
    cache_dir : Path
        Directory of the file, which other processes may write at the same time.
    fingerprint : str
        Digest of the model's fingerprint.
    n_cores : int
        Cores that were used.
    """

    def __init__(self, cache_dir: Path, fingerprint: str, n_cores: int) -> None:
        self.file = cache_dir / "rates" / f"{fingerprint[:16]}-{_machine(n_cores)}.json"

    def read(self, pixels: float) -> dict[str, float]:
        """Return images per second by plan, for images of about so many pixels.

        Empty if nothing was measured in the last 30 days: other programs may have been busy then.
        """
        try:
            age_s = time.time() - self.file.stat().st_mtime
        except OSError:
            return {}
        return self.read_all().get(size_class(pixels), {}) if age_s < _MAX_AGE_S else {}

    def read_all(self) -> dict[str, dict[str, float]]:
        """Return images per second by size class and plan."""
        try:
            data = json.loads(self.file.read_text(encoding="utf-8"))
            return {
                str(size): {str(name): float(rate) for name, rate in rates.items()}
                for size, rates in data["images_per_second"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def write(self, pixels: float, rates: Mapping[str, float], model: str) -> None:
        """Keep the rates of all plans that were compared."""
        rounded = {name: round(rate, 1) for name, rate in rates.items()}
        facts: dict[str, Any] = {
            "model": model,
            "images_per_second": self.read_all() | {size_class(pixels): rounded},
        }
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.file) as out:
                out.write(json.dumps(facts, indent=2).encode())
        except OSError as error:
            _log.warning("%s could not be written (%s); the rates are measured again.", self.file, error)


def size_class(pixels: float) -> str:
    """Return a name for all images of about so many pixels.

    Examples
    --------
    >>> size_class(640 * 480), size_class(4000 * 3000)
    ('0.25 Mpx', '16 Mpx')
    """
    exponent = round(math.log(max(pixels, 1) / 1e6, 4))
    return f"{4.0**exponent:g} Mpx"


def _machine(n_cores: int) -> str:
    facts = [platform.machine(), platform.system(), processor.describe(), devices.nvidia_driver(), n_cores]
    packages = ("nearsight", *devices.ONNXRUNTIME_PACKAGES, "openvino", "torch", "pillow")
    return hashlib.sha256(repr([*facts, *map(_version, packages)]).encode()).hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
