"""Images judged by their feature maps: as a whole, and place by place in each layer."""

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
from nearsight.estimators.anomaly.score_fusion import Scale, combined
from nearsight.estimators.conformal import Threshold, from_good, required_examples

Level = Literal["combined", "image", "patch"]
#: One image: for each layer its tiles' maps, (tiles, h, w, d) float32.
Layers = Sequence[NDArray[np.float32]]

# Fewer images say nothing about what is usual.
_LEAST_LEARNED = 10
# Of many images, this share is held out for the threshold.
_HELD_SHARE = 1 / 3
# Scores of good images that a threshold rests on, at most: the latest.
_MOST_SCORES = 5000
_IMAGE = "image"
# Products of matrices differ in their last bits with where arrays happen to lie; scores must not.
_DECIMALS = 6
# Vectors learned together: inverting the covariance costs more than all else.
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is unusual about one image.

    Attributes
    ----------
    score : float
        Higher is more alarming; about 0 for what is usual.
    levels : dict of str to float
        Each level's part, in standard deviations of good images: ``image``, then the layers by number.
    heat : list of ndarray of shape (tiles, h, w), float32
        For each layer the distance of each place, in the same unit; empty where the level is ``image``.
    """

    score: float
    levels: dict[str, float]
    heat: list[NDArray[np.float32]]


class MultiLevelAnomaly(BaseEstimator):  # type: ignore[misc] # scikit-learn is untyped
    """Judge images by how unlike good ones they are, as a whole and place by place.

    *Method*. As a whole: `VectorAnomaly` on the mean and standard deviation of each feature over the image,
    which sees what changes everywhere and nowhere in particular. Place by place: one `PatchMemory` a layer,
    so that a fine layer's few numbers are not drowned by a coarse layer's many, as they are where layers are
    joined into one vector (Roth et al. 2022, section 3.1, which this departs from). Each level's scores are
    brought to the unit of what is usual among good images, and `combined`.

    Good images serve three ends, in the order in which they come, which must be random: the first are
    learned; the next are scored, to know what is usual, and then learned; the last, about a third and as many
    as meet the rate exactly, are held out for the threshold (split conformal, `calibrate.from_good`), and
    never learned.

    Parameters
    ----------
    level : {"combined", "image", "patch"}
        Which levels take part.
    false_alarm_rate : float, default 0.05
        Share of good images that may be called defective.
    confidence : float, optional
        See `calibrate.required_examples`.
    n_patches : int, default 2000
        Patches remembered of each layer.
    random_state : int

    Attributes
    ----------
    threshold_ : Threshold
    scales_ : dict of str to Scale
    n_images_seen_ : int

    Notes
    -----
    Memory depends on `n_patches` and the number of features, not on how many images are seen. To learn a
    image and to score one cost the same: places x `n_patches` x features, for each layer.

    Images fewer than the rate needs are refused by number, so none, one and two always are. NaN and
    infinity are refused. Duplicate images, some learned and some held out, make the threshold too low: leave
    them out first, as `AnomalyDetector` does. Of images that are all the same, any other has an enormous
    score.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> good = [[rng.normal(size=(1, 8, 8, 4)).astype(np.float32)] for _ in range(60)]
    >>> odd = [good[0][0].copy()]
    >>> odd[0][0, 3:6, 3:6] += 5
    >>> detector = MultiLevelAnomaly(n_patches=500).fit(good[1:])
    >>> bool(detector.threshold_.exceeded([detector.assess(odd).score])[0])
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
        """Learn what good images look like, and where an alarm begins.

        Parameters
        ----------
        X : iterable of images, each a sequence of ndarray of shape (tiles, h, w, d), float32
            Good ones only, in random order. One is held at a time.
        n : int, optional
            How many there are; needed where `X` has no length.

        Raises
        ------
        CalibrationError
            There are too few for the rate; the message says how many are needed.
        """
        if self.level not in ("combined", "image", "patch"):
            raise InvalidParameterError(f"level is {self.level!r}; it must be 'combined', 'image' or 'patch'")
        total = len(X) if n is None and isinstance(X, Sized) else n
        if total is None:
            raise InvalidParameterError("X has no length; say how many images there are by n=")
        n_first, n_second = self.split(total)
        images = iter(X)
        self._members: dict[str, VectorAnomaly | PatchMemory] = {}
        self._vectors: list[NDArray[np.float64]] = []
        self.n_images_seen_ = 0
        self._learn(islice(images, n_first))
        half_way = copy.deepcopy(self._members)
        usual: list[dict[str, float]] = []

        def watched() -> Iterable[Layers]:
            for layers in islice(images, n_second):
                usual.append({name: score for name, (score, _) in _scores(half_way, layers).items()})
                yield layers

        self._learn(watched())
        if not usual:
            raise CalibrationError(
                f"of {total} good images only {self.n_images_seen_} came; say by n= how many there are"
            )
        self.scales_ = {
            name: Scale.of(np.array([scores[name] for scores in usual])) for name in self._members
        }
        self.good_scores_ = np.array([self.assess(layers).score for layers in images])
        self.n_images_seen_ += len(self.good_scores_)
        self._calibrate()
        return self

    def partial_fit(self, X: Iterable[Layers], y: Any = None) -> "MultiLevelAnomaly":
        """Learn from more good images.

        Each is scored before it is learned, as a new image that is known to be good; the threshold rests on
        the latest 5,000 such scores. What is usual (`scales_`) stays, so that scores remain comparable.
        """
        check_is_fitted(self, "threshold_")
        scores: list[float] = []

        def watched() -> Iterable[Layers]:
            for layers in X:
                scores.append(self.assess(layers).score)
                yield layers

        self._learn(watched())
        self.good_scores_ = np.concatenate([self.good_scores_, scores])[-_MOST_SCORES:]
        self._calibrate()
        return self

    def split(self, n: int) -> tuple[int, int]:
        """Return how many of n good images are learned first, and how many second; the rest is held out.

        Raises
        ------
        CalibrationError
            n is too small for the rate.
        """
        required = required_examples(self.false_alarm_rate, confidence=self.confidence)
        held = max(required, round(n * _HELD_SHARE))
        if self.confidence is None:
            # So many that the rate is met exactly: in between, images are held out for nothing.
            k = max(1, round(self.false_alarm_rate * (n * _HELD_SHARE + 1)))
            held = math.ceil(k / self.false_alarm_rate - 1 - 1e-9)
        if n - held < _LEAST_LEARNED:
            raise CalibrationError(
                f"a false-alarm rate of {self.false_alarm_rate:g} needs at least {required + _LEAST_LEARNED}"
                f" good images, {required} of them held out for the threshold; there are {n}. Give more, or"
                " ask for a higher rate"
            )
        return (n - held + 1) // 2, (n - held) // 2

    def assess(self, layers: Layers) -> Assessment:
        """Return what is unusual about one image.

        Parameters
        ----------
        layers : sequence of ndarray of shape (tiles, h, w, d), float32
        """
        check_is_fitted(self, "scales_")
        found = _scores(self._members, layers)
        levels = {name: float(self.scales_[name].standardized(score)) for name, (score, _) in found.items()}
        heat = [
            self.scales_[name].standardized(distances).astype(np.float32)
            for name, (_, distances) in found.items()
            if distances is not None
        ]
        score = float(combined([np.array(z) for z in levels.values()]))
        return Assessment(round(score, _DECIMALS), levels, heat)

    def score_samples(self, X: Iterable[Layers]) -> NDArray[np.float64]:
        """Return how normal each image is: minus its score, so that higher is more normal."""
        return np.array([-self.assess(layers).score for layers in X])

    def predict(self, X: Iterable[Layers]) -> NDArray[np.int64]:
        """Return 1 for each image that could be good, -1 for each that is not."""
        return np.where(self.threshold_.exceeded(-self.score_samples(X)), -1, 1)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what was learned as plain data and arrays; `from_state` makes it whole again."""
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
        """Return what `state` described.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is not what `state` returned.
        """
        found = cls(**facts["params"])
        found._vectors = []
        found._members = {}
        for name, own in facts["members"].items():
            kind = VectorAnomaly if name == _IMAGE else PatchMemory
            start = f"{name}."
            mine = {key.removeprefix(start): v for key, v in arrays.items() if key.startswith(start)}
            found._members[name] = kind.from_state(own, mine)
        found.scales_ = {name: Scale.from_dict(facts["scales"][name]) for name in found._members}
        found.threshold_ = Threshold.from_dict(facts["threshold"])
        found.good_scores_ = np.asarray(arrays["good_scores"], np.float64)
        found.n_images_seen_ = int(facts["n_pictures_seen"])
        return found

    def _calibrate(self) -> None:
        self.threshold_ = from_good(
            self.good_scores_, false_alarm_rate=self.false_alarm_rate, confidence=self.confidence
        )

    def _learn(self, images: Iterable[Layers]) -> None:
        """Let every level learn, and leave them ready to score."""
        for layers in images:
            _require_maps(layers)
            if not self._members:
                self._members = self._new_members(len(layers))
            self.n_images_seen_ += 1
            for name, member in self._members.items():
                if isinstance(member, PatchMemory):
                    member.add(layers[int(name)])
            self._vectors.append(summary(layers))
            if len(self._vectors) == _CHUNK:
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
    """Refuse what is no image, or one of other layers; whether numbers are finite, members see."""
    found = [np.shape(maps) for maps in layers]
    if not found or any(len(shape) != 4 or 0 in shape for shape in found):
        raise InvalidParameterError(
            f"an image has arrays of shape {found}; give one of shape (tiles, h, w, d) for each layer"
        )
    if n_layers and len(found) != n_layers:
        raise InvalidParameterError(f"an image has {len(found)} layers; those learned from had {n_layers}")


def summary(layers: Layers) -> NDArray[np.float64]:
    """Return one vector for an image: each feature's mean and standard deviation over all places."""
    parts = []
    for maps in layers:
        places = maps.reshape(-1, maps.shape[-1])
        parts += [places.mean(0, dtype=np.float64), places.std(0, dtype=np.float64)]
    return np.concatenate(parts)


def _scores(
    members: Mapping[str, VectorAnomaly | PatchMemory], layers: Layers
) -> dict[str, tuple[float, NDArray[np.float32] | None]]:
    """Return each member's own score, and its distances where it has places."""
    found: dict[str, tuple[float, NDArray[np.float32] | None]] = {}
    _require_maps(layers, sum(name != _IMAGE for name in members))
    for name, member in members.items():
        if isinstance(member, PatchMemory):
            distances, score = member.assess(layers[int(name)])
            found[name] = (score, distances)
        else:
            found[name] = (-float(member.score_samples(summary(layers)[None])[0]), None)
    return found
