"""Images are compared with a defect-free image in the same pose."""

import numpy as np
import pytest
from PIL import Image

from nearsight import AnomalyDetector
from nearsight.anomaly.templates import Templates, template_difference
from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.images import Limits

from sample_images import texture


def board(seed: int = 0, side: int = 240) -> np.ndarray:
    """Black tracks and pads on white; every seed is another board."""
    rng = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 230, np.uint8)
    for at in rng.choice(np.arange(12, side - 12, 18), 6, replace=False):
        pixels[at : at + 6, 10:-10] = 30
        pixels[10:-10, at : at + 6] = 30
    return pixels


def photographed(pixels: np.ndarray, seed: int, shift: tuple[int, int] = (0, 0)) -> Image.Image:
    """The same board with noise, moved by some pixels."""
    noise = np.random.default_rng(seed).normal(0, 6, pixels.shape)
    return Image.fromarray(np.clip(np.roll(pixels, shift, (0, 1)) + noise, 0, 255).astype(np.uint8))


def broken(pixels: np.ndarray, y: int = 100, x: int = 140) -> np.ndarray:
    changed = pixels.copy()
    changed[y : y + 9, x : x + 9] = 255 - changed[y, x]
    return changed


@pytest.mark.parametrize("shift", [(0, 0), (5, -7), (-20, 11)])
def test_only_the_defect_differs_wherever_the_board_lies(shift):
    template = Image.fromarray(board())
    good = template_difference(photographed(board(), 1, shift), template)[..., 0]
    bad = template_difference(photographed(broken(board()), 2, shift), template)[..., 0]
    inner = slice(14, -14)  # what moved in from beyond the border is unknown
    assert good[inner, inner].max() < 40
    y, x = np.unravel_index(bad[inner, inner].argmax(), bad[inner, inner].shape)
    assert bad[inner, inner].max() > 100
    factor = 240 / len(bad)
    assert abs((y + 14.5) * factor - 104 - shift[0]) < 8
    assert abs((x + 14.5) * factor - 144 - shift[1]) < 8


def test_a_small_turn_is_undone():
    template = texture(300, 300, 3)
    turned = template.rotate(2, Image.Resampling.BICUBIC, translate=(4, 3))
    inner = (slice(16, -16), slice(16, -16), 0)
    aligned = template_difference(turned, template)[inner].mean()
    other = template_difference(texture(300, 300, 4), template)[inner].mean()
    assert aligned < 0.2 * other


def test_brightness_and_rough_edges_do_not_count():
    template = board()
    darker = Image.fromarray((template * 0.8).astype(np.uint8))
    assert template_difference(darker, Image.fromarray(template)).max() < 10
    rough = template.copy()
    rough[100:140:2] = np.roll(rough[100:140:2], 1, axis=1)
    assert template_difference(Image.fromarray(rough), Image.fromarray(template)).max() < 40


def test_a_thin_line_counts_where_it_is_missing_and_where_it_is_added():
    plain, lined = np.full((200, 200, 3), 220, np.uint8), np.full((200, 200, 3), 220, np.uint8)
    lined[:, 100:104] = 20
    for image, template in ((plain, lined), (lined, plain)):
        assert template_difference(Image.fromarray(image), Image.fromarray(template)).max() > 60


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (1600, 90)])
def test_any_size_is_compared(size):
    image = Image.new("RGB", size, (90, 90, 90))
    difference = template_difference(image, image)
    assert difference.max() == 0
    assert max(difference.shape) <= 128


def test_a_folder_has_a_template_of_each_name(tmp_path):
    for name in ("a.png", "b.png"):
        photographed(board(), 0).save(tmp_path / name)
    templates = Templates(tmp_path, Limits())
    assert templates.image is None
    assert templates.of("elsewhere/b.jpg").size == (240, 240)
    with pytest.raises(ImageError, match="no image named c is in"):
        templates.of("c.jpg")
    photographed(board(), 0).save(tmp_path / "a.jpg")
    with pytest.raises(InvalidParameterError, match="several templates of one name"):
        Templates(tmp_path, Limits())
    with pytest.raises(InvalidParameterError, match="no template at"):
        Templates(tmp_path / "none", Limits())


def detector(templates, images) -> AnomalyDetector:
    return AnomalyDetector(
        layers=["block4.add"], templates=templates, false_alarm_rate=0.2, n_patches=50, n_threads=2
    ).fit(images)


@pytest.mark.slow
def test_one_template_is_in_the_file(tmp_path):
    Image.fromarray(board(side=120)).save(tmp_path / "golden.png")
    good = [np.asarray(photographed(board(side=120), seed)) for seed in range(20)]
    detector(tmp_path / "golden.png", good).save(tmp_path / "d.npz")
    (tmp_path / "golden.png").unlink()
    again = AnomalyDetector.load(tmp_path / "d.npz")
    found, fine = again.score(
        [
            np.asarray(photographed(broken(board(side=120), 60, 60), 50)),
            np.asarray(photographed(board(side=120), 51)),
        ],
        heatmaps=True,
    )
    assert found.defect
    assert found.levels["template"] > 5 > fine.levels["template"]
    y, x = np.unravel_index(found.heatmap.argmax(), found.heatmap.shape)
    assert max(abs(y - 64), abs(x - 64)) < 10


@pytest.mark.slow
def test_templates_of_a_folder_are_named_again(tmp_path):
    for folder in ("good", "templates"):
        (tmp_path / folder).mkdir()
    for seed in range(20):
        photographed(board(seed, 120), seed).save(tmp_path / f"good/{seed}.png")
        Image.fromarray(board(seed, 120)).save(tmp_path / f"templates/{seed}.png")
    detector(tmp_path / "templates", tmp_path / "good").save(tmp_path / "d.npz")
    with pytest.raises(InvalidParameterError, match="fitted with a template for each image"):
        AnomalyDetector.load(tmp_path / "d.npz")
    again = AnomalyDetector.load(tmp_path / "d.npz", templates=tmp_path / "templates")
    photographed(broken(board(3, 120), 60, 60), 70).save(tmp_path / "3.png")
    photographed(board(3, 120), 70).save(tmp_path / "99.png")
    assert again.score([tmp_path / "3.png"])[0].defect
    [failure] = again.score([tmp_path / "99.png"])
    assert isinstance(failure, ImageFailure)
    assert "has no template" in failure.reason


def test_a_detector_without_templates_takes_none(file, tmp_path):
    photographed(board(), 0).save(tmp_path / "golden.png")
    with pytest.raises(InvalidParameterError, match="fitted without templates"):
        AnomalyDetector.load(file, templates=tmp_path / "golden.png")
