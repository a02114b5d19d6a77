"""Reads a model's card: the YAML header of ``README.md``, as on Hugging Face hubs."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from nearsight.models.spec import ModelSpec

#: Name of its file.
CARD = "README.md"

_log = logging.getLogger(__name__)

# Longer than any real header.
_MAX_CHARACTERS = 200_000
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
# Creative Commons NC, Apple's license of MobileCLIP, and licenses for research or education.
_NON_COMMERCIAL = re.compile(
    r"(^|[-_ ])nc([-_ ]|$)|non.?commercial|research|academic|apple-amlr", re.IGNORECASE
)
# Data sets and results that are listed on one line.
_MAX_LISTED = 4

_warned: set[str] = set()


def read_card(path: Path) -> dict[str, str]:
    """Return the facts of `ModelSpec` in a card: license, training data, published accuracy.

    A missing or damaged card gives no facts and no error: no vector depends on it.

    Parameters
    ----------
    path : Path
        The README.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            head = _HEAD.search(file.read(_MAX_CHARACTERS))
        card = yaml.safe_load(head.group(1)) if head else None
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        _log.warning("%s cannot be read (%s), so the license of its model is unknown.", path, error)
        return {}
    if not isinstance(card, Mapping):
        return {}
    facts = {
        "license": _license(card),
        "training_data": ", ".join(_texts(card.get("datasets"))[:_MAX_LISTED]),
        "accuracy": "; ".join(list(_results(card))[:_MAX_LISTED]),
    }
    return {key: value for key, value in facts.items() if value}


def is_non_commercial(license: str) -> bool:
    """Whether the license of that name forbids commercial use.

    Examples
    --------
    >>> [is_non_commercial(name) for name in ("cc-by-nc-4.0", "apple-amlr", "apache-2.0", "cc-by-sa-4.0")]
    [True, True, False, False]
    """
    return _NON_COMMERCIAL.search(license) is not None


def warn_non_commercial(spec: ModelSpec) -> None:
    """Warn once if the license of a model forbids commercial use."""
    if is_non_commercial(spec.license) and spec.fingerprint.model not in _warned:
        _warned.add(spec.fingerprint.model)
        warnings.warn(
            f"NOT FOR COMMERCIAL USE: the license of {spec.id} is {spec.license}. It may apply to results "
            "and vectors of the model; read its terms",
            stacklevel=3,
        )


def _license(card: Mapping[str, Any]) -> str:
    names = _texts(card.get("license"))
    # For "other", the name is in another field.
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
                    suffix = f" on {on[0]}" if on else ""
                    yield f"{name} {metric['value']}{suffix} (published)".strip()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts(value: Any) -> list[str]:
    """Return the texts and numbers in a value, each on one line."""
    return [" ".join(str(item).split()) for item in _list(value) if isinstance(item, (str, int, float))]
