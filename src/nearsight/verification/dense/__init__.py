"""Register images pixel by pixel, to decide whether two are the same photograph.

The check knows nothing of vectors. It compares details rather than large shapes, so that two white shirts
photographed alike do not count as the same.
"""

from nearsight.verification.dense.edit_hashes import HASH_SIGNS, N_HASHES, N_PLAIN_HASHES, edit_hashes
from nearsight.verification.dense.plain_ground import (
    PARTLY_PLAIN_GROUND_SHARE,
    PLAIN_GROUND_SHARE,
    FineThumbnail,
    fine_thumbnail,
    plain_ground_agreements,
    thumbnail_ground_share,
    toned_agreement,
)
from nearsight.verification.dense.registration import (
    CERTAIN_AGREEMENT,
    MATCH_AGREEMENT,
    REVIEW_AGREEMENT,
    Registration,
    register,
    register_part,
)
from nearsight.verification.dense.thumbnails import (
    EDGE_CELLS,
    SIDE_PX,
    black_corner_share,
    edge_strengths,
    gray_thumbnail,
)

__all__ = [
    "CERTAIN_AGREEMENT",
    "EDGE_CELLS",
    "HASH_SIGNS",
    "MATCH_AGREEMENT",
    "N_HASHES",
    "N_PLAIN_HASHES",
    "PARTLY_PLAIN_GROUND_SHARE",
    "PLAIN_GROUND_SHARE",
    "REVIEW_AGREEMENT",
    "SIDE_PX",
    "FineThumbnail",
    "Registration",
    "black_corner_share",
    "edge_strengths",
    "edit_hashes",
    "fine_thumbnail",
    "gray_thumbnail",
    "plain_ground_agreements",
    "register",
    "register_part",
    "thumbnail_ground_share",
    "toned_agreement",
]
