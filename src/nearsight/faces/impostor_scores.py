"""Similarities of faces of different persons, which calibrate banks of few persons.

Computed by ``tools/face_impostor_scores.py`` on persons s1 to s20 of the ORL set (AT&T Laboratories
Cambridge): 19,000 pairs of gray studio photographs of 20 persons, few of them women, from one place and time.
The false match rate that they promise holds for such faces. A bank with enough persons for the rate (99 for
1 %) is calibrated on itself instead.
"""

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from nearsight.models import Fingerprint

_FILE = "impostor_scores.npz"


def impostor_similarities(fingerprint: Fingerprint) -> NDArray[np.float64] | None:
    """Return similarities of pairs of different persons; None if there are none for these models.

    Parameters
    ----------
    fingerprint : Fingerprint
        That of the vectors to compare: the similarities of other models do not apply to them.
    """
    with resources.files("nearsight.faces").joinpath(_FILE).open("rb") as file, np.load(file) as data:
        if str(data["fingerprint"]) != fingerprint.digest:
            return None
        values: NDArray[np.float64] = data["similarities"].astype(np.float64) / int(data["steps"])
        return values
