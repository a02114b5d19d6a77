"""Which images are blurred, dark, bright, flat, tiny or of odd shape, by limits for a stated rate."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from nearsight import progress as progress_display
from nearsight.collection import Collection
from nearsight.collection.arrays import iter_thumbnails
from nearsight.errors import CalibrationError
from nearsight.estimators.conformal import from_good
from nearsight.images.statistics import ImageStatistics, statistics
from nearsight.parallel import ordered_map
from nearsight.processor import n_cores

_REFERENCE = "quality_reference.json"
# Fewer pixels than these on the shorter side, a longer side that is so many times the shorter, or colors that
# differ by less than 15 levels of 255. Nobody's photographs are a sample of these, so they are fixed.
MIN_SIDE_PX = 64
MAX_ASPECT = 3.0
MIN_SPAN = 0.06
# Where a larger share is beyond a limit, this is how the collection is, and no fault of single images.
COMMON_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class _Measure:
    """One kind of fault: its score, and how a value of the score is written."""

    score: Callable[[ImageStatistics], float]
    text: Callable[[float], str]


#: The kinds whose limits are learned; the score of each is higher where the image is worse.
MEASURES: Mapping[str, _Measure] = {
    "blurred": _Measure(
        lambda s: s.edge_width, lambda v: f"its sharpest edges are {v:.1f} pixels wide, at 256 pixels"
    ),
    "dark": _Measure(lambda s: 1 - s.brightest, lambda v: f"its brightest parts have {1 - v:.0%} of white"),
    "bright": _Measure(lambda s: s.darkest, lambda v: f"its darkest parts have {v:.0%} of white"),
    "low_contrast": _Measure(
        lambda s: 1 - s.contrast, lambda v: f"it uses {1 - v:.0%} of the range that its brightness allows"
    ),
}
KINDS = (*MEASURES, "near_constant", "tiny", "odd_aspect")


@dataclass(frozen=True, slots=True)
class QualityFault:
    """One fault of an image.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    severity : float
        In 0..1: 0 at the limit, 1 at the worst that is possible.
    detail : str
        The measured value, in words.
    """

    kind: str
    severity: float
    detail: str


@dataclass(frozen=True)
class QualityLimits:
    """The score of each kind above which an image is at fault.

    Attributes
    ----------
    limits : dict of str to float
    false_alarm_rate : float
        Share of good images that may have any of these faults.
    n_examples : int
        Good images behind the limits.
    source : str
        What these images are.
    """

    limits: dict[str, float]
    false_alarm_rate: float
    n_examples: int
    source: str

    @classmethod
    def of_good(
        cls, examples: Iterable[ImageStatistics], false_alarm_rate: float, source: str
    ) -> "QualityLimits":
        """Learn limits from images that are known to be good.

        *Method*: split conformal (`estimators.conformal.from_good`), with an equal share of the rate for each
        of the four kinds.

        Raises
        ------
        CalibrationError
            There are too few images for the rate: 4 / rate are needed.
        """
        scores: dict[str, list[float]] = {kind: [] for kind in MEASURES}
        for example in examples:
            for kind, measure in MEASURES.items():
                scores[kind].append(finite(measure.score(example)))
        n = len(scores["dark"])
        try:
            limits = {
                kind: from_good(values, false_alarm_rate=false_alarm_rate / len(MEASURES)).value
                for kind, values in scores.items()
            }
        except CalibrationError as error:
            raise CalibrationError(
                f"a false-alarm rate of {false_alarm_rate:g} over {len(MEASURES)} kinds of faults needs"
                f" {round(len(MEASURES) / false_alarm_rate) - 1:,} good images, and there are {n:,}; give"
                " more, ask for a higher rate, or leave them out, for the limits that come with nearsight"
            ) from error
        return cls(limits, false_alarm_rate, n, source)

    @classmethod
    def shipped(cls, false_alarm_rate: float) -> "QualityLimits":
        """Return limits learned on the photographs that `tools/quality_reference.py` measured.

        Raises
        ------
        CalibrationError
            The rate is too low for their number, or so high that the stored scores do not reach it.
        """
        reference = _reference()
        n, tails = reference["n"], reference["tails"]
        k = int(false_alarm_rate / len(MEASURES) * (n + 1) * (1 + 1e-9))
        kept = min(map(len, tails.values()))
        if not 1 <= k <= kept:
            lowest, highest = len(MEASURES) / (n + 1), len(MEASURES) * kept / (n + 1)
            raise CalibrationError(
                f"the false-alarm rate is {false_alarm_rate:g}; the limits that come with nearsight allow"
                f" {lowest:.4f} to {highest:.4f}. Choose such a rate, or give good images of your own"
            )
        limits = {kind: tail[k - 1] for kind, tail in tails.items()}
        return cls(limits, false_alarm_rate, n, reference["source"])

    def faults(self, measured: ImageStatistics, width: int, height: int) -> list[QualityFault]:
        """Return the faults of an image, the worst first.

        Of an image without anything to see, only that is a fault; and a tiny one is not called blurred.
        """
        faults = []
        for kind, measure in MEASURES.items():
            score, limit = finite(measure.score(measured)), self.limits[kind]
            if score > limit:
                worst = 10.0 if kind == "blurred" else 1.0
                severity = min(1.0, (score - limit) / max(worst - limit, 1e-6))
                faults.append(QualityFault(kind, severity, measure.text(score)))
        if measured.span < MIN_SPAN:
            detail = f"no channel has a range of more than {round(255 * measured.span)} of 255 levels"
            faults.append(QualityFault("near_constant", 1 - measured.span / MIN_SPAN, detail))
        shorter, longer = min(width, height), max(width, height)
        if 0 < shorter < MIN_SIDE_PX:
            detail = f"it has {width} × {height} pixels"
            faults.append(QualityFault("tiny", 1 - shorter / MIN_SIDE_PX, detail))
        if shorter and longer > MAX_ASPECT * shorter:
            detail = f"its longer side is {longer / shorter:.1f} times the shorter"
            faults.append(QualityFault("odd_aspect", 1 - MAX_ASPECT * shorter / longer, detail))
        kinds = {fault.kind for fault in faults}
        hidden = set()
        if "near_constant" in kinds:
            hidden = {"blurred", "dark", "bright", "low_contrast"}
        elif "tiny" in kinds:
            hidden = {"blurred"}
        return sorted((f for f in faults if f.kind not in hidden), key=lambda fault: -fault.severity)


def measure_thumbnails(
    collection: Collection, ids: list[str], *, n_threads: int | None = None, progress: bool | None = None
) -> Iterator[tuple[str, ImageStatistics]]:
    """Measure the stored thumbnails of images, in one pass; images without one are left out."""
    wanted = set(ids)
    thumbnails = (
        pair for chunk in iter_thumbnails(collection, ids) for pair in chunk.items() if pair[0] in wanted
    )
    with progress_display.bar("measuring images", len(ids), progress=progress) as bar:
        for id, measured in ordered_map(_measured, thumbnails, n_threads=n_threads or n_cores()):
            bar.update()
            yield id, measured


def _measured(thumbnail: tuple[str, bytes]) -> tuple[str, ImageStatistics]:
    id, jpeg = thumbnail
    with Image.open(BytesIO(jpeg)) as image:
        return id, statistics(image)


def finite(score: float) -> float:
    """Return a score as a number; -1 for NaN."""
    # No edge is no blur: what has no edge is flat or constant.
    return -1.0 if np.isnan(score) else score


@cache
def _reference() -> dict[str, Any]:
    text = (resources.files("nearsight.analyses") / _REFERENCE).read_text(encoding="utf-8")
    reference: dict[str, Any] = json.loads(text)
    return reference
