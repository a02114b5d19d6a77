"""Labels as tables from elsewhere leave them: doubtful ones are listed, and merged or dropped if asked."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from nearsight.errors import InvalidParameterError
from nearsight.text_format import count

#: What to do with doubtful labels.
LabelTreatment = Literal["refuse", "merge", "drop", "keep"]
Kind = Literal["spelling", "missing", "several", "contradiction"]

# What spreadsheets, pandas, R and databases write for a missing value.
_MISSING = {
    "", "-", "--", "?", "na", "n/a", "#n/a", "nan", "null", "nil", "none", "undefined", "missing",
    "not available", "#value!", "#ref!",
}  # fmt: skip
_CERTAIN_SEPARATORS = re.compile(r"\s*[;|]\s*")
# These also occur within one label, so that a part must be a label itself.
_POSSIBLE_SEPARATORS = re.compile(r"\s*[,/+&]\s*")
_MAX_SHOWN = 8


@dataclass(frozen=True, slots=True)
class DoubtfulLabel:
    """Labels that are probably not meant as they are written.

    Attributes
    ----------
    kind : {"spelling", "missing", "several", "contradiction"}
        One label in several spellings (case, blanks, hyphens, Unicode form); a word for a missing value;
        several labels in one cell; or an image with two labels.
    labels : list of str
        As written, the most frequent first.
    n_images : int
        Images that have one of them; of a spelling, those with another spelling than the most frequent.
    example : str
        Name of one such image.
    """

    kind: Kind
    labels: list[str]
    n_images: int
    example: str

    def __str__(self) -> str:
        labels = ", ".join(repr(label) for label in self.labels[:_MAX_SHOWN])
        text = {
            "spelling": f"{labels} are probably one label",
            "missing": f"{labels} is a word for a missing value",
            "several": f"{labels} is several labels in one cell",
            "contradiction": f"{self.example} has the labels {labels}",
        }[self.kind]
        return f"{text} ({count(self.n_images, 'image')})"


def find_doubtful(pairs: Iterable[tuple[str, str]]) -> list[DoubtfulLabel]:
    """Return what is doubtful about labels.

    Parameters
    ----------
    pairs : iterable of (str, str)
        Name and label of each image; a name may occur more than once.

    Examples
    --------
    >>> pairs = [("1", "Shirt"), ("2", "shirt"), ("3", "shirt"), ("4", "n/a"), ("5", "hat;scarf")]
    >>> for doubt in find_doubtful(pairs):
    ...     print(doubt)
    'shirt', 'Shirt' are probably one label (1 image)
    'n/a' is a word for a missing value (1 image)
    'hat;scarf' is several labels in one cell (1 image)
    """
    pairs = list(pairs)
    counts = Counter(label for _, label in pairs)
    examples = {label: name for name, label in reversed(pairs)}
    spellings = _spellings(counts)
    doubts = [
        DoubtfulLabel("spelling", labels, sum(counts[label] for label in labels[1:]), examples[labels[1]])
        for labels in spellings.values()
        if len(labels) > 1
    ]
    for label in counts:
        if _is_missing(label):
            doubts.append(DoubtfulLabel("missing", [label], counts[label], examples[label]))
        elif _is_several(label, spellings):
            doubts.append(DoubtfulLabel("several", [label], counts[label], examples[label]))
    # A row that says nothing, or several things, contradicts nothing.
    unclear = {label for q in doubts if q.kind in ("missing", "several") for label in q.labels}
    clear = [(name, label) for name, label in pairs if label not in unclear]
    return doubts + [
        doubt for doubt in _contradictions(clear) if len({_normalized(label) for label in doubt.labels}) > 1
    ]


def settle_labels(
    pairs: Sequence[tuple[str, str]], doubtful: LabelTreatment
) -> tuple[dict[str, str], list[DoubtfulLabel]]:
    """Return labels by name, and what was doubtful.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Name and label of each image; a name may occur more than once.
    doubtful : {"refuse", "merge", "drop", "keep"}
        Whether doubtful labels are an error, whether spellings become the most frequent one and other
        doubtful labels are left out, whether all of them are left out, or whether labels stay as written. An
        image with two labels is left out or refused; it cannot have both.

    Raises
    ------
    InvalidParameterError
        Labels are doubtful, and `doubtful` is "refuse"; or an image has two labels, and it is "keep".
    """
    doubts = find_doubtful(pairs)
    if doubtful == "keep":
        # As written, any second label of an image contradicts the first.
        doubts = _contradictions(pairs)
    if doubts and doubtful in ("refuse", "keep"):
        raise InvalidParameterError(_message(doubts))
    if doubtful in ("refuse", "keep"):
        return dict(pairs), doubts
    main = {label: doubt.labels[0] for doubt in doubts if doubt.kind == "spelling" for label in doubt.labels}
    dropped = {label for q in doubts if q.kind in ("missing", "several") for label in q.labels}
    if doubtful == "drop":
        dropped |= {label for label, first in main.items() if label != first}
    contradicted = {q.example for q in doubts if q.kind == "contradiction"}
    labels = {
        name: main.get(label, label)
        for name, label in pairs
        if name not in contradicted and label not in dropped
    }
    return labels, doubts


def _message(doubts: Sequence[DoubtfulLabel]) -> str:
    lines = [f"  {doubt}" for doubt in doubts[:_MAX_SHOWN]]
    if len(doubts) > _MAX_SHOWN:
        lines.append(f"  and {len(doubts) - _MAX_SHOWN:,} more")
    listed = "\n".join(lines)
    remedies = (
        "correct them, or choose: --doubtful-labels merge (one spelling for each label; leave out the rest)"
    )
    remedies += " or drop (leave out all of these images)"
    if any(doubt.kind != "contradiction" for doubt in doubts):
        remedies += " or keep (take labels as they are written)"
    return f"labels are doubtful:\n{listed}\n{remedies}"


def _spellings(counts: Counter[str]) -> dict[str, list[str]]:
    """Return the spellings of each label by its normalized form, the most frequent first."""
    groups: dict[str, list[str]] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        groups.setdefault(_normalized(label), []).append(label)
    return groups


def _normalized(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", label)).strip().casefold()


def _is_missing(label: str) -> bool:
    return label.strip().casefold() in _MISSING


def _is_several(label: str, spellings: dict[str, list[str]]) -> bool:
    if sum(bool(part) for part in _CERTAIN_SEPARATORS.split(label)) > 1:
        return True
    parts = [part for part in _POSSIBLE_SEPARATORS.split(label) if part]
    return len(parts) > 1 and any(_normalized(part) in spellings for part in parts)


def _contradictions(pairs: Iterable[tuple[str, str]]) -> list[DoubtfulLabel]:
    """Return the images with more than one label."""
    labels_by_name: dict[str, set[str]] = {}
    for name, label in pairs:
        labels_by_name.setdefault(name, set()).add(label)
    return [
        DoubtfulLabel("contradiction", sorted(labels), 1, name)
        for name, labels in labels_by_name.items()
        if len(labels) > 1
    ]
