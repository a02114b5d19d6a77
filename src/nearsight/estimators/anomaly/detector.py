"""Images scored by their feature maps: as a whole, and place by place at each level."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.anomaly.mahalanobis import VectorAnomaly
from nearsight.estimators.anomaly.patch_memory import PatchMemory
from nearsight.estimators.anomaly.position_scale import PositionScale, folds
from nearsight.estimators.anomaly.score_fusion import ScoreScale, combine_scores
from nearsight.estimators.conformal import Threshold, from_good, required_examples
from nearsight.estimators.stored_parameters import present_parameters

Level = Literal["combined", "image", "patch"]
#: One image: for each level a feature map, (h, w, d) float32. A level is a layer of a network in one view.
Maps = Sequence[NDArray[np.float32]]

# Fewer images do not show what is normal.
_LEAST_FITTED = 10
# The share of images that is held out for the threshold.
_HELD_OUT_SHARE = 1 / 3
# Of the others, the share that the scales are learned from, and how many those are at least, up to a half.
_SCALED_SHARE, _LEAST_SCALED = 1 / 3, 15
# The threshold is calibrated on at most so many scores: the latest.
_MOST_SCORES = 5000
_IMAGE, _PLACES = "image", "places"
# Matrix products differ in their last bits by the alignment of arrays; scores must not.
_DECIMALS = 6
# Vectors that are fitted together: inverting the covariance costs more than all else.
_BATCH_VECTORS = 64
# The score of a level is the mean of this share of its places, the highest.
_TOP_SHARE = 0.01
# Maps that are kept until the places' scales are known: those of 256 images show the spread of a level.
_MOST_MAPS = 256
# Positions of an image that are learned, at most; large maps hold many alike.
_MOST_LEARNED = 3000
# Positions of a map, a side.
_MOST_POSITIONS = 128


@dataclass(frozen=True, slots=True)
class LevelScores:
    """The anomaly scores of one image.

    Attributes
    ----------
    score : float
        Higher is more unusual; about 0 for good images.
    levels : dict of str to float
        Scores in standard deviations of good images: ``image``, ``places``, and each map by number.
    heat : list of ndarray of shape (h, w), float32
        For each map the score of each place, in its own unit; empty if the level is ``image``.
    places : ScoreScale or None
        The unit of the heat of all maps combined.
    """

    score: float
    levels: dict[str, float]
    heat: list[NDArray[np.float32]]
    places: ScoreScale | None = None


class _GivenDistances:
    """A level whose maps are distances already, such as those to a template."""

    def distances(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return X[..., 0]

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {"given": True}, {}


_Member = VectorAnomaly | PatchMemory | _GivenDistances


class MultiLevelAnomaly(BaseEstimator):
    """Score images by their distance to good ones, as a whole and place by place.

    *Method*. As a whole: `VectorAnomaly` on the mean and standard deviation of each feature over the image,
    for changes that are everywhere. Place by place: one `PatchMemory` a level, whose distances count by what
    is usual in that place (`PositionScale`); the score of a level is the mean of the highest hundredth of its
    places. Deviations from Roth et al. 2022, section 3.1, who concatenate the layers and take the highest
    distance: the few features of a fine layer are not dominated by the many of a coarse one, and the border
    of an image, where distances are always larger, does not decide. The scores of the levels are standardized
    on good images and combined (`combine_scores`); so are the two of places and whole.

    Good images are used in three parts, in their order, which must be random: the model is fitted on the
    first; the second are scored, to learn what is usual in each place and at each level; the last, about a
    third and as many as meet the rate exactly, are held out for the threshold (split conformal,
    `conformal.from_good`). The second part is not learned: a memory that grew would see other distances
    than those that the scales were learned on.

    Parameters
    ----------
    level : {"combined", "image", "patch"}
        Which levels take part.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share of good images that may be called defective.
    confidence : float, optional
        See `conformal.required_examples`.
    n_patches : int, default 2000
        Patches stored of each level.
    n_given : int, default 0
        The last so many maps of an image are distances already, with one feature each: only what is usual in
        each of their places is learned.
    random_state : int

    Attributes
    ----------
    threshold_ : Threshold
    scales_ : dict of str to ScoreScale
    n_images_seen_ : int

    Notes
    -----
    Memory depends on `n_patches` and the number of features, not on the number of images. To fit an image
    costs as much as to score it: patches × `n_patches` × features, for each level.

    Fewer images than the rate needs are refused by number, so none, one and two always are. NaN and infinity
    are refused. Duplicate images in several parts make the threshold too low: leave them out first, as
    `AnomalyDetector` does. If all images are the same, any other has an enormous score.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> good = [[rng.normal(size=(8, 8, 4)).astype(np.float32)] for _ in range(60)]
    >>> odd = [good[0][0].copy()]
    >>> odd[0][3:6, 3:6] += 5
    >>> detector = MultiLevelAnomaly(n_patches=500).fit(good[1:])
    >>> bool(detector.threshold_.exceeded([detector.score_levels(odd).score])[0])
    True
    """

    def __init__(
        self,
        *,
        level: Level = "combined",
        false_alarm_rate: float = 0.05,
        confidence: float | None = None,
        n_patches: int = 2000,
        n_given: int = 0,
        random_state: int = 0,
    ) -> None:
        self.level = level
        self.false_alarm_rate = false_alarm_rate
        self.confidence = confidence
        self.n_patches = n_patches
        self.n_given = n_given
        self.random_state = random_state

    def fit(self, X: Iterable[Maps], y: Any = None, *, n: int | None = None) -> "MultiLevelAnomaly":
        """Fit on good images and calibrate the threshold.

        Parameters
        ----------
        X : iterable of images, each a sequence of ndarray of shape (h, w, d), float32
            Good ones only, in random order. One is in memory at a time.
        n : int, optional
            The number of images; needed if `X` has no length.

        Raises
        ------
        CalibrationError
            There are too few images for the rate; the message says how many are needed.
        """
        if self.level not in ("combined", "image", "patch"):
            raise InvalidParameterError(f"level is {self.level!r}; it must be 'combined', 'image' or 'patch'")
        total = len(X) if n is None and isinstance(X, Sized) else n
        if total is None:
            raise InvalidParameterError("X has no length; give the number of images as n=")
        n_first, n_second = self.split(total)
        images = iter(X)
        self._members: dict[str, _Member] = {}
        self._vectors: list[NDArray[np.float64]] = []
        self.n_images_seen_ = 0
        self._learn(islice(images, n_first))
        distances = self._measure(islice(images, n_second))
        if not any(distances.values()):
            raise CalibrationError(
                f"of {total} good images only {self.n_images_seen_} came; give their number as n="
            )
        self._fit_scales(distances)
        self.good_scores_ = np.array([self.score_levels(maps).score for maps in images])
        self.n_images_seen_ += len(self.good_scores_)
        self._calibrate()
        return self

    def partial_fit(self, X: Iterable[Maps], y: Any = None) -> "MultiLevelAnomaly":
        """Fit on more good images.

        Each is scored before it is fitted, as a new good image; the threshold is calibrated on the latest
        5,000 such scores. `scales_` does not change, so that scores remain comparable.
        """
        check_is_fitted(self, "threshold_")
        scores: list[float] = []

        def scored() -> Iterable[Maps]:
            for maps in X:
                scores.append(self.score_levels(maps).score)
                yield maps

        self._learn(scored())
        self.good_scores_ = np.concatenate([self.good_scores_, scores])[-_MOST_SCORES:]
        self._calibrate()
        return self

    def split(self, n: int) -> tuple[int, int]:
        """Return the sizes of the first and second part of n good images; the rest is held out.

        Raises
        ------
        CalibrationError
            There are too few images for the rate.
        """
        required = required_examples(self.false_alarm_rate, confidence=self.confidence)
        held = max(required, round(n * _HELD_OUT_SHARE))
        if self.confidence is None:
            # So many that the rate is met exactly; a few more would not move the threshold.
            k = max(1, round(self.false_alarm_rate * (n * _HELD_OUT_SHARE + 1)))
            held = math.ceil(k / self.false_alarm_rate - 1 - 1e-9)
        if n - held < _LEAST_FITTED:
            raise CalibrationError(
                f"a false-alarm rate of {self.false_alarm_rate:g} needs at least {required + _LEAST_FITTED}"
                f" good images, {required} of them held out for the threshold; there are {n}. Give more, or"
                " ask for a higher rate"
            )
        n_second = min((n - held) // 2, max(round((n - held) * _SCALED_SHARE), _LEAST_SCALED))
        return n - held - n_second, n_second

    def score_levels(self, maps: Maps) -> LevelScores:
        """Return the anomaly scores of one image.

        Parameters
        ----------
        maps : sequence of ndarray of shape (h, w, d), float32
        """
        check_is_fitted(self, "scales_")
        levels, heat = {}, []
        for name, distances in _distances(self._members, maps).items():
            [score] = self.scales_[name].standardized(self._level_scores(name, [distances]))
            levels[name] = float(score)
            if isinstance(distances, np.ndarray):
                usual = self._places[name].standardized(distances)
                heat.append(self.scales_[name].standardized(usual).astype(np.float32))
        parts = [levels[_IMAGE]] if _IMAGE in levels else []
        if heat:
            combined = combine_scores([np.array(z) for name, z in levels.items() if name != _IMAGE])
            levels[_PLACES] = float(self.scales_[_PLACES].standardized(combined))
            parts.append(levels[_PLACES])
        score = float(combine_scores([np.array(z) for z in parts]))
        return LevelScores(round(score, _DECIMALS), levels, heat, self.scales_.get(_PLACES))

    def score_samples(self, X: Iterable[Maps]) -> NDArray[np.float64]:
        """Return minus the score of each image: higher is more normal."""
        return np.array([-self.score_levels(maps).score for maps in X])

    def predict(self, X: Iterable[Maps]) -> NDArray[np.int64]:
        """Return 1 for each normal image, -1 for each defective one."""
        return np.where(self.threshold_.exceeded(-self.score_samples(X)), -1, 1)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the fitted estimator as plain data and arrays; see `from_state`."""
        check_is_fitted(self, "threshold_")
        arrays: dict[str, NDArray[Any]] = {"good_scores": self.good_scores_}
        facts: dict[str, Any] = {
            "params": self.get_params(deep=False),
            "threshold": self.threshold_.to_dict(),
            "scales": {name: scale.to_dict() for name, scale in self.scales_.items()},
            "n_pictures_seen": self.n_images_seen_,
            "members": {},
        }
        for name, member in self._members.items():
            facts["members"][name], own = member.state()
            arrays |= {f"{name}.{key}": values for key, values in own.items()}
        facts["places"] = {}
        for name, places in self._places.items():
            facts["places"][name], own = places.state()
            arrays |= {f"{name}.places.{key}": values for key, values in own.items()}
        return json.loads(json.dumps(facts)), arrays

    @classmethod
    def from_state(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "MultiLevelAnomaly":
        """Return the estimator that `state` was called on.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is not what `state` returned.
        """
        detector = cls(**present_parameters(facts["params"]))
        detector._vectors = []
        detector._members = {}
        for name, own in facts["members"].items():
            mine = _of(arrays, f"{name}.")
            detector._members[name] = (
                _GivenDistances()
                if own.get("given")
                else VectorAnomaly.from_state(own, mine)
                if name == _IMAGE
                else PatchMemory.from_state(own, mine)
            )
        detector._places = {
            name: PositionScale.from_state(own, _of(arrays, f"{name}.places."))
            for name, own in facts["places"].items()
        }
        names = [*detector._members, *([_PLACES] if detector._places else [])]
        detector.scales_ = {name: ScoreScale.from_dict(facts["scales"][name]) for name in names}
        detector.threshold_ = Threshold.from_dict(facts["threshold"])
        detector.good_scores_ = np.asarray(arrays["good_scores"], np.float64)
        detector.n_images_seen_ = int(facts["n_pictures_seen"])
        return detector

    def _calibrate(self) -> None:
        self.threshold_ = from_good(
            self.good_scores_, false_alarm_rate=self.false_alarm_rate, confidence=self.confidence
        )

    def _learn(self, images: Iterable[Maps]) -> None:
        """Fit every level on images."""
        for maps in images:
            _require_maps(maps)
            if not self._members:
                self._members = self._new_members(len(maps))
            self.n_images_seen_ += 1
            for name, member in self._members.items():
                if isinstance(member, PatchMemory):
                    member.add(maps[int(name)][None])
            self._vectors.append(feature_moments(maps[: len(maps) - self.n_given]))
            if len(self._vectors) == _BATCH_VECTORS:
                self._learn_vectors()
        self._learn_vectors()
        for member in self._members.values():
            if isinstance(member, PatchMemory):
                member.finish()

    def _measure(self, images: Iterable[Maps]) -> dict[str, list[Any]]:
        """Learn what is usual in each place, and return the distances of up to 256 images at each level."""
        self._places = {name: PositionScale() for name in self._members if name != _IMAGE}
        measured: dict[str, list[Any]] = {name: [] for name in self._members}
        for maps in images:
            self.n_images_seen_ += 1
            for name, distances in _distances(self._members, maps).items():
                if name in self._places:
                    self._places[name].add(distances)
                if len(measured[name]) < _MOST_MAPS:
                    measured[name].append(distances)
        return measured

    def _fit_scales(self, distances: Mapping[str, list[Any]]) -> None:
        """Learn the unit of each level, and of all places together.

        The places of an image count by what is usual in other images, as those of a new image will.
        """
        for name, places in self._places.items():
            places.fit_tails(distances[name])
        scores = {
            name: np.array(values, np.float64) if name == _IMAGE else _cross_scored(values)
            for name, values in distances.items()
        }
        self.scales_ = {name: ScoreScale.fit(values) for name, values in scores.items()}
        if self._places:
            combined = combine_scores(
                [self.scales_[name].standardized(scores[name]) for name in self._places]
            )
            self.scales_[_PLACES] = ScoreScale.fit(combined)

    def _level_scores(self, name: str, distances: Sequence[Any]) -> NDArray[np.float64]:
        """Return the score of each image at a level, from its distances."""
        if name == _IMAGE:
            return np.array(distances, np.float64)
        return np.array([_highest(self._places[name].standardized(values)) for values in distances])

    def _learn_vectors(self) -> None:
        whole = self._members.get(_IMAGE)
        if self._vectors and isinstance(whole, VectorAnomaly):
            whole.partial_fit(np.stack(self._vectors))
        self._vectors = []

    def _new_members(self, n_levels: int) -> dict[str, _Member]:
        members: dict[str, _Member] = {}
        if self.level != "patch":
            members[_IMAGE] = VectorAnomaly(false_alarm_rate=None, random_state=self.random_state)
        if self.level != "image":
            for i in range(n_levels - self.n_given, n_levels):
                members[str(i)] = _GivenDistances()
            for i in range(n_levels - self.n_given):
                members[str(i)] = PatchMemory(
                    n_rows=self.n_patches,
                    max_side=_MOST_POSITIONS,
                    n_reweight=0,
                    max_learned=_MOST_LEARNED,
                    random_state=self.random_state,
                )
        return members


def _require_maps(maps: Maps, n_levels: int = 0) -> None:
    """Raise if an image has the wrong shape; the members check that numbers are finite."""
    shapes = [np.shape(values) for values in maps]
    if not shapes or any(len(shape) != 3 or 0 in shape for shape in shapes):
        raise InvalidParameterError(
            f"an image has arrays of shape {shapes}; give one of shape (h, w, d) for each level"
        )
    if n_levels and len(shapes) != n_levels:
        raise InvalidParameterError(f"an image has {len(shapes)} levels; the fitted ones had {n_levels}")


def feature_moments(maps: Maps) -> NDArray[np.float64]:
    """Return one vector for an image: the mean and standard deviation of each feature over all positions."""
    parts = []
    for values in maps:
        features = values.reshape(-1, values.shape[-1])
        parts += [features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)]
    return np.concatenate(parts)


def _distances(members: Mapping[str, _Member], maps: Maps) -> dict[str, Any]:
    """Return the distance to good images at each level: a number for the whole, else a map of the places."""
    _require_maps(maps, sum(name != _IMAGE for name in members))
    n_given = sum(isinstance(member, _GivenDistances) for member in members.values())
    return {
        name: -float(member.score_samples(feature_moments(maps[: len(maps) - n_given])[None])[0])
        if isinstance(member, VectorAnomaly)
        else member.distances(maps[int(name)][None])[0]
        for name, member in members.items()
    }


def _highest(places: NDArray[np.float32]) -> float:
    """Return the mean of the highest hundredth of the places."""
    n = max(1, round(_TOP_SHARE * places.size))
    return float(np.partition(places.ravel(), places.size - n)[-n:].mean(dtype=np.float64))


def _of(arrays: Mapping[str, NDArray[Any]], start: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(start): values for key, values in arrays.items() if key.startswith(start)}


def _cross_scored(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the score of each map by the places' scales of the other folds."""
    scores = np.empty(len(maps))
    for fold, others in folds(len(maps)):
        scale, other_maps = PositionScale(), [maps[i] for i in others]
        for values in other_maps:
            scale.add(values)
        scale.fit_tails(other_maps)
        scores[fold] = [_highest(scale.standardized(maps[i])) for i in fold]
    return scores
