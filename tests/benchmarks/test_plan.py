"""The plan against a collection that the test makes, of a size that no constant of the plan came from."""

import argparse
import sys
from pathlib import Path

import pytest

from benchmarks import plan
from nearsight.collection.manifest import STORE
from nearsight.planning import Sample
from nearsight.store.lance import maintenance


@pytest.mark.slow
def test_the_plan_says_what_a_collection_takes_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MIN_INDEXED_ROWS", 1000)
    monkeypatch.setattr(maintenance, "MIN_KEYED_ROWS", 1000)
    # By its full name: the package has a function of the same name.
    monkeypatch.setattr(sys.modules["nearsight.planning.estimate"], "_MIN_INDEXED_ROWS", 1000)
    options = argparse.Namespace(rows=7000, dim=192, thumbnail_bytes=2000, images=None, postgres=None)
    plan.STEPS["make"](tmp_path, options)
    plan.STEPS["optimize"](tmp_path, options)
    measured = plan.sizes(tmp_path / STORE)
    planned = plan.planned(options, Sample(network_per_core=100.0, thumbnail_bytes=2000))
    assert set(measured) == {"vectors and rows", "thumbnails", "index"}
    assert {name: planned[name][0] for name in measured} == pytest.approx(measured, rel=0.3)


def test_the_table_of_costs_in_the_documentation_is_that_of_the_plan() -> None:
    page = Path(__file__).parents[2] / "docs/how-to/index-on-many-machines.md"
    assert f"\n\n{plan.costs()}\n\n" in page.read_text(encoding="utf-8")
