"""The fingerprint of a model: which vectors may be compared."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any

from nearsight.errors import FingerprintMismatchError
from nearsight.images.limits import COMPARABLE_SINCE, DECODER_RULES


@dataclass(frozen=True)
class Fingerprint:
    """Facts that determine a vector: two vectors are comparable exactly if their fingerprints are equal.

    Versions of the decoder that differ only in images of which the earlier one showed nothing count as equal.

    Attributes
    ----------
    model : str
        The model's id, or its `identity` if the id is a path.
    weights_sha256 : str
        SHA-256 of the weights as published.
    preprocessing, decoder : mapping
        All rules from a file's bytes to the network's input.
    output : mapping
        Layer, dimension, normalization and precision of the vector.
    """

    model: str
    weights_sha256: str
    preprocessing: Mapping[str, Any]
    decoder: Mapping[str, Any]
    output: Mapping[str, Any]

    def __post_init__(self) -> None:
        # Convert through JSON, so that a fingerprint read from a manifest equals the one written.
        for name in ("preprocessing", "decoder", "output"):
            object.__setattr__(
                self, name, MappingProxyType(json.loads(json.dumps(dict(getattr(self, name)))))
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a manifest."""
        return {f.name: plain_data(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Fingerprint":
        """Read the result of `to_dict`."""
        return cls(**{f.name: data[f.name] for f in fields(cls)})

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON."""
        facts = self.to_dict()
        if COMPARABLE_SINCE <= facts["decoder"].get("version", 0) <= DECODER_RULES["version"]:
            facts["decoder"]["version"] = COMPARABLE_SINCE
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return Fingerprint, tuple(plain_data(getattr(self, f.name)) for f in fields(self))

    def differences(self, other: "Fingerprint") -> list[str]:
        """Return each fact that differs, as ``"model: a, there b"``."""
        own, others = _flat(self.to_dict()), _flat(other.to_dict())
        return [
            f"{key}: {own.get(key, 'unset')}, there {others.get(key, 'unset')}"
            for key in sorted(own.keys() | others.keys())
            if own.get(key) != others.get(key)
        ]

    def require_same(self, other: "Fingerprint", fitted: str, remedy: str) -> None:
        """Raise if something fitted on vectors of this fingerprint is used with vectors of another one.

        Parameters
        ----------
        other : Fingerprint
            Fingerprint of the vectors in use.
        fitted, remedy : str
            What was fitted, such as "the map", and what the user can do.

        Raises
        ------
        FingerprintMismatchError
            The two differ.
        """
        if self != other:
            differences = "; ".join(self.differences(other))
            raise FingerprintMismatchError(
                f"{fitted} was learned on vectors of {self.model} (fingerprint {self.digest}), and these are"
                f" of {other.model} ({other.digest}), which cannot be compared. They differ in:"
                f" {differences}. {remedy}"
            )


def plain_data(value: Any) -> Any:
    """Return mappings as dicts and sequences as lists, as JSON would read them back."""
    if isinstance(value, Mapping):
        return {k: plain_data(v) for k, v in value.items()}
    return [plain_data(v) for v in value] if isinstance(value, (list, tuple)) else value


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat
