"""Images scored by their feature maps: as a whole, and patch by patch in each layer."""

import copy
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
from nearsight.estimators.anomaly.score_fusion import ScoreScale, combine_scores
from nearsight.estimators.conformal import Threshold, from_good, required_examples
from nearsight.estimators.stored_parameters import present_parameters

Level = Literal["combined", "image", "patch"]
#: One image: for each layer the maps of its tiles, (tiles, h, w, d) float32.
Layers = Sequence[NDArray[np.float32]]

# Fewer images do not show what is normal.
_LEAST_FITTED = 10
# The share of images that is held out for the threshold.
_HELD_OUT_SHARE = 1 / 3
# The threshold is calibrated on at most so many scores: the latest.
_MOST_SCORES = 5000
_IMAGE = "image"
# Matrix products differ in their last bits by the alignment of arrays; scores must not.
_DECIMALS = 6
# Vectors that are fitted together: inverting the covariance costs more than all else.
_BATCH_VECTORS = 64


@dataclass(frozen=True, slots=True)
class LevelScores:
    """The anomaly scores of one image.

    Attributes
    ----------
    score : float
        Higher is more unusual; about 0 for good images.
    levels : dict of str to float
        The score of each level, in standard deviations of good images: ``image``, then the layers by number.
    heat : list of ndarray of shape (tiles, h, w), float32
        For each layer the score of each patch, in the same unit; empty if the level is ``image``.
    """

    score: float
    levels: dict[str, float]
    heat: list[NDArray[np.float32]]


class MultiLevelAnomaly(BaseEstimator):
    """Score images by their distance to good ones, as a whole and patch by patch.

    *Method*. As a whole: `VectorAnomaly` on the mean and standard deviation of each feature over the image,
    for changes that are everywhere. Patch by patch: one `PatchMemory` a layer. Deviation from Roth et al.
    2022, section 3.1, who concatenate the layers: the few features of a fine layer are not dominated by the
    many of a coarse one. The scores of each level are standardized on good images and combined
    (`combine_scores`).

    Good images are used in three parts, in their order, which must be random: the model is fitted on the
    first; the second are scored, to standardize, and then fitted too; the last, about a third and as many as
    meet the rate exactly, are held out for the threshold (split conformal, `conformal.from_good`).

    Parameters
    ----------
    level : {"combined", "image", "patch"}
        Which levels take part.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share of good images that may be called defective.
    confidence : float, optional
        See `conformal.required_examples`.
    n_patches : int, default 2000
        Patches stored of each layer.
    random_state : int

    Attributes
    ----------
    threshold_ : Threshold
    scales_ : dict of str to ScoreScale
    n_images_seen_ : int

    Notes
    -----
    Memory depends on `n_patches` and the number of features, not on the number of images. To fit an image
    costs as much as to score it: patches × `n_patches` × features, for each layer.

    Fewer images than the rate needs are refused by number, so none, one and two always are. NaN and infinity
    are refused. Duplicate images in several parts make the threshold too low: leave them out first, as
    `AnomalyDetector` does. If all images are the same, any other has an enormous score.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> good = [[rng.normal(size=(1, 8, 8, 4)).astype(np.float32)] for _ in range(60)]
    >>> odd = [good[0][0].copy()]
    >>> odd[0][0, 3:6, 3:6] += 5
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
        random_state: int = 0,
    ) -> None:
        self.level = level
        self.false_alarm_rate = false_alarm_rate
        self.confidence = confidence
        self.n_patches = n_patches
        self.random_state = random_state

    def fit(self, X: Iterable[Layers], y: Any = None, *, n: int | None = None) -> "MultiLevelAnomaly":
        """Fit on good images and calibrate the threshold.

        Parameters
        ----------
        X : iterable of images, each a sequence of ndarray of shape (tiles, h, w, d), float32
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
        self._members: dict[str, VectorAnomaly | PatchMemory] = {}
        self._vectors: list[NDArray[np.float64]] = []
        self.n_images_seen_ = 0
        self._learn(islice(images, n_first))
        first_members = copy.deepcopy(self._members)
        scores: list[dict[str, float]] = []

        def scored() -> Iterable[Layers]:
            for layers in islice(images, n_second):
                scores.append({name: score for name, (score, _) in _scores(first_members, layers).items()})
                yield layers

        self._learn(scored())
        if not scores:
            raise CalibrationError(
                f"of {total} good images only {self.n_images_seen_} came; give their number as n="
            )
        self.scales_ = {
            name: ScoreScale.fit(np.array([image[name] for image in scores])) for name in self._members
        }
        self.good_scores_ = np.array([self.score_levels(layers).score for layers in images])
        self.n_images_seen_ += len(self.good_scores_)
        self._calibrate()
        return self

    def partial_fit(self, X: Iterable[Layers], y: Any = None) -> "MultiLevelAnomaly":
        """Fit on more good images.

        Each is scored before it is fitted, as a new good image; the threshold is calibrated on the latest
        5,000 such scores. `scales_` does not change, so that scores remain comparable.
        """
        check_is_fitted(self, "threshold_")
        scores: list[float] = []

        def scored() -> Iterable[Layers]:
            for layers in X:
                scores.append(self.score_levels(layers).score)
                yield layers

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
        return (n - held + 1) // 2, (n - held) // 2

    def score_levels(self, layers: Layers) -> LevelScores:
        """Return the anomaly scores of one image.

        Parameters
        ----------
        layers : sequence of ndarray of shape (tiles, h, w, d), float32
        """
        check_is_fitted(self, "scales_")
        scores = _scores(self._members, layers)
        levels = {name: float(self.scales_[name].standardized(score)) for name, (score, _) in scores.items()}
        heat = [
            self.scales_[name].standardized(distances).astype(np.float32)
            for name, (_, distances) in scores.items()
            if distances is not None
        ]
        score = float(combine_scores([np.array(z) for z in levels.values()]))
        return LevelScores(round(score, _DECIMALS), levels, heat)

    def score_samples(self, X: Iterable[Layers]) -> NDArray[np.float64]:
        """Return minus the score of each image: higher is more normal."""
        return np.array([-self.score_levels(layers).score for layers in X])

    def predict(self, X: Iterable[Layers]) -> NDArray[np.int64]:
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
            kind = VectorAnomaly if name == _IMAGE else PatchMemory
            start = f"{name}."
            mine = {key.removeprefix(start): v for key, v in arrays.items() if key.startswith(start)}
            detector._members[name] = kind.from_state(own, mine)
        detector.scales_ = {name: ScoreScale.from_dict(facts["scales"][name]) for name in detector._members}
        detector.threshold_ = Threshold.from_dict(facts["threshold"])
        detector.good_scores_ = np.asarray(arrays["good_scores"], np.float64)
        detector.n_images_seen_ = int(facts["n_pictures_seen"])
        return detector

    def _calibrate(self) -> None:
        self.threshold_ = from_good(
            self.good_scores_, false_alarm_rate=self.false_alarm_rate, confidence=self.confidence
        )

    def _learn(self, images: Iterable[Layers]) -> None:
        """Fit every level on images."""
        for layers in images:
            _require_maps(layers)
            if not self._members:
                self._members = self._new_members(len(layers))
            self.n_images_seen_ += 1
            for name, member in self._members.items():
                if isinstance(member, PatchMemory):
                    member.add(layers[int(name)])
            self._vectors.append(feature_moments(layers))
            if len(self._vectors) == _BATCH_VECTORS:
                self._learn_vectors()
        self._learn_vectors()
        for member in self._members.values():
            if isinstance(member, PatchMemory):
                member.finish()

    def _learn_vectors(self) -> None:
        if self._vectors and _IMAGE in self._members:
            self._members[_IMAGE].partial_fit(np.stack(self._vectors))
        self._vectors = []

    def _new_members(self, n_layers: int) -> dict[str, VectorAnomaly | PatchMemory]:
        members: dict[str, VectorAnomaly | PatchMemory] = {}
        if self.level != "patch":
            members[_IMAGE] = VectorAnomaly(false_alarm_rate=None, random_state=self.random_state)
        if self.level != "image":
            for i in range(n_layers):
                members[str(i)] = PatchMemory(n_rows=self.n_patches, random_state=self.random_state)
        return members


def _require_maps(layers: Layers, n_layers: int = 0) -> None:
    """Raise if an image has the wrong shape; the members check that numbers are finite."""
    shapes = [np.shape(maps) for maps in layers]
    if not shapes or any(len(shape) != 4 or 0 in shape for shape in shapes):
        raise InvalidParameterError(
            f"an image has arrays of shape {shapes}; give one of shape (tiles, h, w, d) for each layer"
        )
    if n_layers and len(shapes) != n_layers:
        raise InvalidParameterError(f"an image has {len(shapes)} layers; the fitted ones had {n_layers}")


def feature_moments(layers: Layers) -> NDArray[np.float64]:
    """Return one vector for an image: the mean and standard deviation of each feature over all positions."""
    parts = []
    for maps in layers:
        features = maps.reshape(-1, maps.shape[-1])
        parts += [features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)]
    return np.concatenate(parts)


def _scores(
    members: Mapping[str, VectorAnomaly | PatchMemory], layers: Layers
) -> dict[str, tuple[float, NDArray[np.float32] | None]]:
    """Return the score of each member, and the distances of patches where it has any."""
    scores: dict[str, tuple[float, NDArray[np.float32] | None]] = {}
    _require_maps(layers, sum(name != _IMAGE for name in members))
    for name, member in members.items():
        if isinstance(member, PatchMemory):
            distances, score = member.score_image(layers[int(name)])
            scores[name] = (score, distances)
        else:
            scores[name] = (-float(member.score_samples(feature_moments(layers)[None])[0]), None)
    return scores
