"""The images of the demo: photographs and fabrics from installed packages, or the user's own folder."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearsight.collection import Item
from nearsight.errors import MissingExtraError

# Photographs whose documentation gives them as CC0, public domain, without known copyright restrictions, or
# (scikit-learn's two) as CC BY 2.0.
PHOTOGRAPHS = {
    "skimage": (
        "data/astronaut.png",
        "data/brick.png",
        "data/camera.png",
        "data/chelsea.png",
        "data/clock_motion.png",
        "data/coffee.png",
        "data/coins.png",
        "data/grass.png",
        "data/gravel.png",
        "data/hubble_deep_field.jpg",
        "data/moon.png",
        "data/retina.jpg",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
# Number of images of each folder.
FABRICS = {"nominal": 60, "local": 30, "global": 30}
EDITED_FIRST = ("chelsea.png", "astronaut.png", "coffee.png")
_LICENSES = {
    "scikit-image's photographs": "CC0, public domain, or no known copyright restrictions",
    "china.jpg and flower.jpg of scikit-learn": "CC BY 2.0, by danielbuechele and vultilion on Flickr",
    "conformal-clip-data's fabrics": "MIT",
}


@dataclass(frozen=True, slots=True)
class DemoImages:
    """The images of a demo.

    Attributes
    ----------
    paths : list of str
        Inputs of `Collection.add`.
    title : str
        Title of the report.
    metadata : callable
        Returns the metadata of an image by its path.
    licenses : mapping of str to str
        License of each part; empty for the user's own images.
    where : callable
        Returns the filter of an image's example search, or None.
    edited_first : sequence of str
        File names of the images to edit first.
    """

    paths: list[str]
    title: str
    metadata: Callable[[str], Mapping[str, Any]] = lambda _: {}
    licenses: Mapping[str, str] = field(default_factory=dict)
    where: Callable[[Item], str | None] = lambda _: None
    edited_first: Sequence[str] = ()


def folder_images(folder: str) -> DemoImages:
    """Return the images of the user's folder."""
    return DemoImages([folder], f"Images in {Path(folder).resolve().name or folder}")


def package_images() -> DemoImages:
    """Return the images of installed packages.

    Raises
    ------
    MissingExtraError
        A package is not installed; the message holds the install command.
    """
    photographs = [_package_folder(name) / file for name, files in PHOTOGRAPHS.items() for file in files]
    textiles = _package_folder("conformal_clip_data") / "data" / "textile_images" / "simulated"
    fabrics = [path for kind, n in FABRICS.items() for path in sorted((textiles / kind).glob("*.jpg"))[:n]]

    def metadata(path: str) -> Mapping[str, Any]:
        folder = Path(path).parent
        if folder.parent == textiles:
            return {"kind": "fabric", "defect": "none" if folder.name == "nominal" else folder.name}
        return {"kind": "photograph"}

    return DemoImages(
        [str(path) for path in [*photographs, *fabrics] if path.is_file()],
        "Photographs and simulated fabrics",
        metadata,
        _LICENSES,
        lambda item: f"kind = '{item.metadata['kind']}'",
        EDITED_FIRST,
    )


def _package_folder(name: str) -> Path:
    # Located without importing: scikit-image alone takes longer to import than the whole demo.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"the demo's own images need the package {name}, which is not installed:"
            " pip install 'nearsight[demo]', or use your own images: nearsight demo FOLDER"
        )
    return Path(spec.submodule_search_locations[0])
