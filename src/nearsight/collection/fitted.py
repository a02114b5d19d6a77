"""What a job has learned is good for vectors of one fingerprint only."""

from nearsight.errors import FingerprintMismatchError
from nearsight.models import Fingerprint


def require(stamped: Fingerprint, own: Fingerprint, what: str, remedy: str) -> None:
    """Refuse what was learned on other vectors.

    Parameters
    ----------
    stamped : Fingerprint
        Of the vectors that it was learned on.
    own : Fingerprint
        Of those at hand.
    what, remedy : str
        What was learned, such as "the map", and how to get one of these vectors.

    Raises
    ------
    FingerprintMismatchError
        The two differ.
    """
    if stamped != own:
        differences = "; ".join(stamped.differences(own))
        raise FingerprintMismatchError(
            f"{what} was learned on vectors of {stamped.model} (fingerprint {stamped.digest}), and these are"
            f" of {own.model} ({own.digest}), which cannot be compared. They differ in: {differences}."
            f" {remedy}"
        )
