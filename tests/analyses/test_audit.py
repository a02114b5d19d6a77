"""`audit`: one planted issue of each kind is found, and nothing else."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nearsight import Collection
from nearsight.analyses.audit import _duplicate_detail, audit
from nearsight.analyses.duplicate_groups import DuplicateGroup
from nearsight.analyses.labeled_images import folders_by_path
from nearsight.collection import Item
from nearsight.errors import CalibrationError, InvalidParameterError

from fake import FakeBackend


def photo(seed, tint, size=(320, 240)):
    """Sharp patches of one tint over the whole range."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (8, 10, 3)) * 0.5 + np.array(tint) * 0.5
    pixels[0, 0], pixels[0, 1] = 0, 255
    return Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


TINTS = {"red": (250, 20, 20), "green": (20, 250, 20)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    for split in ("train", "test"):
        for label, tint in TINTS.items():
            (folder / split / label).mkdir(parents=True)
            for i in range(6):
                seed = i + 100 * (split == "test") + 1000 * (label == "red")
                photo(seed, tint).save(folder / split / label / f"{i}.png")
    spoiled = folder / "train/red"
    image = photo(5000, TINTS["red"])
    image.filter(ImageFilter.GaussianBlur(6)).save(spoiled / "blurred.png")
    photo(5001, TINTS["red"]).point(lambda v: v * 0.25).save(spoiled / "dark.png")
    photo(5002, TINTS["red"]).point(lambda v: 255 - (255 - v) * 0.25).save(spoiled / "bright.png")
    photo(5003, TINTS["red"]).point(lambda v: 128 + (v - 128) * 0.2).save(spoiled / "low_contrast.png")
    Image.new("RGB", (320, 240), (120, 20, 20)).save(spoiled / "near_constant.png")
    photo(5004, TINTS["red"], (50, 40)).save(spoiled / "tiny.png")
    photo(5005, TINTS["red"], (800, 100)).save(spoiled / "odd_aspect.png")
    (folder / "test/red/leak.png").write_bytes((folder / "train/red/0.png").read_bytes())
    (folder / "train/green/conflict.png").write_bytes((folder / "train/red/1.png").read_bytes())
    (folder / "train/rare").mkdir()
    photo(6000, (20, 20, 250)).save(folder / "train/rare/0.png")
    return folder


@pytest.fixture(scope="module")
def collection(folder, tmp_path_factory):
    made = Collection.create(tmp_path_factory.mktemp("audit") / "c", model=FakeBackend())
    made.add(folder)
    return made


@pytest.fixture(scope="module")
def result(collection):
    return audit(collection, labels=folders_by_path(collection), progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["blurred", "dark", "bright", "low_contrast", "near_constant", "tiny", "odd_aspect"]
)
def test_a_spoiled_image_has_its_fault_and_no_other_image_has(result, kind):
    found = [path.rsplit("/", 1)[1] for issue in result.issues if issue.kind == kind for path in issue.paths]
    assert found == [f"{kind}.png"]


@pytest.mark.slow
def test_copies_across_splits_and_labels(result, folder):
    def paths(kind):
        return {frozenset(issue.paths) for issue in result.issues if issue.kind == kind}

    leak = frozenset({str(folder / "train/red/0.png"), str(folder / "test/red/leak.png")})
    conflict = frozenset({str(folder / "train/red/1.png"), str(folder / "train/green/conflict.png")})
    assert leak in paths("leak")
    assert conflict not in paths("leak")
    assert {leak, conflict} <= paths("duplicate")
    assert conflict in paths("label_conflict")
    assert leak not in paths("label_conflict")


@pytest.mark.slow
def test_an_identical_file_is_named(result, folder):
    details = {issue.detail for issue in result.issues if issue.kind == "duplicate"}
    pairs = [("train/red/0.png", "test/red/leak.png"), ("train/red/1.png", "train/green/conflict.png")]
    for names in pairs:
        assert details & {f"identical to {folder / name}" for name in names}


def test_the_kept_image_is_not_counted_among_those_that_agree_with_it():
    def group(n):
        items = [Item(id=f"{i}", path=f"/p/{i}.png", paths=[f"/p/{i}.png"]) for i in range(n)]
        return DuplicateGroup(items[0], items, [1.0] * (n - 1), [0.9] * (n - 1), ["0"] * (n - 1), "")

    assert _duplicate_detail(group(2)) == "1 other image agrees with 0.png"
    assert _duplicate_detail(group(3)) == "2 other images agree with 0.png"


@pytest.mark.slow
def test_a_rare_class_is_named(result):
    [rare] = [issue for issue in result.issues if issue.kind == "rare_class"]
    assert "'rare' has 1 of" in rare.detail
    assert len(rare.ids) == 1


@pytest.mark.slow
def test_issues_are_sorted_and_counted(result):
    for kind, n in result.counts.items():
        severities = [issue.severity for issue in result.issues if issue.kind == kind]
        assert len(severities) == n
        assert severities == sorted(severities, reverse=True)
        assert all(0 <= severity <= 1 for severity in severities)


@pytest.mark.slow
def test_a_notebook_shows_the_issues_of_each_kind(result):
    page = result._repr_html_()
    for kind, n in list(result.counts.items())[:10]:
        assert f"<p>{kind.replace('_', ' ')}: {n}</p>" in page
    assert "blurred.png</figcaption>" in page
    assert page.count("<img") == sum(min(n, 10) for n in list(result.counts.values())[:10])


@pytest.mark.slow
def test_without_labels_and_splits_it_says_what_was_not_checked(tmp_path):
    for i in range(3):
        photo(i, TINTS["red"]).save(tmp_path / f"{i}.png")
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add([tmp_path / f"{i}.png" for i in range(3)])
    result = audit(made, progress=False)
    assert result.issues == []
    assert any("labels were not given" in note for note in result.notes)
    assert any("there are no splits" in note for note in result.notes)
    with pytest.raises(InvalidParameterError, match="no column"):
        audit(made, split="nowhere", progress=False)
    with pytest.raises(CalibrationError, match="needs 399 good images"):
        audit(made, good=made, progress=False)


def test_folders_above_the_set_are_no_splits(tmp_path):
    # SPLIT_FOLDERS has "dev", for validation.
    folder = tmp_path / "dev" / "set"
    for split, n in (("train", 24), ("test", 3)):
        (folder / split / "red").mkdir(parents=True)
        for i in range(n):
            photo(i + 100 * (split == "test"), TINTS["red"], (32, 24)).save(
                folder / split / "red" / f"{i}.png"
            )
    (folder / "train/red/copy.png").write_bytes((folder / "train/red/0.png").read_bytes())
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(folder, progress=False)
    result = audit(made, progress=False)
    assert "duplicate" in result.counts
    assert "leak" not in result.counts
    assert [(part.split, part.n) for part in result.coverage] == [("test", 3)]
    one_split = audit(made, where="path LIKE '%/train/%'", progress=False)
    assert any("there are no splits" in note for note in one_split.notes)


def test_a_fault_of_the_whole_set_is_said_once(tmp_path):
    for i in range(6):
        photo(i, TINTS["red"]).point(lambda v: v * 0.2).resize((60, 60)).save(tmp_path / f"{i}.png")
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add([tmp_path / f"{i}.png" for i in range(6)])
    notes = audit(made, progress=False).notes
    assert any(note.startswith("100% of the images are dark") and "--good" in note for note in notes)
    # Of sizes, good images teach nothing.
    assert any(note.startswith("100% of the images are tiny") and "--good" not in note for note in notes)


def test_images_far_from_all_others_are_outliers(tmp_path):
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    rng = np.random.default_rng(0)
    center = rng.normal(size=made.spec.dim)
    X = np.r_[center + 0.3 * rng.normal(size=(200, made.spec.dim)), rng.normal(size=(5, made.spec.dim))]
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    ids = [f"{i:032x}" for i in range(205)]
    made.add_vectors(X, ids=ids, fingerprint=made.fingerprint)
    result = audit(made, progress=False)
    found = {id for issue in result.issues if issue.kind == "outlier" for id in issue.ids}
    assert found >= set(ids[200:])
    assert len(found) <= 8  # one in ten may be false, on average
    assert any("205 images have no thumbnail" in note for note in result.notes)
