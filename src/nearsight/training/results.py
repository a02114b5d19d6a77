"""What a training gave: the settings, the figures, and whether they beat the pretrained model's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nearsight.errors import ImageFailure
from nearsight.evaluation import Estimate, PairedDifference, metric_title
from nearsight.models.spec import ModelSpec
from nearsight.training.closed_form import AffineMap
from nearsight.training.judgement import METRIC
from nearsight.training.network_features import FeatureNetwork
from nearsight.training.selection import DimensionResult, SettingResult
from nearsight.training.split import MIN_CLASSES_FOR_UNSEEN

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Figure:
    """One metric on images that nothing was learned from.

    Attributes
    ----------
    pretrained, trained : Estimate
    difference : PairedDifference
        Trained minus pretrained.
    """

    pretrained: Estimate
    trained: Estimate
    difference: PairedDifference

    @property
    def is_better(self) -> bool:
        """Whether the trained model is better, and chance alone hardly gives so much."""
        return self.difference.p < _SIGNIFICANT and self.difference.low > 0

    @property
    def is_worse(self) -> bool:
        """Whether the trained model is worse, and chance alone hardly takes so much."""
        return self.difference.p < _SIGNIFICANT and self.difference.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "pretrained": round(self.pretrained.value, 5),
            "trained": round(self.trained.value, 5),
            "interval": [round(self.trained.low, 5), round(self.trained.high, 5)],
            "difference": round(self.difference.value, 5),
            "difference_interval": [round(self.difference.low, 5), round(self.difference.high, 5)],
            "p": round(self.difference.p, 5),
        }


@dataclass(frozen=True)
class Training:
    """A trained model that is not written yet, and how it was made.

    Attributes
    ----------
    base : ModelSpec
        The pretrained model.
    network : FeatureNetwork
    map : AffineMap
        Fitted on all images that may be fitted on.
    setting : SettingResult
        The chosen setting, judged on the divisions for choosing.
    settings : list of SettingResult
        All settings.
    dimensions : list of DimensionResult
        The setting by dimension, on the divisions for choosing.
    unseen : Estimate or None
        Recall@1 of classes that were held out, minus that of the pretrained model, with vectors of this
        length (or of the next that was judged); None with too few classes.
    figures : dict of str to Figure
        By metric, on the test images, for a model that was fitted without them.
    augmentation : str
    n_views : int
    n_fitted, n_test, n_classes : int
        Images and classes.
    has_test_split : bool
        Whether the test images are a folder of their own, which the saved model was not fitted on either.
    data_sha256 : str
        Of the classes and the content of all files.
    seconds : float
    failed : list of ImageFailure
    layers : dict or None
        Plain data about the training of layers; None if it was not tried.
    holds_pairs : bool
        Whether the classes are few images of one thing each, and whole things were held out.
    known_only : bool
        Whether classes that were not learned did not matter.
    classes : sequence of str
        The learned classes by name; empty for pairs, which have no names.
    learned : sequence of str
        SHA-256 of each file that the saved model was fitted on.
    """

    base: ModelSpec
    network: FeatureNetwork
    map: AffineMap
    setting: SettingResult
    settings: list[SettingResult]
    dimensions: Sequence[DimensionResult]
    unseen: Estimate | None
    figures: dict[str, Figure]
    augmentation: str
    n_views: int
    n_fitted: int
    n_test: int
    n_classes: int
    has_test_split: bool
    data_sha256: str
    seconds: float
    failed: list[ImageFailure] = field(default_factory=list)
    layers: dict[str, Any] | None = None
    holds_pairs: bool = False
    known_only: bool = False
    classes: Sequence[str] = ()
    learned: Sequence[str] = ()

    @property
    def depth(self) -> str:
        """How deep the saved model was trained: ``head``, ``last`` or ``all``."""
        return "head" if self.layers is None or self.layers["epoch"] is None else str(self.layers["depth"])

    @property
    def layers_sentence(self) -> str:
        """What came of the training of layers, in one sentence; empty if it was not tried."""
        if self.layers is None:
            return ""
        which = "the last block" if self.layers["depth"] == "last" else "all layers"
        if (reason := self.layers["pretrained_layers_kept"]) is not None:
            if not self.layers["epochs"]:
                return f"The pretrained layers were kept, and {which} not trained: {reason}."
            return f"Training {which} was tried, and the pretrained layers were kept: {reason}."
        n = self.layers["epoch"]
        return f"Trained: {which}, {n} epoch{'s' * (n != 1)} with the loss {self.layers['loss']}."

    @property
    def test_split(self) -> str:
        """What the test images are."""
        if self.has_test_split:
            return "a folder of its own"
        return "a fifth of the things" if self.holds_pairs else "a fifth of each class"

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return len(self.map.components)

    @property
    def is_better(self) -> bool:
        """Whether the trained model finds more images of the right class than the pretrained one."""
        return self.figures[METRIC].is_better

    @property
    def verdict(self) -> str:
        """The result in a few sentences: what is better, and what is worse."""
        losses = [
            f"{metric_title(name)} {figure.trained.value:.3f} instead of {figure.pretrained.value:.3f} "
            f"({figure.difference.value:+.3f}, {figure.difference.low:+.3f} to {figure.difference.high:+.3f})"
            for name, figure in self.figures.items()
            if figure.is_worse
        ]
        return self._gain + (f" It is worse in {' and '.join(losses)}." if losses else "")

    @property
    def _gain(self) -> str:
        figure = self.figures[METRIC]
        change = (
            f"recall@1 {figure.trained.value:.3f} instead of {figure.pretrained.value:.3f} on "
            f"{self.n_test:,} test images ({figure.difference.value:+.3f}, 95 % interval "
            f"{figure.difference.low:+.3f} to {figure.difference.high:+.3f})"
        )
        if self.is_better:
            return f"The trained model is better: {change}."
        precision = self.figures.get("map@10")
        if precision is not None and precision.is_better:
            gap = precision.difference
            return (
                f"The trained model is not proven better in the first match: {change}. More of the first ten "
                f"matches are right: mAP@10 {precision.trained.value:.3f} instead of "
                f"{precision.pretrained.value:.3f} ({gap.value:+.3f}, {gap.low:+.3f} to {gap.high:+.3f}). "
                f"Use it where these count, and else keep {self.base.id}."
            )
        needed = figure.difference.n_needed
        if figure.difference.value > 0 and needed is not None and needed > self.n_test:
            more = f" With about {needed:,} test images, a difference of this size would show."
        else:
            more = " More labeled images of the classes that are confused may help."
        return f"The trained model is not proven better: {change}. Keep {self.base.id}.{more}"

    @property
    def unseen_sentence(self) -> str:
        """What happens to classes that were not learned, in one sentence."""
        if self.known_only:
            return (
                "Classes that were not learned did not count, and the model may be much worse for them than "
                f"{self.base.id}. Use it for these {self.n_classes} classes."
            )
        if self.unseen is None:
            return (
                f"With fewer than {MIN_CLASSES_FOR_UNSEEN} classes, none could be held out: what the model "
                "does to other classes is not known. "
                f"It may be worse for them than {self.base.id}, so directions between the learned classes "
                f"were not stretched. Use it for these {self.n_classes} classes, or give more; where others "
                "do not matter, --known-only holds nothing back."
            )
        unseen = self.unseen
        kind = "Things" if self.holds_pairs else "Classes"
        return (
            f"{kind} that were held out: recall@1 {unseen.value:+.3f} ({unseen.low:+.3f} to "
            f"{unseen.high:+.3f}) against {self.base.id}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a file and for ``--json``."""
        setting = self.setting.setting
        unseen = self.unseen
        return {
            "base": self.base.id,
            "base_fingerprint": self.base.fingerprint.digest,
            "depth": self.depth,
            "dim": self.dim,
            "better_than_pretrained": self.is_better,
            "verdict": self.verdict,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "unseen_classes": None
            if unseen is None
            else {
                "difference": round(unseen.value, 5),
                "interval": [round(unseen.low, 5), round(unseen.high, 5)],
            },
            "setting": {
                "shrinkage": setting.shrinkage,
                "stretch": "only between classes" if setting.stretch == float("inf") else setting.stretch,
                "layers": list(self.network.layers) if setting.uses_layers else [],
            },
            "dimensions": [
                {
                    "dim": result.dim,
                    "value": round(result.quality.seen.value, 5),
                    "low": round(result.quality.seen.low, 5),
                    "high": round(result.quality.seen.high, 5),
                }
                for result in self.dimensions
            ],
            "layers": self.layers,
            "known_only": self.known_only,
            "augmentation": self.augmentation,
            "views": self.n_views,
            "images": {"fitted": self.n_fitted, "test": self.n_test, "classes": self.n_classes},
            "classes": list(self.classes),
            "test_split": self.test_split,
            "data_sha256": self.data_sha256,
            "seconds": round(self.seconds, 1),
            "failed": [{"path": failure.path, "reason": failure.reason} for failure in self.failed],
        }
