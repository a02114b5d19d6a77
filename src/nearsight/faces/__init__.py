"""Faces: read them out of images, keep them with names in a bank, recognize them again."""

from nearsight.faces.bank import FaceBank
from nearsight.faces.enrollment import Caution, EnrollReport
from nearsight.faces.grouping import FaceGroup
from nearsight.faces.pipeline import Face, FaceReader, ImageFaces
from nearsight.faces.results import FaceVerification, Identified, IdentifiedFace, verify
from nearsight.faces.schema import BankedFace

__all__ = [
    "BankedFace",
    "Caution",
    "EnrollReport",
    "Face",
    "FaceBank",
    "FaceGroup",
    "FaceReader",
    "FaceVerification",
    "Identified",
    "IdentifiedFace",
    "ImageFaces",
    "verify",
]
