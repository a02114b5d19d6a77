"""`upgrade` and `rollback`, as a user runs them."""

import json

import pytest


@pytest.mark.slow
def test_a_collection_moves_to_another_model_and_back(nearsight, kinds):
    nearsight("index", kinds)
    before = nearsight("search", next(iter(sorted(kinds.iterdir()))), "--json").stdout
    to = ("--to", "efficientnet-lite0#layer=block9.add", "--json")
    foretold = json.loads(nearsight("upgrade", *to, "--dry-run").stdout)
    assert (foretold["schema"], foretold["switched"]) == (1, False)
    told = nearsight("upgrade", *to[:2], "--dry-run", "-c", nearsight.collection).stdout
    assert f"nearsight search IMAGE --model '{to[1]}' works from now on" in told
    document = json.loads(nearsight("upgrade", *to).stdout)
    assert document["switched"]
    assert 0 < document["overlap"] <= 1
    assert json.loads(nearsight("info", "--json").stdout)["dim"] != 1280
    assert nearsight("search", next(iter(sorted(kinds.iterdir()))), "--json").stdout != before
    assert json.loads(nearsight("rollback", "--json").stdout)["model"] == "efficientnet-lite0"
    assert nearsight("search", next(iter(sorted(kinds.iterdir()))), "--json").stdout == before
    assert "already rolled back" in nearsight("rollback").stdout
    assert "The upgrade is ended" in nearsight("upgrade", "--abandon").stdout
    assert "was not upgraded" in nearsight("rollback", code=2).stderr


def test_one_thing_at_a_time(nearsight):
    assert "--to MODEL, --commit and --abandon" in nearsight("upgrade", code=2).stderr
