import time

import pytest

from nearsight import process_memory
from nearsight.errors import InvalidParameterError
from nearsight.images import Limits
from nearsight.server.errors import Problem
from nearsight.server.metrics import Metrics
from nearsight.server.model_pool import ModelPool

from coroutines import run_coroutine
from fake import FakeBackend


@pytest.fixture
def pool(tmp_path, source, monkeypatch):
    """Return a pool whose models take 100 bytes each."""
    sizes = iter(range(0, 100_000, 100))
    monkeypatch.setattr(process_memory, "resident_bytes", lambda: next(sizes))

    def make(n=3, **options):
        sources = {chr(ord("a") + i): source(FakeBackend(i)) for i in range(n)}
        options = {"budget_bytes": 250, "limits": Limits(), "metrics": Metrics(), **options}
        return ModelPool(sources, tmp_path, **options)

    return make


def get(pool, alias):
    return run_coroutine(pool.get(alias))


def loaded(pool):
    return [alias for alias in pool.sources if pool.loaded(alias)]


def test_models_are_loaded_when_they_are_needed_and_once(pool):
    models = pool()
    assert loaded(models) == []
    first = get(models, None)
    assert first.alias == models.default == "a"
    assert get(models, "a") is first
    assert loaded(models) == ["a"]


def test_the_least_recently_used_is_unloaded_within_the_budget(pool):
    models = pool()
    get(models, "a"), get(models, "b")
    get(models, "a")
    get(models, "c")
    assert loaded(models) == ["a", "c"]
    assert get(models, "b").alias == "b"


def test_pinned_models_and_models_in_use_stay(pool):
    models = pool(pinned=["a"], budget_bytes=150)
    get(models, "a")
    b = get(models, "b")
    with models.using(b):
        get(models, "c")
        assert loaded(models) == ["a", "b", "c"]
    models.unload_idle()
    assert loaded(models) == ["a", "b", "c"]


def test_a_model_that_is_forgotten_while_in_use_leaves_its_alias_to_another(pool, source):
    models = pool()
    old = get(models, "a")
    with models.using(old):
        models.forget("a")
        models.sources["a"] = source(FakeBackend(7))
        assert get(models, "a").fingerprint != old.fingerprint


def test_models_that_are_not_used_are_unloaded(pool):
    models = pool(ttl_s=0.01, pinned=["b"], budget_bytes=10_000)
    get(models, "a"), get(models, "b")
    time.sleep(0.02)
    assert models.unload_idle() == ["a"]
    assert loaded(models) == ["b"]


def test_an_alias_never_changes_its_vectors_unnoticed(pool, tmp_path, source):
    get(pool(), "a")
    options = {"budget_bytes": 1, "limits": Limits(), "metrics": Metrics()}
    changed = ModelPool({"a": source(FakeBackend(9))}, tmp_path, **options)
    with pytest.raises(Problem, match="--rebind a") as refused:
        get(changed, "a")
    assert refused.value.status == 503
    rebound = ModelPool({"a": source(FakeBackend(9))}, tmp_path, rebind=["a"], **options)
    digest = get(rebound, "a").backend.spec.fingerprint.digest
    assert rebound.bound_fingerprint("a") == digest
    assert get(changed, "a").alias == "a"


def test_unknown_aliases(pool):
    with pytest.raises(Problem, match="there are: a, b, c") as unknown:
        get(pool(), "onnx:/etc/passwd")
    assert unknown.value.status == 404
    with pytest.raises(InvalidParameterError, match="there is no model 'z'"):
        pool(pinned=["z"])


@pytest.mark.parametrize(("device", "most"), [("cpu", 1), ("cuda", 8)])
def test_no_answer_of_a_processor_waits_for_others(tmp_path, source, device, most):
    backend = FakeBackend()
    backend.device = device
    models = ModelPool(
        {"a": source(backend)}, tmp_path, budget_bytes=10**9, limits=Limits(), metrics=Metrics()
    )
    assert get(models, "a").images.most == most
