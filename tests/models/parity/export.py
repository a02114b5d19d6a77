"""Tiny, randomly initialised models of each family, written in the Hugging Face ONNX layout.

No weights are fetched: what is to be proven is that pictures are prepared, run and pooled as transformers
does it, and that does not depend on what the weights have learnt.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
            # Fresh weights are so small that all pictures look the same to the network.
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, parameter[0].numel() ** -0.5)
        return model.eval()

    def vector(self, model: torch.nn.Module, picture: Image.Image) -> np.ndarray:
        """Embed one upright RGB picture with transformers alone."""
        with torch.no_grad():
            output = model(**self.processor(picture, return_tensors="pt"))
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
                _Outputs(model, self.outputs),
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


FAMILIES: dict[str, Callable[[], Family]] = {
    "clip": _clip,
    "siglip": _siglip,
    "vit": _vit,
    "deit": _deit,
    "dinov2": _dinov2,
    "convnext": _convnext,
}
