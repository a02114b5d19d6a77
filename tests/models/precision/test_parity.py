"""Fast ways of running a model are measured before they are trusted."""

import json

import numpy as np
import pytest

from nearsight.errors import ParityError
from nearsight.models import synthetic_images as drawing
from nearsight.models.precision import parity
from nearsight.models.precision.parity import compare, require_parity
from nearsight.models.synthetic_images import synthetic_images

from fake import FakeBackend


class Near(FakeBackend):
    """A backend that errs by a given share."""

    def __init__(self, error):
        super().__init__()
        self.error = error
        self.n_calls = 0

    def embed(self, prepared):
        self.n_calls += 1
        vectors = super().embed(prepared)
        noise = np.random.default_rng(1).standard_normal(vectors.shape).astype(np.float32)
        vectors += self.error * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_compares_as_a_plain_loop_does():
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((30, 8)).astype(np.float32)
    X = exact + 0.3 * rng.standard_normal((30, 8)).astype(np.float32)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(X, exact, strict=True)]

    def nearest(vectors, i):
        by = [(-(vectors[i] @ v) / np.linalg.norm(v), j) for j, v in enumerate(vectors) if j != i]
        return {j for _, j in sorted(by)[:10]}

    found = compare(X, exact)
    assert found.smallest == pytest.approx(min(cosines), abs=1e-6)
    assert found.mean == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.overlap == pytest.approx(
        np.mean([len(nearest(X, i) & nearest(exact, i)) / 10 for i in range(30)])
    )
    assert compare(exact, exact).overlap == 1
    assert compare(exact[:1], exact[:1]).overlap == 1


def test_images_in_which_a_network_sees_nothing():
    exact = np.eye(4, 6, dtype=np.float32)
    exact[2] = 0
    assert compare(exact, exact) == parity.Parity(1, 1, 1)
    assert compare(np.abs(exact - 1), exact).smallest == 0


def test_what_is_the_same_is_used_without_a_word(tmp_path):
    assert require_parity(Near(0.001), FakeBackend(), tmp_path).smallest > parity.EQUIVALENT_COSINE


def test_what_is_near_is_told_once_and_remembered(tmp_path):
    near = Near(0.05)
    with pytest.warns(UserWarning, match=r"measured once on this machine: cosine .* at least"):
        first = require_parity(near, FakeBackend(), tmp_path)
    assert require_parity(near, FakeBackend(), tmp_path) == first
    assert near.n_calls == 1
    [file] = (tmp_path / "parity").iterdir()
    assert json.loads(file.read_text())["smallest"] == first.smallest


def test_what_is_far_is_refused_each_time(tmp_path):
    near = Near(0.3)
    for _ in range(2):
        with pytest.raises(ParityError, match=r"at least 0\.99 is needed\. Use fake in full precision"):
            require_parity(near, FakeBackend(), tmp_path)
    assert near.n_calls == 1


@pytest.mark.slow
def test_a_damaged_memory_is_made_again(tmp_path):
    near = Near(0.001)
    require_parity(near, FakeBackend(), tmp_path)
    [file] = (tmp_path / "parity").iterdir()
    file.write_text("{")
    require_parity(near, FakeBackend(), tmp_path)
    assert near.n_calls == 2


@pytest.mark.slow
def test_another_machine_measures_again(tmp_path, monkeypatch):
    near = Near(0.001)
    require_parity(near, FakeBackend(), tmp_path)
    monkeypatch.setattr(parity, "_machine", lambda: "another")
    require_parity(near, FakeBackend(), tmp_path)
    assert near.n_calls == 2


def test_where_nothing_can_be_kept_it_works_all_the_same(tmp_path, caplog):
    (tmp_path / "parity").write_text("a file where the folder would be")
    assert require_parity(Near(0.001), FakeBackend(), tmp_path).smallest > parity.EQUIVALENT_COSINE
    assert "measured again at each start" in caplog.text


def test_the_machines_name_holds():
    name = parity._machine()
    parity._machine.cache_clear()
    assert parity._machine() == name


def test_builtin_images_are_many_and_always_the_same(monkeypatch):
    monkeypatch.setattr(drawing, "_drawn", drawing._drawn.__wrapped__)
    images = synthetic_images(9, seed=3)
    again = synthetic_images(9, seed=3)
    assert [p.tobytes() for p in images] == [p.tobytes() for p in again]
    assert len({p.tobytes() for p in [*images, *synthetic_images(9, seed=4)]}) == 18
    # Flat, bright backgrounds are what rounding suffers from most.
    assert sum(_is_flat_and_bright(image) for image in images) >= 2


def _is_flat_and_bright(image):
    n, color = max(image.getcolors(image.width * image.height))
    return n > 0.2 * image.width * image.height and min(color) >= 200
