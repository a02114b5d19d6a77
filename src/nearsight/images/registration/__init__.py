"""Whether two pictures are one: laid over each other, their details coincide.

A check that knows nothing of vectors: it looks at pixels only, and at details rather than at large shapes, so
that two white shirts photographed alike do not count as one.
"""

from nearsight.images.registration.looks import N_PLAIN, looks
from nearsight.images.registration.miniature import SIDE_PX, black_corners, edges, miniature
from nearsight.images.registration.register import SAME, SURE, Registration, register

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
