"""Faces: read them out of pictures, keep them with names in a bank, recognise them again."""

from nearsight.faces.reader import Face, FaceReader, Reading

__all__ = ["Face", "FaceReader", "Reading"]
