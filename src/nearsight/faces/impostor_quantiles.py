"""The shipped similarities of different persons, which calibrate every bank of the built-in models.

``impostor_quantiles.json`` holds figures only: no vector, no name, no face. Its origin is in the file.
``tools/face_impostor_quantiles.py`` computes such a file from a folder of persons.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles
from nearsight.models import Fingerprint

_FILE = "impostor_quantiles.json"


def impostor_quantiles(fingerprint: Fingerprint) -> ImpostorQuantiles | None:
    """Return the quantiles for these models; None if there are none.

    Parameters
    ----------
    fingerprint : Fingerprint
        That of the vectors to compare: the similarities of other models do not apply to them.
    """
    facts = _read()
    if facts["models"] != models_digest(fingerprint):
        return None
    return ImpostorQuantiles(
        np.array(facts["n_enrolled"]),
        np.array(facts["rates"]),
        np.array(facts["similarities"]),
        np.array(facts["n_pairs"]),
    )


def models_digest(fingerprint: Fingerprint) -> str:
    """Return a digest of everything that makes a vector, except the rules by which files are decoded.

    How a file with transparency is decoded, for example, moves no statistics of photographs.
    """
    return Fingerprint(
        fingerprint.model, fingerprint.weights_sha256, fingerprint.preprocessing, {}, fingerprint.output
    ).digest


@cache
def _read() -> dict[str, Any]:
    text = resources.files("nearsight.faces").joinpath(_FILE).read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts
