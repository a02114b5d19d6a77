"""Pairs of images that show the same thing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearsight.errors import InvalidParameterError, MetadataError
from nearsight.evaluation import read_labeled_folder
from nearsight.images import Exclusions
from nearsight.services.training import labeled_images, state_folder
from nearsight.training import train


def write_pairs(file, pairs):
    file.write_text("first,second\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    return file


def test_views_are_looked_at_before_an_image_is_embedded(save_image, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_image(tmp_path / name / "1.png", 0)
        save_image(tmp_path / name / "2.png", 1)

    def stop(paths):
        raise InterruptedError(*paths)

    # What embeds is never called: there is none.
    with pytest.raises(InterruptedError, match=r"1\.png.*1\.png"):
        labeled_images(tmp_path, None, Exclusions(), embedder=object(), on_paths=stop)


def test_images_that_pairs_and_copies_connect_are_one_thing(save_image, tmp_path):
    for seed in range(7):
        save_image(tmp_path / f"{seed}.png", seed)
    # A copy of the image 1, which no pair connects to it.
    with Image.open(tmp_path / "1.png") as image:
        image.save(tmp_path / "copy.png", compress_level=1)
    table = write_pairs(
        tmp_path / "pairs.csv",
        [("0.png", "1.png"), ("copy.png", "2.png"), ("3.png", "4.png"), ("4.png", "5.png")],
    )
    labeled, groups = labeled_images(tmp_path, None, Exclusions(), pairs=table, progress=False)
    names = [path.rpartition("/")[2] for path in labeled.paths]
    label = dict(zip(names, labeled.labels, strict=True))
    assert label["0.png"] == label["1.png"] == label["copy.png"] == label["2.png"]
    assert label["3.png"] == label["4.png"] == label["5.png"] != label["0.png"]
    assert "6.png" not in label
    assert groups[names.index("1.png")] == groups[names.index("copy.png")]
    assert labeled.holds_pairs
    with pytest.raises(InvalidParameterError, match="labels and pairs were given"):
        labeled_images(tmp_path, table, Exclusions(), pairs=table)
    wrong = write_pairs(tmp_path / "wrong.csv", [("a.png", "b.png"), ("0.png", "c.png")])
    with pytest.raises(InvalidParameterError, match="3 of the 4 images .* paths are relative to"):
        labeled_images(tmp_path, None, Exclusions(), pairs=wrong)
    (tmp_path / "empty.csv").write_text("first,second\n")
    with pytest.raises(MetadataError, match="no line with both first and second"):
        labeled_images(tmp_path, None, Exclusions(), pairs=tmp_path / "empty.csv")
    with pytest.raises(InvalidParameterError, match="pairs of 2 different things are left to learn from"):
        train(labeled, groups, n_views=1, progress=False)


def test_labels_that_a_table_corrects_and_those_that_it_leaves_to_the_folders(save_image, tmp_path):
    for number, name in enumerate(
        ("train/a/1", "train/a/2", "test/a/3", "train/b/1", "train/b/2", "train/b/3")
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(tmp_path / f"{name}.png", number)
    table = tmp_path / "labels.csv"
    # As `export` writes them once `audit --apply` has corrected one; b/3 was removed.
    table.write_text(
        "path,label\ntrain/a/1.png,\ntrain/a/2.png,b\ntest/a/3.png,\ntrain/b/1.png,\ntrain/b/2.png,\n"
    )
    # Through its parent, as in `nearsight train ../photos`.
    folder = tmp_path / ".." / tmp_path.name
    labeled, _ = labeled_images(folder, table, Exclusions(), progress=False)
    names = [str(Path(path).relative_to(tmp_path)) for path in labeled.paths]
    assert dict(zip(names, labeled.labels, strict=True)) == {
        "train/a/1.png": "a",
        "train/a/2.png": "b",
        "test/a/3.png": "a",
        "train/b/1.png": "b",
        "train/b/2.png": "b",
    }
    assert [name for name, split in zip(names, labeled.splits, strict=True) if split == "test"] == [
        "test/a/3.png"
    ]


def test_rows_of_a_table_that_name_nothing_are_told_and_two_labels_of_an_image_are_refused(
    save_image, tmp_path
):
    for i in range(6):
        (tmp_path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        save_image(tmp_path / f"set/{'ab'[i % 2]}/{i}.png", i)
    folder, table = tmp_path / "set", tmp_path / "labels.csv"
    rows = [f"{'ab'[i % 2]}/{i}.png,{'xy'[i % 2]}" for i in range(6)]
    table.write_text("\n".join(["path,label", *rows, "a/gone.png,x", ""]))
    with pytest.warns(UserWarning, match="1 row of .* no image has the name: .*a/gone.png"):
        labeled, _ = labeled_images(folder, table, Exclusions(), progress=False)
    assert sorted(labeled.labels) == ["x", "x", "x", "y", "y", "y"]
    table.write_text("\n".join(["path,label", *rows, "a/0.png,y", ""]))
    with pytest.raises(InvalidParameterError, match=r"gives .*0.png two labels, 'x' and 'y'"):
        labeled_images(folder, table, Exclusions(), progress=False)


def test_classes_of_few_images_are_refused_with_what_is_needed(save_image, tmp_path):
    for number in range(8):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        save_image(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    labeled, groups = read_labeled_folder(tmp_path), np.arange(8)
    with pytest.raises(
        InvalidParameterError, match="6 images of 2 classes are left .* five different images"
    ):
        train(labeled, groups, n_views=1, progress=False)


def test_the_state_of_a_training_lies_beside_the_model(tmp_path):
    assert state_folder(tmp_path / "model") == tmp_path / ".model.training"
    assert np.unique([state_folder(tmp_path / name).name for name in "ab"]).size == 2
