"""What vectors reach on images that they were not fitted on, and on classes that were held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearsight.evaluation import Estimate, estimates
from nearsight.evaluation.metrics import Task, recalls, retrieval
from nearsight.training.closed_form import WhitenedPoints
from nearsight.training.split import Draw

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

METRIC = "recall@1"
#: Must not fall either: of what is found, the first one is not all that is looked at.
WIDE_METRIC = "recall@5"
#: Classes that were not learned may get worse by as much at the lower end of the interval.
MAX_LOSS = 0.01
# Those of `METRIC` and `WIDE_METRIC`.
_RANKS = (1, 5)
_N_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class Quality:
    """What vectors reach on images that nothing was fitted on.

    Attributes
    ----------
    seen : Estimate
        Recall@1 of images of learned classes.
    wide : Estimate
        Of the same images, recall@5 minus that of the pretrained model.
    unseen : Estimate or None
        Of classes that were held out: recall@1 minus that of the pretrained model. None without any.
    known_only : bool
        Whether classes that were not learned do not matter.
    """

    seen: Estimate
    wide: Estimate
    unseen: Estimate | None
    known_only: bool = False

    @property
    def is_tested(self) -> bool:
        """Whether it is known what all classes that matter lose or gain."""
        return self.known_only or self.unseen is not None

    @property
    def worst(self) -> float:
        """The smaller of the differences to the pretrained model."""
        return min(self.wide.value, self.wide.value if self.unseen is None else self.unseen.value)

    @property
    def is_allowed(self) -> bool:
        """Whether recall@5 is not proven worse, and held-out classes, if any, keep their quality."""
        return self.wide.high >= 0 and (self.unseen is None or self.unseen.low > -MAX_LOSS)


class Answers(NamedTuple):
    """Recall@1 of each query; recall@5, and recall@1 of held-out classes, minus the pretrained model's."""

    seen: NDArray[np.float64]
    wide: NDArray[np.float64]
    unseen: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """Return the answers of several divisions, one after the other."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


class DivisionJudge:
    """The tasks of one division, and what the pretrained model reaches in them.

    Parameters
    ----------
    y, groups : ndarray of shape (n,), int
    frozen : ndarray of shape (n, d)
        The pretrained model's vectors.
    draw : Draw
    """

    def __init__(self, y: Ints, groups: Ints, frozen: Floats, draw: Draw) -> None:
        self._seen = _task(draw.validation, draw.gallery, y, groups)
        self._unseen = _task(draw.unseen, draw.unseen, y, groups) if len(draw.unseen) else None
        self._frozen_wide = self.seen(frozen)[WIDE_METRIC]
        self._frozen_unseen = self._of_unseen(frozen)

    def seen(self, vectors: Floats) -> dict[str, NDArray[np.float64]]:
        """Return metrics of each validation image, given the vectors of all images."""
        rows, task = self._seen
        return retrieval(vectors[rows], task).values

    def answers(self, vectors: Floats) -> Answers:
        """Return what `Judged.qualities` sums up, given the vectors of all images."""
        seen = self.seen(vectors)
        return Answers(
            seen[METRIC],
            seen[WIDE_METRIC] - self._frozen_wide,
            self._of_unseen(vectors) - self._frozen_unseen,
        )

    def answers_by_stretch(self, whitened: WhitenedPoints, stretches: Sequence[float]) -> list[Answers]:
        """Return `answers` for each stretch of all images' vectors."""
        seen = _recalls(*self._seen, whitened, stretches)
        unseen = (
            _recalls(*self._unseen, whitened, stretches) if self._unseen else [(np.empty(0),)] * len(seen)
        )
        return [
            Answers(first, wide - self._frozen_wide, of_unseen[0] - self._frozen_unseen)
            for (first, wide), of_unseen in zip(seen, unseen, strict=True)
        ]

    @property
    def groups(self) -> tuple[Ints, Ints]:
        """Group of each validation image, and of each image of held-out classes."""
        tasks = [part[1] for part in (self._seen, self._unseen) if part]
        seen, *unseen = [task.groups[task.queries] for task in tasks]
        return seen, unseen[0] if unseen else np.empty(0, int)

    def _of_unseen(self, vectors: Floats) -> NDArray[np.float64]:
        if self._unseen is None:
            return np.empty(0)
        rows, task = self._unseen
        return retrieval(vectors[rows], task).values[METRIC]


class Judged:
    """The tasks of all divisions.

    Parameters
    ----------
    y, groups, frozen
        See `DivisionJudge`.
    divisions : sequence of Draw
    known_only : bool
        Whether classes that were not learned do not matter.
    """

    def __init__(
        self,
        y: Ints,
        groups: Ints,
        frozen: Floats,
        divisions: Sequence[Draw],
        *,
        known_only: bool = False,
    ) -> None:
        self._known_only = known_only
        self.judges = [DivisionJudge(y, groups, frozen, draw) for draw in divisions]
        self.seen_groups, self._unseen_groups = map(
            np.concatenate, zip(*(judge.groups for judge in self.judges), strict=True)
        )

    @property
    def is_tested(self) -> bool:
        """Whether it is judged what all classes that matter lose or gain."""
        return self._known_only or len(self._unseen_groups) > 0

    def qualities(self, answers: Sequence[Sequence[Answers]]) -> list[Quality]:
        """Return what counts when settings are compared; intervals are of the same draws for all.

        Parameters
        ----------
        answers : sequence of sequences of Answers
            For each division, those of all settings.
        """
        of_settings = [Answers.joined(parts) for parts in zip(*answers, strict=True)]
        seen, wide, unseen = (np.stack(part) for part in zip(*of_settings, strict=True))
        of_unseen: Sequence[Estimate | None] = [None] * len(of_settings)
        if len(self._unseen_groups):
            of_unseen = estimates(unseen, self._unseen_groups)
        of_seen, of_wide = (estimates(part, self.seen_groups) for part in (seen, wide))
        return [Quality(*parts, self._known_only) for parts in zip(of_seen, of_wide, of_unseen, strict=True)]


def _recalls(
    rows: Ints, task: Task, whitened: WhitenedPoints, stretches: Sequence[float]
) -> list[tuple[NDArray[np.float64], ...]]:
    """Return for each stretch recall@1 and recall@5 of the queries."""
    parts: list[list[list[NDArray[np.float64]]]] = [[] for _ in stretches]
    for start in range(0, len(task.queries), _N_QUERIES_AT_ONCE):
        queries = task.queries[start : start + _N_QUERIES_AT_ONCE]
        cosines = whitened.cosines(rows[queries], rows[task.gallery], stretches)
        for of_stretch, similarities in zip(parts, cosines, strict=True):
            of_stretch.append(recalls(similarities, queries, task, _RANKS))
    return [tuple(map(np.concatenate, zip(*of_stretch, strict=True))) for of_stretch in parts]


def _task(queries: Ints, gallery: Ints, y: Ints, groups: Ints) -> tuple[Ints, Task]:
    """Return the rows of a task, and the task with positions among them."""
    rows = np.unique(np.concatenate([queries, gallery]))
    return rows, Task(np.searchsorted(rows, queries), np.searchsorted(rows, gallery), y[rows], groups[rows])
