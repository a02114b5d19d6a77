"""Learn the vocabulary that `sift-vlad` comes with, from photographs that scikit-image ships.

    python tools/learn_vocabulary.py [FILE]

All are in the public domain or CC0, by the statements in `skimage.data`. Each gives equally many descriptors,
so that no texture takes most of the words.
"""

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from nearsight.models.sift_vlad.model import fit_sift_vlad

PHOTOGRAPHS = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
]

if __name__ == "__main__":
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is needed: pip install 'nearsight[demo]'")
    folder = Path(spec.origin).parent / "data"
    # Half size gives the coarse structures a say that the fine ones outnumber.
    images = [Image.open(folder / name).convert("RGB") for name in PHOTOGRAPHS]
    images += [image.reduce(2) for image in images]
    vocabulary = replace(
        fit_sift_vlad(images).vocabulary,
        learned_from=f"{len(PHOTOGRAPHS)} free photographs from scikit-image, in full and half size",
    )
    default = Path(__file__).parents[1] / "src/nearsight/models/sift_vlad/vocabulary.npz"
    vocabulary.save(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
    print(vocabulary.learned_from, vocabulary.sha256)
