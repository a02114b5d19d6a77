"""Detectors and recognizers in the layouts that others publish, as tiny graphs of constants."""

import warnings

import numpy as np
import pytest

from nearsight.errors import UnknownModelError, WeightsError
from nearsight.faces.models import DEFAULT_DETECTOR, load_detector, load_recognizer
from nearsight.faces.models.centerface import decode
from nearsight.faces.models.grid_detectors import decode_scrfd, decode_yunet
from nearsight.models.onnx_graph import make_node, serialize

SIDE = 64
FACE = np.array([[20.0, 24], [36, 24], [28, 32], [22, 40], [34, 40]], np.float32)
BOX = np.array([16.0, 16, 40, 44], np.float32)


def constants(path, outputs, *, side=SIDE):
    """A graph that gives the same for every image; the image's sum counts nothing, but is read."""
    nodes, weights, shapes = [], {"none": np.zeros((), np.float32)}, {}
    nodes.append(make_node("ReduceSum", ["pixels"], "sum", keepdims=0))
    nodes.append(make_node("Mul", ["sum", "none"], "nothing"))
    for name, value in outputs.items():
        weights[f"{name}.value"] = value.astype(np.float32)
        nodes.append(make_node("Add", [f"{name}.value", "nothing"], name))
        shapes[name] = list(value.shape)
    path.write_bytes(serialize("tiny", nodes, weights, inputs={"pixels": [1, 3, side, side]}, outputs=shapes))
    return path


def scrfd_outputs(*, batched):
    """The face above, told by one anchor of the step of 8 pixels: two anchors a place."""
    outputs = {}
    kinds = {"score": 1, "bbox": 4, "kps": 10}
    for kind, width in kinds.items():
        for step in (8, 16, 32):
            values = np.zeros((2 * (SIDE // step) ** 2, width), np.float32)
            if step == 8:
                row = 2 * (4 * 8 + 3) + 1
                place = np.array([24.0, 32.0], np.float32)
                told = {
                    "score": [0.9],
                    "bbox": np.concatenate([place - BOX[:2], BOX[2:] - place]) / 8,
                    "kps": ((FACE - place) / 8).ravel(),
                }
                values[row] = told[kind]
            outputs[f"{kind}_{step}"] = values[None] if batched else values
    return outputs


def yunet_outputs():
    outputs = {}
    for step in (8, 16, 32):
        n = (SIDE // step) ** 2
        for kind, width in {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}.items():
            values = np.zeros((1, n, width), np.float32)
            if step == 16:
                row, place = 1 * 4 + 2, np.array([2.0, 1.0], np.float32)
                center, size = (BOX[:2] + BOX[2:]) / 2, BOX[2:] - BOX[:2]
                told = {
                    "cls": [0.81],
                    "obj": [1.0],
                    "bbox": np.concatenate([center / 16 - place, np.log(size / 16)]),
                    "kps": (FACE / 16 - place).ravel(),
                }
                values[0, row] = told[kind]
            outputs[f"{kind}_{step}"] = values
    return outputs


def centerface_outputs():
    heat, size, offset, marks = (np.zeros((1, n, SIDE // 4, SIDE // 4), np.float32) for n in (1, 2, 2, 10))
    row, column = 7, 6
    heat[0, 0, row, column] = 0.9
    sides = BOX[2:] - BOX[:2]
    size[0, :, row, column] = np.log(sides[::-1] / 4)
    center = (BOX[:2] + BOX[2:]) / 2
    offset[0, :, row, column] = center[::-1] / 4 - 0.5 - [row, column]
    marks[0, :, row, column] = ((FACE - BOX[:2]) / sides)[:, ::-1].ravel()
    return {"537": heat, "538": size, "539": offset, "540": marks}


def check_is_the_face(found, score=0.9):
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], BOX, atol=1e-4)
    np.testing.assert_allclose(found.landmarks[0], FACE, atol=1e-4)
    assert found.scores[0] == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.filterwarnings("ignore:NOT FOR COMMERCIAL USE")
def test_scrfd(tmp_path, batched):
    constants(tmp_path / "det.onnx", scrfd_outputs(batched=batched))
    detector = load_detector(f"dir:{tmp_path}")
    assert (detector.spec.layout, detector.input_px) == ("scrfd", (SIDE, SIDE))
    check_is_the_face(detector.find(np.zeros((SIDE, SIDE, 3), np.uint8)))


@pytest.mark.filterwarnings("ignore:NOT FOR COMMERCIAL USE")
def test_yunet(tmp_path):
    path = constants(tmp_path / "yunet.onnx", yunet_outputs())
    detector = load_detector(f"dir:{path}")
    assert detector.spec.layout == "yunet"
    check_is_the_face(detector.find(np.zeros((SIDE, SIDE, 3), np.uint8)))


def test_centerface_maps():
    check_is_the_face(decode(*(value[0] for value in _maps(centerface_outputs()))))


def _maps(outputs):
    values = list(outputs.values())
    return [values[0][:, 0], *values[1:]]


def test_outputs_of_something_else_are_refused():
    size = (SIDE, SIDE)
    with pytest.raises(WeightsError, match="SCRFD"):
        decode_scrfd({"a": np.zeros((128, 1))}, size)
    with pytest.raises(WeightsError, match="YuNet"):
        decode_yunet({"cls_8": np.zeros((1, 64, 1))}, size)
    wrong = {name: values[:5] for name, values in scrfd_outputs(batched=False).items()}
    with pytest.raises(WeightsError, match="grid"):
        decode_scrfd(wrong, size)


def recognizer_file(path, *, normalizes, dim=128, side=112):
    """Gives the means of the halves of each channel, and zeros: enough to see what reaches the network."""
    x, nodes = "data", []
    weights = {"zero": np.zeros(1, np.float32), "one": np.ones(1, np.float32)}
    if normalizes:
        nodes += [make_node("Sub", [x, "zero"], "less"), make_node("Mul", ["less", "one"], "scaled")]
        x = "scaled"
    nodes.append(make_node("GlobalAveragePool", [x], "mean"))
    nodes.append(make_node("Flatten", ["mean"], "flat", axis=1))
    weights["pads"] = np.array([0, 0, 0, dim - 3], np.int64)
    nodes.append(make_node("Pad", ["flat", "pads"], "fc1"))
    path.write_bytes(
        serialize("tiny", nodes, weights, inputs={"data": [1, 3, side, side]}, outputs={"fc1": [1, dim]})
    )
    return path


@pytest.mark.parametrize(("normalizes", "wanted"), [(False, [0.5686, -0.2157, -1.0]), (True, [200, 100, 0])])
@pytest.mark.filterwarnings("ignore:NOT FOR COMMERCIAL USE")
def test_arcface_is_given_normalized_values_and_sface_plain_ones(tmp_path, normalizes, wanted):
    recognizer_file(tmp_path / "w600k_r50.onnx", normalizes=normalizes)
    recognizer = load_recognizer(f"dir:{tmp_path}")
    assert recognizer.spec.dim == 128
    assert recognizer.template.shape == (5, 2)
    made = np.broadcast_to(np.array([200, 100, 0], np.uint8), (112, 112, 3))
    np.testing.assert_allclose(recognizer._raw(made)[:3], wanted, atol=1e-3)
    vector = recognizer.embed([made])[0]
    assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:NOT FOR COMMERCIAL USE")
def test_a_folder_of_many_files_is_searched_for_the_right_one(tmp_path):
    """As InsightFace's packs are: an age model and a landmark model lie beside the two that are wanted."""
    constants(tmp_path / "det_10g.onnx", scrfd_outputs(batched=False))
    recognizer_file(tmp_path / "genderage.onnx", normalizes=False, dim=3, side=96)
    recognizer_file(tmp_path / "w600k_r50.onnx", normalizes=False, dim=512)
    (tmp_path / "damaged.onnx").write_bytes(b"nothing")
    assert load_detector(f"dir:{tmp_path}").spec.source.endswith("det_10g.onnx")
    assert load_recognizer(f"dir:{tmp_path}").spec.dim == 512


def test_a_license_that_forbids_commercial_use_is_told_loudly(tmp_path):
    constants(tmp_path / "det.onnx", scrfd_outputs(batched=False))
    with pytest.warns(UserWarning, match="NOT FOR COMMERCIAL USE.*InsightFace.*non-commercial"):
        load_detector(f"dir:{tmp_path}")
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.warns(UserWarning, match="cc-by-nc-4"):
        detector = load_detector(f"dir:{tmp_path}")
    assert detector.spec.license == "cc-by-nc-4.0"
    # "other" hides what the name beside it says.
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: apple-amlr\n---\n")
    with pytest.warns(UserWarning, match="NOT FOR COMMERCIAL USE.*apple-amlr"):
        load_detector(f"dir:{tmp_path}")
    (tmp_path / "README.md").write_text("---\nlicense: other\n---\n")
    with pytest.warns(UserWarning, match="NOT FOR COMMERCIAL USE.*is other"):
        load_detector(f"dir:{tmp_path}")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("README.md", "---\nlicense: mit\n---"),
        ("LICENSE", "\nMIT License\n"),
        ("config.json", '{"license": "MIT"}'),
    ],
)
def test_a_free_license_is_told_and_warns_nobody(tmp_path, file, text):
    constants(tmp_path / "yunet.onnx", yunet_outputs())
    (tmp_path / file).write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "mit" in load_detector(f"dir:{tmp_path}").spec.license.lower()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mtcnn", "the detector centerface"),
        ("dir:/no/such/place", "no ONNX file"),
        ("hub:nonsense", "hub:ORG/REPO"),
        ("dir:", "dir:PATH"),
    ],
)
def test_a_name_that_leads_nowhere_is_told(name, message):
    for load in (load_detector, load_recognizer):
        with pytest.raises(UnknownModelError, match=message):
            load(name)


def test_a_folder_without_a_face_model_is_told(tmp_path):
    recognizer_file(tmp_path / "genderage.onnx", normalizes=False, dim=3, side=96)
    for load in (load_detector, load_recognizer):
        with pytest.raises(UnknownModelError, match="none of its ONNX files"):
            load(f"dir:{tmp_path}")
    assert DEFAULT_DETECTOR == "centerface"
