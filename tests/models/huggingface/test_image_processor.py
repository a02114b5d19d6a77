"""Image processors' files as facts; what is not understood is refused."""

import pytest

from nearsight.errors import WeightsError
from nearsight.models.huggingface.image_processor import preprocessing

# As published, for the first models of each family.
CLIP = {
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224,
}  # fmt: skip
VIT = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224}
VIT |= {"image_processor_type": "ViTImageProcessor"}
DINOV2 = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True,
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor", "image_std": [0.229, 0.224, 0.225], "resample": 3,
    "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256},
}  # fmt: skip
DINOV3 = {
    "crop_size": None, "do_center_crop": None, "image_processor_type": "DINOv3ViTImageProcessorFast",
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 2,
    "size": {"height": 224, "width": 224},
}  # fmt: skip
CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}}
SQUARE = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 256, "width": 200}}


@pytest.mark.parametrize(
    ("config", "input_px", "resize_px", "mode", "interpolation"),
    [
        (CLIP, (224, 224), 224, "short-side", "bicubic"),
        (VIT, (224, 224), 224, "squash", "bilinear"),
        (DINOV2, (224, 224), 256, "short-side", "bicubic"),
        (DINOV3, (224, 224), 224, "squash", "bilinear"),
        (SQUARE, (256, 200), 256, "squash", "bicubic"),
        ({"image_processor_type": "DeiTImageProcessor"}, (224, 224), 256, "squash-crop", "bicubic"),
        (CONVNEXT, (224, 224), 256, "short-side", "bicubic"),
        ({**CONVNEXT, "crop_pct": 0.95}, (224, 224), 235, "short-side", "bicubic"),
        ({**CONVNEXT, "size": {"shortest_edge": 384}}, (384, 384), 384, "squash", "bicubic"),
    ],
)
def test_families(config, input_px, resize_px, mode, interpolation) -> None:
    facts = preprocessing(config)
    assert (facts["input_px"], facts["resize_px"], facts["resize_mode"]) == (input_px, resize_px, mode)
    assert facts["interpolation"] == interpolation
    assert facts["crop_rounding"] == "down"


def test_mean_and_std_are_the_models_own() -> None:
    assert preprocessing(DINOV2)["mean"] == (0.485, 0.456, 0.406)
    assert preprocessing(DINOV2)["std"] == (0.229, 0.224, 0.225)
    # Without normalization values stay in 0..1, as MobileCLIP wants them.
    plain = preprocessing({**CLIP, "do_normalize": False})
    assert (plain["mean"], plain["std"]) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    ("change", "scaled"),
    [({"rescale_factor": 1 / 127.5}, 200 / 127.5), ({"do_rescale": False}, 200), ({}, 200 / 255)],
)
def test_other_ranges_are_folded_into_mean_and_std(change: dict[str, object], scaled: float) -> None:
    facts = preprocessing({**DINOV2, **change})
    wanted = (scaled - 0.485) / 0.229
    assert (200 / 255 - facts["mean"][0]) / facts["std"][0] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "LlavaImageProcessor"}, "'LlavaImageProcessor', known are CLIP"),
        ({"image_processor_type": None}, "image_processor_type ''"),
        ({"do_pad": True}, "do_pad"),
        ({"rescale_offset": True}, "rescale_offset"),
        ({"do_resize": False}, "without resizing"),
        ({"resample": 5}, "resample 5"),
        ({"size": {"longest_edge": 224}}, "longest_edge"),
        ({"do_center_crop": False}, "shortest_edge and no crop"),
        ({"crop_size": {"shortest_edge": 3}}, "crop_size"),
        ({"size": {"height": 256, "width": 200}}, "not a square"),
        ({"image_mean": [0.5]}, "image_mean"),
    ],
)
def test_what_is_not_understood_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=rf"{message}.*use onnx:FILE") as caught:
        preprocessing({**DINOV2, **change})
    assert "does not support" in str(caught.value)
