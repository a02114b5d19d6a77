"""One file without pickle: what goes in comes out, and what is not sound is refused."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from nearsight.errors import NewerFormatError, StorageError, WeightsError
from nearsight.models.sift_vlad.vocabulary import Method, Vocabulary

METHOD = Method(size_px=100, max_features=50, power=0.5, intra_normalize=True)


def vocabulary(*, projected: bool = True) -> Vocabulary:
    rng = np.random.default_rng(0)
    words = rng.random((3, 128), np.float32)
    if not projected:
        return Vocabulary(words, METHOD)
    return Vocabulary(words, METHOD, words.ravel(), rng.random((384, 5), np.float32), "two images")


def rewritten(path: Path, **changes: object) -> None:
    with np.load(path) as archive:
        content = dict(archive)
    facts = json.loads(str(content["facts"]))
    for name, value in changes.items():
        if name in content:
            content[name] = value
        else:
            facts[name] = value
    content.setdefault("facts", "")
    if "facts" not in changes:
        content["facts"] = np.array(json.dumps(facts))
    np.savez(path, **content)


@pytest.mark.parametrize("projected", [False, True])
def test_round_trip(tmp_path: Path, projected: bool) -> None:
    made = vocabulary(projected=projected)
    made.save(tmp_path / "v.npz")
    read = Vocabulary.load(tmp_path / "v.npz")
    assert read.sha256 == made.sha256
    assert read.dim == made.dim == (5 if projected else 384)
    assert (read.method, read.learned_from) == (made.method, made.learned_from)
    assert read.arrays.keys() == made.arrays.keys()
    for name, array in made.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
    assert list(tmp_path.iterdir()) == [tmp_path / "v.npz"]


def test_the_hash_covers_every_number_but_no_prose() -> None:
    made = vocabulary()
    for name, array in made.arrays.items():
        changed = array.copy()
        changed.flat[-1] += 1e-3
        assert dataclasses.replace(made, **{name: changed}).sha256 != made.sha256
    assert dataclasses.replace(made, mean=None, projection=None).sha256 != made.sha256
    assert dataclasses.replace(made, learned_from="").sha256 == made.sha256


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no vocabulary at .*v.npz. Fit one with: fit_sift_vlad"):
        Vocabulary.load(tmp_path / "v.npz")


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    vocabulary().save(path)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for data in (b"", b"Dear diary", whole[: len(whole) // 2], bytes(damaged), pickle.dumps([1, 2])):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="v.npz cannot be used: .*Restore the file, or fit"):
            Vocabulary.load(path)
    with pytest.raises(WeightsError, match="cannot be used"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize(
    "content", [{"words": np.zeros(3)}, {"facts": np.array("[]")}, {"facts": np.array("{")}]
)
def test_other_archives(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "v.npz", **content)
    with pytest.raises(WeightsError, match="cannot be used"):
        Vocabulary.load(tmp_path / "v.npz")


def test_a_lone_array_and_pickled_objects(tmp_path: Path) -> None:
    with open(tmp_path / "v.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(WeightsError, match="cannot be used"):
        Vocabulary.load(tmp_path / "v.npz")
    np.savez(tmp_path / "v.npz", facts=np.array([{"format": 1}], object))
    with pytest.raises(WeightsError, match="cannot be used: .*allow_pickle=False"):
        Vocabulary.load(tmp_path / "v.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": np.zeros((3, 128), np.float32)}, "its content has SHA-256"),
        ({"method": dataclasses.asdict(METHOD) | {"size_px": 99}}, "its content has SHA-256"),
        ({"method": {"size_px": 99}}, "a part is missing or unknown"),
        ({"method": dataclasses.asdict(METHOD) | {"color": True}}, "a part is missing or unknown: .*color"),
        ({"format": "one"}, "its facts are not those of a vocabulary"),
    ],
)
def test_changed_files(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    vocabulary().save(tmp_path / "v.npz")
    rewritten(tmp_path / "v.npz", **changes)
    with pytest.raises(WeightsError, match=message):
        Vocabulary.load(tmp_path / "v.npz")


def test_a_newer_format(tmp_path: Path) -> None:
    vocabulary().save(tmp_path / "v.npz")
    rewritten(tmp_path / "v.npz", format=2)
    with pytest.raises(
        NewerFormatError, match="format 2; this nearsight reads up to 1: pip install --upgrade"
    ):
        Vocabulary.load(tmp_path / "v.npz")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        vocabulary().save(tmp_path / "no" / "v.npz")
