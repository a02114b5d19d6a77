"""Whether two images are one: laid over each other, their details coincide.

A check that knows nothing of vectors: it looks at pixels only, and at details rather than at large shapes, so
that two white shirts photographed alike do not count as one.
"""

from nearsight.verification.dense.edit_hashes import N_PLAIN, looks
from nearsight.verification.dense.registration import SAME, SURE, Registration, register
from nearsight.verification.dense.thumbnails import SIDE_PX, black_corners, edges, miniature

__all__ = [
    "N_PLAIN",
    "SAME",
    "SIDE_PX",
    "SURE",
    "Registration",
    "black_corners",
    "edges",
    "looks",
    "miniature",
    "register",
]
