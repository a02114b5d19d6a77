"""What a model's card tells of it: the head of ``README.md``, as hubs keep it."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from nearsight.models.spec import ModelSpec

#: Its file.
CARD = "README.md"

_log = logging.getLogger(__name__)

# A head is a page or two; what is longer is something else.
_MOST_CHARACTERS = 200_000
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
# Creative Commons' NC; those that say it; Apple's for MobileCLIP; and others' for research and schools.
_NON_COMMERCIAL = re.compile(
    r"(^|[-_ ])nc([-_ ]|$)|non.?commercial|research|academic|apple-amlr", re.IGNORECASE
)
# For people, on one line.
_MOST_NAMED = 4

_told: set[str] = set()


def read_card(path: Path) -> dict[str, str]:
    """Return the facts of `ModelSpec` that a card tells: license, training data, published accuracy.

    A card that is missing or damaged tells nothing: it is written by hand, and no vector depends on it.

    Parameters
    ----------
    path : Path
        The README.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            head = _HEAD.search(file.read(_MOST_CHARACTERS))
        card = yaml.safe_load(head.group(1)) if head else None
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        _log.warning("%s cannot be read (%s), so the license of its model is not known.", path, error)
        return {}
    if not isinstance(card, Mapping):
        return {}
    facts = {
        "license": _license(card),
        "training_data": ", ".join(_texts(card.get("datasets"))[:_MOST_NAMED]),
        "accuracy": "; ".join(list(_results(card))[:_MOST_NAMED]),
    }
    return {key: value for key, value in facts.items() if value}


def is_non_commercial(license: str) -> bool:
    """Whether a license by that name forbids commercial use.

    Examples
    --------
    >>> [is_non_commercial(name) for name in ("cc-by-nc-4.0", "apple-amlr", "apache-2.0", "cc-by-sa-4.0")]
    [True, True, False, False]
    """
    return _NON_COMMERCIAL.search(license) is not None


def warn_of_terms(spec: ModelSpec) -> None:
    """Say once that a model must not be used commercially, where its license says so."""
    if is_non_commercial(spec.license) and spec.fingerprint.model not in _told:
        _told.add(spec.fingerprint.model)
        warnings.warn(
            f"NOT FOR COMMERCIAL USE: the license of {spec.id} is {spec.license}. What is made with it, "
            "vectors included, may fall under that; read its terms",
            stacklevel=3,
        )


def _license(card: Mapping[str, Any]) -> str:
    names = _texts(card.get("license"))
    # "other" says nothing; the name beside it does.
    named = [*_texts(card.get("license_name")), *_texts(card.get("license_link"))[:1]]
    return ", ".join(" ".join(named) if name == "other" and named else name for name in names)


def _results(card: Mapping[str, Any]) -> Iterator[str]:
    for model in _list(card.get("model-index")):
        for result in _list(model.get("results")) if isinstance(model, Mapping) else ():
            if not isinstance(result, Mapping):
                continue
            data = result.get("dataset")
            on = _texts(data.get("name") or data.get("type")) if isinstance(data, Mapping) else []
            for metric in _list(result.get("metrics")):
                if isinstance(metric, Mapping) and isinstance(metric.get("value"), (int, float, str)):
                    name = " ".join(_texts(metric.get("name") or metric.get("type")))
                    place = f" on {on[0]}" if on else ""
                    yield f"{name} {metric['value']}{place} (published)".strip()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts(value: Any) -> list[str]:
    """Return what is text or a number, on one line each."""
    return [" ".join(str(item).split()) for item in _list(value) if isinstance(item, (str, int, float))]
