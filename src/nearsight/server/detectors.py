"""Detectors that requests have loaded: the least recently used is forgotten."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nearsight.anomaly import AnomalyDetector, AnomalyResult
from nearsight.errors import ImageFailure
from nearsight.images import Limits, MemorySource
from nearsight.services.inspections import Inspection

# Each holds a network and the patches of good images.
_MOST_LOADED = 2


class LoadedDetectors:
    """Scores images of requests.

    Parameters
    ----------
    limits : Limits
        What an image may cost.
    n_threads : int
    cache_dir : Path, optional
        For converted models.
    """

    def __init__(self, limits: Limits, n_threads: int, cache_dir: Path | None = None) -> None:
        self._options: dict[str, Any] = {"limits": limits, "n_threads": n_threads, "cache_dir": cache_dir}
        self._loaded: OrderedDict[Path, AnomalyDetector] = OrderedDict()
        # One request at a time: each uses all cores by itself.
        self._lock = threading.Lock()

    def score(
        self, inspection: Inspection, images: Sequence[tuple[str, bytes]]
    ) -> tuple[list[AnomalyResult | ImageFailure], int]:
        """Return the result of each image, with its heatmap, and the revision of the detector.

        Raises
        ------
        DetectorFileError
            The detector is gone or damaged.
        """
        facts = inspection.facts()
        file = inspection.directory / facts["file"]
        with self._lock:
            detector = self._loaded.pop(file, None) or AnomalyDetector.load(
                file, progress=False, **self._options
            )
            self._loaded[file] = detector
            while len(self._loaded) > _MOST_LOADED:
                self._loaded.popitem(last=False)
            sources = [MemorySource(name, data) for name, data in images]
            return list(detector.stream(sources, heatmaps=True)), int(facts["revision"])
