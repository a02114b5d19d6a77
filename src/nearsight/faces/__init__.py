"""Faces: read them out of pictures, keep them with names in a bank, recognise them again."""

from nearsight.faces.bank import FaceBank
from nearsight.faces.enrollment import Caution, EnrolReport
from nearsight.faces.grouping import FaceGroup
from nearsight.faces.pipeline import Face, FaceReader, Reading
from nearsight.faces.results import Identified, IdentifiedFace, Verified, verify
from nearsight.faces.schema import BankedFace

__all__ = [
    "BankedFace",
    "Caution",
    "EnrolReport",
    "Face",
    "FaceBank",
    "FaceGroup",
    "FaceReader",
    "Identified",
    "IdentifiedFace",
    "Reading",
    "Verified",
    "verify",
]
