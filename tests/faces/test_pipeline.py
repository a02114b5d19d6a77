import io

import numpy as np
import pytest
from fake_faces import ColorRecognizer, SquareDetector, photograph
from PIL import Image

from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.faces import FaceReader


def test_images_come_back_in_order_with_their_faces(reader, tmp_path):
    for i in range(8):
        photograph(*[("ann", 10 + 70 * j, 30, 40 + j) for j in range(i % 4)], size=(320, 160)).save(
            tmp_path / f"{i}.png"
        )
    (tmp_path / "broken.png").write_bytes(b"no image")
    results = list(reader.read_all([tmp_path, "no/such.jpg"]))
    assert [len(r.faces) for r in results[:8]] == [0, 1, 2, 3] * 2
    assert all(isinstance(r, ImageFailure) for r in results[8:])
    assert len(results) == 10
    sides = [face.box[2] - face.box[0] for face in results[3].faces]
    assert sides == sorted(sides, reverse=True)


def test_boxes_are_in_pixels_of_the_upright_image(reader):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    upright = photograph(("bob", 150, 20, 60))
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    (turned,), (plain,) = (list(reader.read_all([source])) for source in (file.getvalue(), upright))
    assert (turned.width, turned.height) == (240, 160)
    np.testing.assert_allclose(turned.faces[0].box, (150, 20, 210, 80), atol=2)
    np.testing.assert_allclose(turned.faces[0].box, plain.faces[0].box, atol=1e-3)
    assert turned.faces[0].vector @ plain.faces[0].vector > 0.99


def test_what_is_known_is_not_looked_into(reader):
    image = photograph(("ann", 60, 40, 80))
    (first,) = reader.read_all([image])
    (second,) = reader.read_all([image], known=first.id.__eq__)
    assert second.id == first.id
    assert second.faces == []


def test_the_fingerprint_names_all_that_makes_a_vector(reader):
    assert reader.fingerprint == FaceReader(SquareDetector(), ColorRecognizer()).fingerprint
    for change in ("template", "weights"):
        other = ColorRecognizer()
        setattr(other, change, getattr(other, change) + 1)
        assert FaceReader(SquareDetector(), other).fingerprint != reader.fingerprint


def test_no_thread_is_no_reader():
    with pytest.raises(InvalidParameterError, match="n_threads"):
        FaceReader(SquareDetector(), ColorRecognizer(), n_threads=0)


class LeftRecognizer(ColorRecognizer):
    """Sees the left half of a face only."""

    def embed(self, chips):
        halves = [np.tile(chip[:, :16], (1, 2, 1)) for chip in chips]
        return super().embed(halves)


def test_a_face_and_its_mirror_image_have_the_same_vector():
    pixels = np.asarray(photograph(("ann", 60, 40, 80))).copy()
    pixels[40:120, 100:140] = np.asarray(photograph(("bob", 60, 40, 80)))[40:120, 100:140]
    image = Image.fromarray(pixels)
    reader = FaceReader(SquareDetector(), LeftRecognizer(), progress=False)
    (face,), (mirrored,) = (
        reader.faces(each) for each in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    )
    assert face.vector @ mirrored.vector > 0.999
    assert np.linalg.norm(face.vector) == pytest.approx(1, abs=1e-6)
    left = LeftRecognizer().embed([np.asarray(image.crop((60, 40, 140, 120)).resize((32, 32)))])[0]
    right = LeftRecognizer().embed([np.asarray(image.crop((60, 40, 140, 120)).resize((32, 32)))[:, ::-1]])[0]
    assert left @ right < 0.9
    both = (left + right) / np.linalg.norm(left + right)
    assert face.vector @ both > 0.99
