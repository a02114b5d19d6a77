import io

import numpy as np
import pytest
from fake_faces import COLORS, photograph
from PIL import Image

from nearsight.faces import FaceBank
from nearsight.faces.crops import face_crops


def mean_color(jpeg):
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.size == (148, 148)
        inner = image.crop((50, 50, 98, 98))
        return np.asarray(inner, float).mean((0, 1))


def test_each_face_is_cut_out_and_what_is_gone_is_left_out(tmp_path, reader):
    bank = FaceBank.create(tmp_path / "bank", reader=reader)
    photograph(("ann", 20, 20, 60), ("bob", 150, 70, 60), seed=1).save(tmp_path / "a.png")
    for name in ("gone.png", "changed.png"):
        photograph(("cy", 60, 40, 60), seed=len(name)).save(tmp_path / name)
    bank.scan([tmp_path / name for name in ("a.png", "gone.png", "changed.png")])
    (tmp_path / "gone.png").unlink()
    photograph(("dee", 60, 40, 60), seed=3).save(tmp_path / "changed.png")
    faces = bank.faces()
    crops = face_crops(faces, n_threads=2)
    assert set(crops) == {face.id for face in faces if face.path.endswith("a.png")}
    for face in faces:
        if face.id in crops:
            person = "ann" if face.box[0] < 100 else "bob"
            np.testing.assert_allclose(mean_color(crops[face.id]), COLORS[person], atol=25)


@pytest.mark.parametrize("size", [(30, 200), (200, 30)])
def test_a_face_larger_than_its_image_is_cut_to_it(tmp_path, reader, size):
    bank = FaceBank.create(tmp_path / "bank", reader=reader)
    photograph(("ann", 2, 2, 26), size=size).save(tmp_path / "a.png")
    bank.scan([tmp_path / "a.png"])
    assert len(face_crops(bank.faces())) == 1
