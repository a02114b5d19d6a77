"""How alike faces of different persons are, for banks with too few persons to tell.

Computed by ``tools/face_background.py`` on persons s1 to s20 of the ORL set (AT&T Laboratories Cambridge):
19,000 pairs of gray studio photographs of 20 persons. That is a narrow sample of mankind: few women, one
place, one time. The rate of false matches that it promises is one among such faces. A bank
with enough persons for the rate that is asked for (99 for 1 %) is calibrated on itself instead.
"""

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from nearsight.models import Fingerprint

_FILE = "impostor_scores.npz"


def background_of(fingerprint: Fingerprint) -> NDArray[np.float64] | None:
    """Return similarities of pairs of different persons, or None where none are known for these models.

    Parameters
    ----------
    fingerprint : Fingerprint
        Of the vectors that are to be compared: another model's similarities say nothing about them.
    """
    with resources.files("nearsight.faces").joinpath(_FILE).open("rb") as file, np.load(file) as data:
        if str(data["fingerprint"]) != fingerprint.digest:
            return None
        values: NDArray[np.float64] = data["similarities"].astype(np.float64) / int(data["steps"])
        return values
