"""Facts, and the fingerprints they make."""

import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.errors import InvalidParameterError
from nearsight.models import Fingerprint, ModelSpec
from nearsight.models import spec as spec_module

SPEC = ModelSpec(id="m", dim=8, weights_sha256="a" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "n"},
        {"dim": 9},
        {"weights_sha256": "b" * 64},
        {"input_px": (224, 192)},
        {"resize_px": 255},
        {"resize_mode": "squash"},
        {"resize_mode": "shrink"},
        {"resize_mode": "squash-crop"},
        {"crop_rounding": "down"},
        {"interpolation": "bilinear"},
        {"mean": (0.5, 0.5, 0.4)},
        {"std": (0.5, 0.5, 0.4)},
        {"layer": "head"},
        {"pooling": "cls"},
        {"normalize": False},
        {"precision": "bfloat16"},
    ],
)
def test_what_changes_vectors_changes_the_fingerprint(change: dict[str, object]) -> None:
    changed = dataclasses.replace(SPEC, **change).fingerprint
    assert changed != SPEC.fingerprint
    assert changed.digest != SPEC.fingerprint.digest
    (first, *_) = SPEC.fingerprint.differences(changed)
    assert next(iter(change)).removeprefix("id") in first


@pytest.mark.parametrize("name", ["source", "license", "training_data", "accuracy"])
def test_prose_does_not(name: str) -> None:
    assert dataclasses.replace(SPEC, **{name: "else"}).fingerprint == SPEC.fingerprint


def test_every_fact_is_one_or_the_other() -> None:
    # A new field must be added to one of the two tests above.
    prose = {"source", "license", "training_data", "accuracy", "size_bytes", "matryoshka_dims"}
    unusual = dataclasses.replace(SPEC, crop_rounding="down", pooling="cls")
    flat = unusual.fingerprint.to_dict()
    facts = {"id", "identity", "draft", "weights_sha256", *flat["preprocessing"], *flat["output"]}
    assert {field.name for field in dataclasses.fields(ModelSpec)} == facts | prose


def test_an_identity_takes_the_place_of_the_id() -> None:
    here, there = (dataclasses.replace(SPEC, id=id, identity="onnx-1") for id in ("dir:/a", "dir:/b"))
    assert here.fingerprint == there.fingerprint
    assert here.fingerprint != dataclasses.replace(here, identity="onnx-2").fingerprint


def test_reduced_decoding_changes_it() -> None:
    full = dataclasses.replace(SPEC, draft=False).fingerprint
    assert full.decoder["draft_factor"] is None
    assert full != SPEC.fingerprint


def test_younger_facts_leave_old_collections_alone() -> None:
    # What the first collections hold: a new fact must be absent at its old value.
    assert set(SPEC.fingerprint.preprocessing) == {
        "input_px", "resize_px", "resize_mode", "interpolation", "mean", "std"
    }  # fmt: skip
    assert set(SPEC.fingerprint.output) == {"layer", "dim", "normalize", "precision"}


def test_crop_rounding_means_nothing_to_squashing() -> None:
    one, other = (
        dataclasses.replace(SPEC, resize_mode="squash", crop_rounding=word) for word in ("down", "nearest")
    )
    assert one.fingerprint == other.fingerprint


def test_decoder_rules_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SPEC.fingerprint
    monkeypatch.setattr(spec_module, "DRAFT_FACTOR", 99)
    assert SPEC.fingerprint != before
    monkeypatch.undo()
    monkeypatch.setattr(spec_module, "DECODER_RULES", {**spec_module.DECODER_RULES, "version": 99})
    assert SPEC.fingerprint != before
    assert "decoder.version" in SPEC.fingerprint.differences(before)[0]


def test_resize_px_means_nothing_to_squashing_and_shrinking() -> None:
    for mode in ("squash", "shrink"):
        one, other = (dataclasses.replace(SPEC, resize_mode=mode, resize_px=px) for px in (256, 300))
        assert one.fingerprint == other.fingerprint


numbers = st.floats(0.01, 10)
specs = st.builds(
    ModelSpec,
    id=st.text(min_size=1),
    dim=st.integers(1, 4096),
    weights_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    input_px=st.tuples(st.integers(1, 512), st.integers(1, 512)),
    resize_px=st.integers(512, 1024),
    resize_mode=st.sampled_from(["short-side", "squash", "shrink"]),
    mean=st.tuples(numbers, numbers, numbers),
    std=st.tuples(numbers, numbers, numbers),
    accuracy=st.text(),
)


@given(specs)
def test_round_trip_through_json(spec: ModelSpec) -> None:
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    fingerprint = spec.fingerprint
    again = Fingerprint.from_dict(json.loads(json.dumps(fingerprint.to_dict())))
    assert again == fingerprint
    assert hash(again) == hash(fingerprint)
    assert again.differences(fingerprint) == []
    assert pickle.loads(pickle.dumps(fingerprint)) == fingerprint


def test_facts_of_later_versions_are_ignored() -> None:
    assert ModelSpec.from_dict({**SPEC.to_dict(), "patch_px": 14}) == SPEC


def test_a_digest_is_for_ever() -> None:
    # Collections hold it: a change here makes every existing collection foreign.
    made = Fingerprint("m", "a" * 64, {"resize_px": 256}, {"version": 1}, {"dim": 8})
    assert made.digest == "30dfae017648ad09"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize_px": 223}, "resize_px is 223; for a crop of [(]224, 224[)] it must be at least 224"),
        (
            {"resize_mode": "stretch"},
            "resize_mode is 'stretch'; it must be short-side or squash or squash-crop or shrink",
        ),
        ({"resize_px": 200, "resize_mode": "squash-crop"}, "resize_px is 200"),
        ({"crop_rounding": "up"}, "crop_rounding is 'up'; it must be nearest or down"),
        ({"pooling": "max"}, "pooling is 'max'; it must be mean or cls"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; it must be bicubic or"),
        ({"mean": (0.5, 0.5)}, "mean is .*; it must have 3 numbers"),
        ({"dim": 0}, "greater than 0"),
        ({"std": (1, 0, 1)}, "greater than 0"),
    ],
)
def test_facts_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        dataclasses.replace(SPEC, **change)


def test_decoder_versions_that_show_the_same_are_comparable() -> None:
    before = SPEC.fingerprint.to_dict()
    assert before["decoder"]["version"] == 2
    before["decoder"]["version"] = 1
    earlier = Fingerprint.from_dict(before)
    assert earlier == SPEC.fingerprint
    assert earlier.digest == SPEC.fingerprint.digest
    assert earlier.differences(SPEC.fingerprint) == ["decoder.version: 1, there 2"]
    for version in (0, 3):
        before["decoder"]["version"] = version
        assert Fingerprint.from_dict(before) != SPEC.fingerprint
