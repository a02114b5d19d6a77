"""Tiny, randomly initialized models of each family, written in the Hugging Face ONNX layout.

No weights are fetched: what is to be proven is that images are prepared, run and pooled as transformers
does it, and that does not depend on what the weights have learned.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
import transformers as hf
from PIL import Image

# The Pillow variants are the reference; the others need torchvision.
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}


@dataclass(frozen=True)
class Family:
    """One architecture, and the rule by which transformers takes a vector from it.

    `pick` is written from the library's documentation of each family, not from nearsight's tables.
    """

    config: Any
    model: Any
    processor: Any
    outputs: tuple[str, ...]
    pick: Callable[[Any], torch.Tensor]
    file: str = "onnx/model.onnx"

    def build(self) -> torch.nn.Module:
        torch.manual_seed(1)
        model = self.model(self.config)
        with torch.no_grad():
            # Fresh weights are so small that all images look the same to the network.
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, parameter[0].numel() ** -0.5)
        return model.eval()

    def vector(self, model: torch.nn.Module, image: Image.Image) -> np.ndarray:
        """Embed one upright RGB image with transformers alone."""
        with torch.no_grad():
            output = model(**self.processor(image, return_tensors="pt"))
            return torch.nn.functional.normalize(self.pick(output))[0].flatten().numpy()

    def write(self, folder: Path, model: torch.nn.Module) -> None:
        """Export in the layout, as optimum and transformers.js name things."""
        (folder / "onnx").mkdir(parents=True)
        self.config.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        pixels = self.processor(Image.new("RGB", (90, 80)), return_tensors="pt")["pixel_values"]
        with warnings.catch_warnings():
            # The exporter without onnxscript is said to be old; it is the one that needs least.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                # Exporting brings back the mode that it found, in every part.
                _Outputs(model, self.outputs).eval(),
                (pixels,),
                folder / self.file,
                input_names=["pixel_values"],
                output_names=list(self.outputs),
                dynamic_axes={name: {0: "batch_size"} for name in ("pixel_values", *self.outputs)},
                opset_version=17,
                dynamo=False,
            )


class _Outputs(torch.nn.Module):
    """Gives some fields of a model's output, in order."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(pixel_values=pixel_values)
        return tuple(getattr(output, name) for name in self.names)


def _clip() -> Family:
    config = hf.CLIPVisionConfig(**SMALL, image_size=96, patch_size=16, projection_dim=32)
    return Family(
        config,
        hf.CLIPVisionModelWithProjection,
        CLIPImageProcessorPil(
            size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}, do_convert_rgb=True
        ),
        ("image_embeds", "last_hidden_state"),
        lambda output: output.image_embeds,
        "onnx/vision_model.onnx",
    )


def _siglip() -> Family:
    return Family(
        hf.SiglipVisionConfig(**SMALL, image_size=96, patch_size=16),
        hf.SiglipVisionModel,
        SiglipImageProcessorPil(size={"height": 96, "width": 96}),
        ("last_hidden_state", "pooler_output"),
        lambda output: output.pooler_output,
        "onnx/vision_model.onnx",
    )


def _vit() -> Family:
    return Family(
        hf.ViTConfig(**SMALL, image_size=96, patch_size=16),
        hf.ViTModel,
        ViTImageProcessorPil(size={"height": 96, "width": 96}),
        ("last_hidden_state", "pooler_output"),
        lambda output: output.last_hidden_state[:, 0],
    )


def _deit() -> Family:
    return Family(
        hf.DeiTConfig(**SMALL, image_size=96, patch_size=16),
        hf.DeiTModel,
        DeiTImageProcessorPil(size={"height": 110, "width": 110}, crop_size={"height": 96, "width": 96}),
        ("last_hidden_state",),
        lambda output: output.last_hidden_state[:, 0],
    )


def _dinov2() -> Family:
    # 109 to 98 leaves an odd margin: it tells transformers' crop from torchvision's.
    processor = BitImageProcessorPil(
        size={"shortest_edge": 109},
        crop_size={"height": 98, "width": 98},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return Family(
        hf.Dinov2Config(**{**SMALL, "mlp_ratio": 2}, image_size=98, patch_size=14),
        hf.Dinov2Model,
        processor,
        ("last_hidden_state",),
        lambda output: output.last_hidden_state[:, 0],
    )


def _convnext() -> Family:
    return Family(
        hf.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 24, 32, 40], image_size=96),
        hf.ConvNextModel,
        ConvNextImageProcessorPil(size={"shortest_edge": 96}, crop_pct=0.875),
        ("last_hidden_state", "pooler_output"),
        lambda output: output.pooler_output,
    )


class _DinoV3Processor:
    """What transformers' DINOv3 processor does, in the functions it does it with.

    Its only variant needs torchvision, which has no build for this torch. Unlike the others, it scales
    pixels to 0..1 first, and resizes numbers that are no whole ones; torchvision hands that to `interpolate`.
    """

    config: ClassVar = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "do_resize": True,
        "size": {"height": 96, "width": 96},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_center_crop": None,
    }

    def __call__(self, image: Image.Image, return_tensors: str) -> dict[str, torch.Tensor]:
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
        pixels = torch.nn.functional.interpolate(
            pixels, (96, 96), mode="bilinear", align_corners=False, antialias=True
        )
        mean, std = (torch.tensor(self.config[f"image_{key}"]).view(3, 1, 1) for key in ("mean", "std"))
        return {"pixel_values": (pixels - mean) / std}

    def save_pretrained(self, folder: Path) -> None:
        (folder / "preprocessor_config.json").write_text(json.dumps(self.config))


def _dinov3() -> Family:
    # Register tokens stand between the class token and those of places.
    config = hf.DINOv3ViTConfig(**SMALL, image_size=96, patch_size=16, num_register_tokens=4)
    return Family(
        config,
        hf.DINOv3ViTModel,
        _DinoV3Processor(),
        ("last_hidden_state", "pooler_output"),
        lambda output: output.last_hidden_state[:, 0],
    )


class _MobileTower(torch.nn.Module):
    """Stands for MobileCLIP's image tower, a class that transformers has not.

    Of the same parts: a stem of strided convolutions, depthwise blocks with batch normalization and
    residuals, means, and a projection to `image_embeds`. The means are of nine regions rather than of all:
    untrained, a network hardly tells images apart by one.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        nn = torch.nn

        def step(before: int, after: int, stride: int, groups: int = 1) -> torch.nn.Module:
            convolution = nn.Conv2d(before, after, 3, stride, 1, groups=groups, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.GELU())

        self.stem = nn.Sequential(step(3, 16, 2), step(16, 16, 2, groups=16), nn.Conv2d(16, 48, 1))
        self.blocks = nn.ModuleList(
            nn.Sequential(step(48, 48, 1, groups=48), nn.Conv2d(48, 96, 1), nn.GELU(), nn.Conv2d(96, 48, 1))
            for _ in range(2)
        )
        self.projection = nn.Linear(48 * 9, config.projection_dim, bias=False)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        values = self.stem(pixel_values)
        for block in self.blocks:
            values = values + block(values)
        return SimpleNamespace(
            image_embeds=self.projection(torch.nn.functional.avg_pool2d(values, 8).flatten(1))
        )


def _mobileclip() -> Family:
    # As the published folders have it: pixels in 0..1 and no more, and a bilinear filter.
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 96},
        crop_size={"height": 96, "width": 96},
        resample=2,
        do_normalize=False,
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
    )
    return Family(
        hf.CLIPVisionConfig(projection_dim=32, model_type="clip"),
        _MobileTower,
        processor,
        ("image_embeds",),
        lambda output: output.image_embeds,
        "onnx/vision_model.onnx",
    )


FAMILIES: dict[str, Callable[[], Family]] = {
    "clip": _clip,
    "siglip": _siglip,
    "vit": _vit,
    "deit": _deit,
    "dinov2": _dinov2,
    "dinov3": _dinov3,
    "mobileclip": _mobileclip,
    "convnext": _convnext,
}
