"""Factories of modules for the tests of ``torch:``; imported only where torch is."""

from types import SimpleNamespace

import torch

FACTS = {"input_px": (16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"}


class Tiny(torch.nn.Module):
    def __init__(self, seed=0, dim=12):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.convolution = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(8 * 64, dim)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def forward(self, pixels):
        return self.head(self.drop(torch.relu(self.norm(self.convolution(pixels)))).flatten(1))


class Many(Tiny):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, pixels):
        places = self.convolution(pixels)
        vector = super().forward(pixels)
        return {
            "places": places,
            "tokens": places.flatten(2).transpose(1, 2),
            "dict": {"vector": vector, "places": places},
            "object": SimpleNamespace(vector=vector, places=places),
            "tuple": (places, vector),
            "short": vector[:1],
            "flat": vector.sum(1),
            "text": "vector",
        }[self.kind]


def make():
    return Tiny(), FACTS


def other_weights():
    return Tiny(1), FACTS


def alone():
    return Tiny()


def with_attribute():
    module = Tiny()
    module.nearsight = {**FACTS, "license": "CC0-1.0"}
    return module


def as_timm():
    module = Tiny()
    module.pretrained_cfg = {
        "input_size": (3, 16, 16),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "license": "mit",
    }
    return module


def half():
    return Tiny(), {**FACTS, "precision": "float16"}


def coarse():
    return Tiny(), {**FACTS, "precision": "bfloat16"}


def wrong_fact():
    return Tiny(), {**FACTS, "mena": 1}


def wrong_dim():
    return Tiny(), {**FACTS, "dim": 13}


def wrong_size():
    return Tiny(), {**FACTS, "input_px": (20, 16)}


def no_module():
    return "a module"


def failing():
    raise FileNotFoundError("weights.pt")


def giving(kind, layer="output"):
    return Many(kind), {**FACTS, "layer": layer}


def places():
    return giving("places")


def tokens():
    return giving("tokens")


def from_dict():
    return giving("dict", "vector")


def from_object():
    return giving("object", "vector")


def from_tuple():
    return giving("tuple", "1")


def unnamed():
    return giving("dict")


def text():
    return giving("text")


def short():
    return giving("short")


def flat():
    return giving("flat")


changing = iter(range(100))


def unsteady():
    return Tiny(next(changing)), FACTS
