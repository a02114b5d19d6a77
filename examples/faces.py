"""Enroll a person, and identify her in other images; needs the face models (see docs/faces.md)."""

import tempfile
from pathlib import Path

import skimage
from PIL import Image

from nearsight.faces import FaceBank
from nearsight.faces.models import INSTALL, is_available

if not is_available():
    raise SystemExit(print(f"The face models are not installed. Run: {INSTALL}"))

# Eileen Collins, a photograph by NASA that scikit-image ships.
portrait = Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png")
small, mirrored = portrait.resize((200, 200)), portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

with tempfile.TemporaryDirectory() as folder:
    bank = FaceBank.create(Path(folder) / "bank", progress=False)
    report = bank.enroll([("portrait", portrait)], name="Eileen Collins")
    print("enrolled:", report.enrolled)

    for result in bank.identify([("small", small), ("mirrored", mirrored), ("gray", portrait.convert("L"))]):
        for face in result.faces:
            print(f"{result.image.source.path}: {face.person or 'unknown'} ({face.similarity:.3f})")

    verification = bank.verify(small, mirrored)
    threshold = verification.threshold.value
    print(f"the same person: {verification.same}, {verification.similarity:.3f} against {threshold:.3f}")

    print("removed:", bank.remove(["Eileen Collins"]))
