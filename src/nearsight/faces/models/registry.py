"""Load face detectors and recognizers by name: the built-in ones, ``dir:PATH``, ``hub:ORG/REPO``.

The layout of a file is recognized by its inputs and outputs: CenterFace, SCRFD and YuNet are detectors;
ArcFace and SFace are recognizers.
"""

import contextlib
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nearsight.errors import NearsightError, UnknownModelError
from nearsight.faces.models import weights
from nearsight.faces.models.base import DetectorSpec, FaceDetector, FaceRecognizer
from nearsight.faces.models.centerface import CenterFace
from nearsight.faces.models.grid_detectors import GridDetector
from nearsight.faces.models.onnx_recognizer import OnnxRecognizer
from nearsight.models.cache import user_cache_dir
from nearsight.models.graph_structure import operations
from nearsight.models.huggingface.hub import fetch_folder
from nearsight.models.huggingface.model_card import CARD, is_non_commercial, read_card
from nearsight.models.onnx_file import facts_from_file
from nearsight.models.onnx_graph import read_graph_facts
from nearsight.models.runtimes.onnx import OnnxNetwork
from nearsight.models.spec import ModelSpec

DEFAULT_DETECTOR = weights.CENTERFACE_SPEC.id
DEFAULT_RECOGNIZER = weights.DLIB_SPEC.id

_FACE_PX = 112
# Outputs of fewer numbers are an age, a gender or a pose.
_MIN_DIM = 64
_UNKNOWN = "unknown"
_HUB_FILES = ("*.onnx", CARD, "LICENSE*", "LICENCE*", "config.json")


def load_detector(name: str = DEFAULT_DETECTOR) -> FaceDetector:
    """Load a face detector.

    Parameters
    ----------
    name : str
        ``centerface``, or ``dir:PATH`` or ``hub:ORG/REPO[@REVISION]`` with an ONNX file of CenterFace, SCRFD
        or YuNet in it.

    Raises
    ------
    UnknownModelError
        There is no such model, file or folder, or no detector in it.
    MissingExtraError
        A package is missing; the message holds the command.
    WeightsError
        A file is damaged or not the published one.

    Warns
    -----
    UserWarning
        The license of the weights allows no commercial use, or is unknown.
    """
    if name == DEFAULT_DETECTOR:
        return weights.centerface()
    for path in _files(name):
        layout = _detector_layout(path)
        if layout is None:
            continue
        facts = facts_from_file(name, path, read_graph_facts(path))
        spec = DetectorSpec(
            name,
            layout,
            facts["weights_sha256"],
            _license_of(name, path, layout),
            facts["source"],
            facts["size_bytes"],
        )
        if layout == "centerface":
            return CenterFace(spec, path.read_bytes())
        return GridDetector(spec, OnnxNetwork(name, path))
    raise UnknownModelError(
        f"{name} holds no face detector: none of its ONNX files has the outputs of CenterFace, SCRFD with "
        "landmarks, or YuNet"
    )


def load_recognizer(name: str = DEFAULT_RECOGNIZER, *, cache_dir: Path | None = None) -> FaceRecognizer:
    """Load a face recognizer.

    Parameters
    ----------
    name : str
        ``dlib-resnet29``, or ``dir:PATH`` or ``hub:ORG/REPO[@REVISION]`` with an ONNX file of ArcFace or
        SFace in it.
    cache_dir : Path, optional
        Where the converted built-in model is kept.

    Raises
    ------
    UnknownModelError, MissingExtraError, WeightsError
        As for `load_detector`.

    Warns
    -----
    UserWarning
        The license of the weights allows no commercial use, or is unknown.
    """
    if name == DEFAULT_RECOGNIZER:
        return weights.dlib_resnet29(cache_dir or user_cache_dir())
    for path in _files(name):
        spec = _recognizer_spec(name, path)
        if spec is not None:
            return OnnxRecognizer(spec, path.read_bytes())
    raise UnknownModelError(
        f"{name} holds no face recognizer: none of its ONNX files takes a face of {_FACE_PX}×{_FACE_PX} "
        f"pixels and gives one vector of {_MIN_DIM} numbers or more, as ArcFace and SFace do"
    )


def is_restricted(license: str) -> bool:
    """Return whether a license forbids commercial use, or may.

    Examples
    --------
    >>> [is_restricted(license) for license in ("MIT", "cc-by-nc-4.0", "non-commercial research", "other")]
    [False, True, True, True]
    """
    return license.startswith((_UNKNOWN, "other")) or is_non_commercial(license)


def _files(name: str) -> Sequence[Path]:
    scheme, _, place = name.partition(":")
    if scheme == "hub" and place:
        path = fetch_folder(place, _HUB_FILES)
    elif scheme == "dir" and place:
        path = Path(place).expanduser().absolute()
    else:
        raise UnknownModelError(
            f"There is no face model {name!r}. Known: the detector {DEFAULT_DETECTOR} and the recognizer "
            f"{DEFAULT_RECOGNIZER}; your own are dir:PATH or hub:ORG/REPO"
        )
    if path.is_file():
        return [path]
    files = sorted(path.rglob("*.onnx")) if path.is_dir() else []
    if not files:
        raise UnknownModelError(f"There is no ONNX file at {path}; the name is dir:PATH with one in it")
    return files


def _detector_layout(path: Path) -> str | None:
    try:
        outputs = read_graph_facts(path).outputs
    except NearsightError:
        return None  # not an ONNX model; another file of the folder may be one
    if {"cls_8", "obj_8", "bbox_8", "kps_8"} <= set(outputs):
        return "yunet"
    channels = [shape[1] if len(shape) == 4 else None for shape in outputs.values()]
    if channels == [1, 2, 2, 10]:
        return "centerface"
    # The axes may have no fixed length; nine outputs are enough to recognize SCRFD.
    return "scrfd" if len(outputs) == 9 else None


def _recognizer_spec(name: str, path: Path) -> ModelSpec | None:
    try:
        facts = read_graph_facts(path)
    except NearsightError:
        return None
    (layer, shape), *more = facts.outputs.items() or [("", ())]
    (_, input_shape), *others = facts.inputs.items() or [("", ())]
    dim = shape[-1] if shape else None
    if more or others or tuple(input_shape[2:]) != (_FACE_PX, _FACE_PX):
        return None
    if len(shape) != 2 or dim is None or dim < _MIN_DIM:
        return None
    # SFace, and some files of ArcFace, normalize in the graph and take values in 0..255.
    normalizes_itself = {"Sub", "Mul"} <= set(operations(path)[:8])
    return ModelSpec(
        **{
            **facts_from_file(name, path, facts),
            "dim": dim,
            "input_px": (_FACE_PX, _FACE_PX),
            "resize_mode": "squash",
            "interpolation": "bilinear",
            "mean": (0.0,) * 3 if normalizes_itself else (0.5,) * 3,
            "std": (1 / 255,) * 3 if normalizes_itself else (0.5,) * 3,
            "layer": layer,
            "draft": False,
            "license": _license_of(name, path, "sface" if normalizes_itself else "arcface"),
        }
    )


def _license_of(name: str, path: Path, layout: str) -> str:
    """Return the license beside a file, and warn if it allows no commercial use or is unknown."""
    license = _license(path.parent)
    if license == _UNKNOWN and layout in ("scrfd", "arcface"):
        license = f"{_UNKNOWN} (InsightFace publishes its weights for non-commercial research only)"
    if is_restricted(license):
        warnings.warn(
            f"NOT FOR COMMERCIAL USE, unless the owner permits it: the license of {name} ({path.name}) is "
            f"{license}. Ask the owner of the weights before you use them for more than research.",
            UserWarning,
            stacklevel=4,
        )
    return license


def _license(folder: Path) -> str:
    for read in (_license_in_config, _license_in_readme, _license_in_file):
        with contextlib.suppress(OSError, ValueError):
            if license := read(folder):
                return license
    return _UNKNOWN


def _license_in_config(folder: Path) -> str:
    config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    license = config.get("license") if isinstance(config, dict) else None
    return license if isinstance(license, str) else ""


def _license_in_readme(folder: Path) -> str:
    # The metadata that hubs read; for "other", the license's name beside it is returned.
    if license := read_card(folder / CARD).get("license"):
        return license
    head = (folder / CARD).read_text(encoding="utf-8")[:4000]
    match = re.search(r"^licen[sc]e(?:_name)?:\s*(\S.*)$", head, re.MULTILINE | re.IGNORECASE)
    return match[1].strip() if match else ""


def _license_in_file(folder: Path) -> str:
    for file in sorted(folder.glob("LICEN[SC]E*")):
        lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
        return next((line for line in lines if line), "")
    return ""
