"""Whatever the bytes: an image or an ImageError, no other exception, no warning, no hang."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nearsight.errors import ImageError
from nearsight.images import Limits, decode

from sample_images import samples

LIMITS = Limits(max_pixels=1_000_000, max_bytes=1 << 20, max_seconds=5)
HEADS = sorted({data[:size] for data in samples().values() for size in (4, 12, 16, 40)})


def try_decoding(data, min_side_px=None):
    try:
        image = decode(data, path="fuzz", min_side_px=min_side_px, limits=LIMITS)
    except ImageError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.path == "fuzz"
        assert refusal.reason
        return
    assert image.image.mode == "RGB"
    assert image.width >= image.image.width >= 1
    assert image.height >= image.image.height >= 1
    image.image.tobytes()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=300))
@example(b"", b"")
def test_random_bytes_behind_a_plausible_head(head, noise):
    try_decoding(head + noise)


mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "delete", "repeat"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def mutate(data, steps):
    for kind, where, noise in steps:
        at = int(where * len(data))
        if kind == "set":
            data = data[:at] + noise + data[at + len(noise) :]
        elif kind == "cut":
            data = data[: max(at, 16)]
        elif kind == "insert":
            data = data[:at] + noise + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(noise) :]
        else:
            data = data[:at] + data[max(0, at - 64) :]
    return data


@pytest.mark.slow
@settings(max_examples=1200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(samples())), mutations, st.sampled_from([None, 8]))
def test_damaged_images(name, steps, min_side_px):
    try_decoding(mutate(samples()[name], steps), min_side_px)


def test_each_byte_of_each_header_in_turn():
    rng = np.random.default_rng(0)
    for data in samples().values():
        for position in rng.permutation(min(len(data), 200))[:60].tolist():
            for value in (0, 0xFF, 0x80):
                try_decoding(data[:position] + bytes((value,)) + data[position + 1 :])
