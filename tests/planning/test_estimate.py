"""Plans against what `benchmarks.plan` has measured, and by hand."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from nearsight.collection import schema
from nearsight.errors import InvalidParameterError
from nearsight.models.huggingface.known_models import KNOWN_MODELS
from nearsight.planning import Needs, Sample, estimate, measure
from nearsight.store import create_store
from nearsight.store.memory import accelerators, build, cache
from nearsight.store.memory.partitions import Partitions
from nearsight.store.memory.store import MemoryStore
from nearsight.store.memory.vectors import FileVectors

# The package has a function of the module's name.
formulas = sys.modules["nearsight.planning.estimate"]


def values(needs: Needs, sample: Sample | None = None) -> dict[str, float | str]:
    return {line.name: line.value for line in estimate(needs, sample or Sample(network_per_core=100.0))}


# Processor time, files and resident memory of 100,000 x 512, with thumbnails of 3,000 bytes, by
# `python -m benchmarks.plan`; of 1,000,000 x 512, what docs/figures.md has of other benchmarks.
MEASURED = {
    100_000: {
        "vectors and rows": 0.228,
        "thumbnails": 0.310,
        "index": 0.0333,
        "index build": 13.8 / 60,
        "memory, search on disk": 0.229,
        "search on disk": 4.6,
        "memory, search in memory": 0.523,
        "search in memory": 0.517,
    },
    1_000_000: {
        "index build": 133 / 60,
        "memory, search in memory": 0.82,
        "memory, search on disk": 0.481,
        "search on disk": 4.9,
        "search in memory": 1.1,
    },
}


@pytest.mark.parametrize("n_images", sorted(MEASURED))
def test_a_plan_keeps_to_the_runs_that_its_constants_came_from(n_images: int) -> None:
    """This guards the constants; whether they hold elsewhere is for `benchmarks.plan --check`."""
    plan = values(Needs(n_images, 512), Sample(network_per_core=100.0, thumbnail_bytes=3000))
    plan["vectors and rows"] = float(plan["vectors"]) + float(plan["paths, sizes, dates"])
    measured = MEASURED[n_images]
    assert {name: plan[name] for name in measured} == pytest.approx(measured, rel=0.3)


def test_the_formulas_give_what_one_computes_by_hand() -> None:
    needs = Needs(200_000_000, 512, megapixels=0.3, storage="float16", machines=8, gpus=1, price=2.0)
    plan = values(needs, Sample())
    assert plan["vectors"] == pytest.approx(205, rel=0.01)
    assert plan["index"] == pytest.approx(200e6 * (256 + 77) / 1e9, rel=0.02)
    assert plan["GPUs"] == 8
    assert plan["cost"] == pytest.approx(2 * float(plan["machine hours"]), rel=0.001)
    # A core decodes 178 in a second, so 16 cores and not the GPU are the bound.
    assert plan["embedding"] == pytest.approx(200e6 / (8 * 16 * 178 * 0.85) / 3600, rel=0.001)
    # Without a GPU: 16 cores with 90 images/s of decoding and 100 of the network, of which 15 % are lost.
    alone = values(Needs(1_000_000, 512))
    assert alone["embedding rate"] == pytest.approx(0.85 * 16 / (1 / 90 + 1 / 100), rel=1e-3)


@pytest.mark.parametrize(
    ("n_images", "dim", "measured"),
    # By `python -m benchmarks.plan` on sizes that no constant of the time of searches came from.
    [
        (
            60_000,
            768,
            {"index": 0.0277, "memory, search on disk": 0.257, "index build": 0.165},
        ),
        (250_000, 768, {"index build": 0.641, "memory, search on disk": 0.318, "search on disk": 4.48}),
        (250_000, 768, {"search in memory": 0.869, "Postgres, table and index": 1.67}),
        (
            70_000,
            384,
            {
                "memory, search in memory": 0.375,
                "search in memory": 0.313,
                "Postgres, table and index": 0.234,
            },
        ),
        (400_000, 128, {"index": 0.0561, "memory, search on disk": 0.264, "search in memory": 0.44}),
        # Compared whole; in partitions, held and read from a file: the fastest tenth, since others worked.
        (3_000, 384, {"search in memory": 0.47}),
        (10_000, 512, {"search in memory": 0.736}),
        (30_000, 512, {"search in memory": 0.43}),
        (90_000, 640, {"search in memory": 0.65}),
        (150_000, 1280, {"search in memory": 0.81}),
        (400_000, 512, {"search in memory": 0.83}),
        (25_000, 256, {"Postgres, table and index": 0.0642}),
        (25_000, 768, {"Postgres, table and index": 0.168}),
    ],
)
def test_a_plan_keeps_to_runs_of_other_sizes(n_images, dim, measured) -> None:
    plan = values(Needs(n_images, dim))
    assert {name: plan[name] for name in measured} == pytest.approx(measured, rel=0.3)


@pytest.mark.parametrize("max_held", [10**9, 1000])
def test_the_memory_of_a_search_is_that_of_what_is_held(max_held, tmp_path, monkeypatch) -> None:
    if not accelerators.has_graphs() or not accelerators.has_byte_products():
        pytest.skip("usearch or numkong is not installed")
    for module in (build, cache):
        monkeypatch.setattr(module, "MAX_HELD_NUMBERS", max_held)
    monkeypatch.setattr(build, "MIN_GRAPH_NUMBERS", 1)
    monkeypatch.setattr(formulas, "_MAX_HELD_NUMBERS", max_held)
    n, dim, rng = 4000, 64, np.random.default_rng(0)
    store = create_store(tmp_path / "store", schema.schema(dim))
    vectors = (rng.normal(size=(20, dim))[rng.integers(20, size=n)] + 0.5 * rng.normal(size=(n, dim))).astype(
        np.float32
    )
    paths = [f"/srv/photos/of 2026/{number % 97:02}/image{number:08}.jpg" for number in range(n)]
    columns = {
        "id": [f"{number:032x}" for number in range(n)],
        "path": paths,
        **{name: [[path] for path in paths] for name in ("paths", "keys")},
        "stamps": [[0]] * n,
        **{name: [1] * n for name in ("size_bytes", "width", "height", "added")},
        "vector": list(vectors),
    }
    own = [field for field in store.schema if field.name in columns]
    store.append(pa.table({field.name: pa.array(columns[field.name], field.type) for field in own}))
    memory = MemoryStore(store, tmp_path / "cache", columns=schema.columns_in_memory)
    assert memory.load()
    rows = memory._rows()
    part, partitions = rows.base, rows.graph
    assert isinstance(partitions, Partitions)
    held = [partitions.centers.values, partitions.centers.scales, partitions.ends, part.codes.values]
    held += [part.codes.scales, part.inverse_norms]
    if not isinstance(part.vectors, FileVectors):
        held.append(part.vectors.array)
    n_bytes = sum(array.nbytes for array in held) + part.table.nbytes
    assert formulas.held_bytes(n, dim) == pytest.approx(n_bytes, rel=0.3)
    assert isinstance(part.vectors, FileVectors) == (max_held < n * dim)
    memory.close()


def test_images_of_another_size_than_those_measured_take_as_much_longer() -> None:
    sample = Sample(n_images=9, megapixels=2.0, decoded_per_core=45.0, network_per_core=100.0)

    same, larger = (estimate(Needs(1000, 512, megapixels=size), sample)[0] for size in (2.0, 12.0))
    assert (same.name, same.value, same.basis) == ("decoding", 45.0, "measured")
    # Half of 30, as those of two megapixels took twice as long here as the formula says.
    assert (larger.name, larger.value, larger.basis) == ("decoding", 15.0, "scaled")
    assert "45 of these images of 2 megapixels" in larger.rule


def test_networks_that_were_measured_go_by_the_names_that_models_have() -> None:
    assert set(formulas._EMBEDDED) <= {"efficientnet-lite0", *(model.name for model in KNOWN_MODELS)}
    plan = values(Needs(10**6, 512, model="clip-vit-base-patch32", megapixels=0.3, cores=256, gpus=1))
    assert plan["embedding rate"] == pytest.approx(0.85 * 33_000, rel=1e-3)


def test_more_or_larger_images_never_take_less() -> None:
    plans = [
        values(Needs(n, 512, megapixels=px)) for n, px in [(10**5, 0.3), (10**6, 2), (10**7, 12), (10**8, 50)]
    ]
    for name in ("embedding", "vectors", "thumbnails", "index", "index build", "memory, search on disk"):
        numbers = [float(plan[name]) for plan in plans]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) == 4


def test_few_rows_have_no_index() -> None:
    few, many = values(Needs(49_999, 512)), values(Needs(50_000, 512))
    assert many.keys() - few.keys() == {"index", "index build"}
    assert str(few["index type"]).startswith("none")


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="images is 0"):
        estimate(Needs(0, 512), Sample())
    with pytest.raises(InvalidParameterError, match="no GPU"):
        estimate(Needs(1000, 512), Sample())


@pytest.mark.slow
def test_images_are_measured(tmp_path, cache, save_image) -> None:
    for seed in range(3):
        save_image(tmp_path / f"{seed}.png", seed, (200, 100))
    (tmp_path / "broken.png").write_bytes(b"no image")
    sample = measure([str(tmp_path)], "efficientnet-lite0", cache_dir=cache)
    assert (sample.n_images, sample.n_failed, sample.megapixels) == (4, 1, pytest.approx(0.02))
    assert sample.decoded_per_core is not None
    assert sample.network_per_core is not None
    assert 0.25 < sample.max_failure_rate < 0.75
    assert {line.basis for line in estimate(Needs(10**6, 1280), sample)} == {"measured", "scaled"}
