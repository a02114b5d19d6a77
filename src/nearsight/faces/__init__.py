"""Detect faces in images, enroll them with names in a bank, and identify them."""

from nearsight.faces.bank import FaceBank
from nearsight.faces.enrollment import Caution, EnrollReport
from nearsight.faces.groups import FaceGroup
from nearsight.faces.pipeline import Face, FaceReader, ImageFaces
from nearsight.faces.results import FaceVerification, IdentifiedFace, IdentifiedImage, verify
from nearsight.faces.schema import BankedFace
from nearsight.faces.upgrade import UpgradeReport

__all__ = [
    "BankedFace",
    "Caution",
    "EnrollReport",
    "Face",
    "FaceBank",
    "FaceGroup",
    "FaceReader",
    "FaceVerification",
    "IdentifiedFace",
    "IdentifiedImage",
    "ImageFaces",
    "UpgradeReport",
    "verify",
]
