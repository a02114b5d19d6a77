"""Limits of image faults: learned, shipped, and what is beyond them."""

import dataclasses

import numpy as np
import pytest

from nearsight.analyses.image_quality import KINDS, MEASURES, QualityLimits
from nearsight.errors import CalibrationError
from nearsight.images.statistics import ImageStatistics

ORDINARY = ImageStatistics(darkest=0.05, brightest=0.9, span=0.9, edge_width=0.5, is_gray=False)


def ordinary(n, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        low, high = np.sort(rng.uniform(0, 1, 2))
        yield ImageStatistics(low, max(high, low + 0.05), high - low, rng.exponential(), is_gray=False)


def kinds(limits, width=640, height=480, **changes):
    measured = dataclasses.replace(ORDINARY, **changes)
    return [fault.kind for fault in limits.faults(measured, width, height)]


def test_the_stated_share_of_good_images_is_beyond_the_limits():
    shares = []
    for seed in range(20):
        limits = QualityLimits.of_good(ordinary(800, seed), 0.04, "made")
        new = list(ordinary(400, 1000 + seed))
        # Only the learned kinds: the fixed rules promise nothing.
        found = [{f.kind for f in limits.faults(s, 640, 480)} & set(MEASURES) for s in new]
        shares.append(np.mean([bool(f) for f in found]))
    assert 0.01 < np.mean(shares) <= 0.04 + 3 * np.std(shares) / np.sqrt(20)


def test_too_few_good_images_are_refused():
    with pytest.raises(CalibrationError, match="needs 399 good images, and there are 398"):
        QualityLimits.of_good(ordinary(398), 0.01, "made")
    assert QualityLimits.of_good(ordinary(399), 0.01, "made").n_examples == 399


def test_the_shipped_limits_are_ranks_of_the_stored_scores():
    strict, lenient = QualityLimits.shipped(0.2), QualityLimits.shipped(0.005)
    assert all(strict.limits[kind] < lenient.limits[kind] for kind in MEASURES)
    assert strict.n_examples >= 1000
    for rate in (0.001, 0.5):
        with pytest.raises(CalibrationError, match="allow 0.0040 to 0.2398"):
            QualityLimits.shipped(rate)


def test_each_fault_is_named():
    limits = QualityLimits.shipped(0.01)
    assert kinds(limits) == []
    assert kinds(limits, edge_width=4.0) == ["blurred"]
    assert kinds(limits, brightest=0.2, span=0.2, darkest=0.0) == ["dark"]
    assert kinds(limits, darkest=0.8, brightest=1.0, span=0.2) == ["bright"]
    assert kinds(limits, darkest=0.45, brightest=0.55, span=0.1) == ["low_contrast"]
    assert kinds(limits, darkest=0.01, brightest=0.03, span=0.02, edge_width=float("nan")) == [
        "near_constant"
    ]
    assert kinds(limits, 40, 60) == ["tiny"]
    assert kinds(limits, 40, 60, edge_width=4.0) == ["tiny"]
    assert kinds(limits, 1000, 200) == ["odd_aspect"]
    assert kinds(limits, 0, 0) == []
    assert set(KINDS) == {*MEASURES, "near_constant", "tiny", "odd_aspect"}


def test_severity_grows_from_the_limit_to_one():
    limits = QualityLimits.shipped(0.01)
    severities = [
        limits.faults(dataclasses.replace(ORDINARY, edge_width=w), 640, 480)[0].severity
        for w in (1.1, 3, 6, 10)
    ]
    assert severities == sorted(severities)
    assert severities[0] < 0.1
    assert severities[-1] == 1
    worse = limits.faults(dataclasses.replace(ORDINARY, edge_width=2.0), 20, 30)
    assert worse[0].kind == "tiny"
