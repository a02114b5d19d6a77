"""The same object before look-alikes, and everything else in the order it came."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nearsight.errors import ImageError, InvalidParameterError
from nearsight.verification.keypoints import count_inliers, geometric_rerank, local_features
from nearsight.verification.sift import Keypoints

from sample_images import encoded, texture

QUERY = texture(320, 240, seed=5)
OTHERS = [texture(320, 240, seed=seed) for seed in range(4)]
EDITS = {
    "same": lambda image: image,
    "crop": lambda image: image.crop((80, 60, 260, 200)),
    "turn": lambda image: image.rotate(35, Image.Resampling.BICUBIC, expand=True),
    "upside down": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "half": lambda image: image.resize((160, 120), Image.Resampling.LANCZOS),
    "double": lambda image: image.resize((640, 480), Image.Resampling.BICUBIC),
    "jpeg": lambda image: encoded(image, "JPEG", quality=30),
}


@pytest.fixture(scope="module")
def others() -> list[Keypoints]:
    return [local_features(image) for image in OTHERS]


@pytest.mark.parametrize("edit", EDITS)
def test_the_same_thing_comes_first(others: list[Keypoints], edit: str) -> None:
    found = geometric_rerank(QUERY, [*others, EDITS[edit](QUERY)])
    assert [one.position for one in found] == [4, 0, 1, 2, 3]
    assert found[0].n_inliers >= 15
    assert max(one.n_inliers for one in found[1:]) < 10
    assert not found[0].mirrored


def test_more_inliers_go_first(others: list[Keypoints]) -> None:
    part = QUERY.crop((100, 80, 220, 180))
    found = geometric_rerank(QUERY, [others[0], part, others[1], QUERY])
    assert [one.position for one in found] == [3, 1, 0, 2]
    counts = [one.n_inliers for one in found]
    assert counts[0] > counts[1] >= 10


def test_below_the_floor_nothing_moves(others: list[Keypoints]) -> None:
    found = geometric_rerank(QUERY, [*others, QUERY], min_inliers=10_000)
    assert [one.position for one in found] == [0, 1, 2, 3, 4]
    assert found[4].n_inliers > 100


def test_mirror_images(others: list[Keypoints]) -> None:
    candidates = [*others, ImageOps.mirror(QUERY), QUERY]
    [first, *rest] = geometric_rerank(QUERY, candidates)
    assert first.position == 5
    assert [one.position for one in rest] == [0, 1, 2, 3, 4]
    found = geometric_rerank(QUERY, candidates, mirror=True)
    assert {(one.position, one.mirrored) for one in found[:2]} == {(4, True), (5, False)}


def test_every_kind_of_image(tmp_path: Path, others: list[Keypoints]) -> None:
    QUERY.save(tmp_path / "q.png")
    kinds = [tmp_path / "q.png", str(tmp_path / "q.png"), np.asarray(QUERY), encoded(QUERY, "PNG"), QUERY]
    counts = {count_inliers(local_features(kind), local_features(QUERY)) for kind in kinds}
    assert len(counts) == 1
    found = geometric_rerank(local_features(QUERY), [others[0], tmp_path / "q.png"])
    assert found[0].n_inliers == counts.pop()


def test_one_bad_candidate_stops_nothing(others: list[Keypoints]) -> None:
    found = geometric_rerank(QUERY, ["no/such.jpg", b"Dear diary", others[0], QUERY])
    assert [one.position for one in found] == [3, 0, 1, 2]
    assert [one.reason for one in found[1:3]] == ["does not exist", "is not an image in a known format"]
    assert geometric_rerank(QUERY, []) == []


def test_a_bad_query_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no/such.jpg: does not exist"):
        geometric_rerank("no/such.jpg", [QUERY])
    for name in "ab":
        QUERY.save(tmp_path / f"{name}.png")
    with pytest.raises(ImageError, match="stands for 2 images; give one"):
        geometric_rerank(tmp_path, [QUERY])


def test_blank_images_verify_nothing() -> None:
    blank = Image.new("RGB", (200, 100), "white")
    assert [one.n_inliers for one in geometric_rerank(blank, [QUERY, blank])] == [0, 0]
    assert geometric_rerank(QUERY, [blank])[0].n_inliers == 0


def test_pairs_that_fall_into_a_point_are_no_object() -> None:
    features = local_features(QUERY)
    collapsed = Keypoints(features.xy / 50, features.descriptors)
    assert count_inliers(features, features) > 100
    assert count_inliers(features, collapsed) == 0
    assert count_inliers(collapsed, features) == 0


def test_places_are_counted_once() -> None:
    features = local_features(QUERY)
    n_places = len(np.unique(np.rint(features.xy), axis=0))
    assert n_places < len(features)
    assert count_inliers(features, features, ratio=1.0) <= n_places


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ratio": 0}, "ratio is 0,"),
        ({"ratio": 1.1}, "ratio is 1.1,"),
        ({"tolerance_px": 0}, "tolerance_px is 0,"),
        ({"min_inliers": 0}, "min_inliers is 0;"),
        ({"max_features": 0}, "max_features is 0; it must be at least 1"),
        ({"size_px": 0}, "size_px is 0; it must be at least 1"),
    ],
)
def test_parameters_out_of_range(parameters: dict, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        geometric_rerank(QUERY, [QUERY], **parameters)


def test_keypoints_cannot_be_mirrored() -> None:
    with pytest.raises(InvalidParameterError, match="give the image itself"):
        geometric_rerank(local_features(QUERY), [QUERY], mirror=True)
