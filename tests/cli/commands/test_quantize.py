"""`models quantize`, and the family of `models` around it."""

import pytest
from models.convolutions import network
from PIL import Image

from nearsight.models.synthetic_images import synthetic_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(synthetic_images(34, seed=5)):
        image.resize((64, 48)).save(folder / f"{i:02}.png")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*measured once on this machine")
def test_a_quantized_model_can_be_used_by_its_name(nearsight, tmp_path, photos):
    name = network(tmp_path / "net.onnx")
    made = nearsight.json("models", "quantize", name, "--calibration", photos)
    assert made["model"].startswith(f"{name}#int8=")
    assert (made["calibrated_on"], made["held_out"]) == (17, 17)
    assert 0.99 <= made["smallest_cosine"] <= made["mean_cosine"] <= 1.000001
    assert made["trials"][-1]["speedup"] == made["speedup"]
    found = nearsight.json("embed", photos, "--out", tmp_path / "x.npz", "--model", made["model"])
    assert (found["embedded"], found["model"]) == (34, made["model"])


@pytest.mark.slow
def test_it_is_told_for_people(nearsight, tmp_path, photos):
    said = nearsight("models", "quantize", network(tmp_path / "net.onnx"), "--calibration", photos).stdout
    assert "smallest cosine" in said
    assert "Its name: onnx:" in said


def test_bad_input(nearsight, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    nearsight("models", "quantize", "efficientnet-lite9", "--calibration", tmp_path, code=2)
    nearsight("models", "quantize", "efficientnet-lite0", "--calibration", tmp_path, code=2)
    nearsight("models", "quantize", "efficientnet-lite0", "--calibration", tmp_path / "none", code=2)
    nearsight("models", "quantize", "efficientnet-lite0", code=2)


def test_the_word_alone_is_a_command_still(nearsight):
    assert "efficientnet-lite0" in nearsight("models").stdout
    assert nearsight.json("models")["models"]
    assert nearsight.json("models", "efficientnet-lite0")["model"]["dim"] == 1280
    assert "[NAME]" in nearsight("models", "--help").stdout
    nearsight("models", "efficientnet-lite0", "quantize", code=2)
