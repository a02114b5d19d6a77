"""Analyses that a service runs give what the library gives, and what the command line prints."""

from datetime import date, datetime, timezone

import numpy as np
import pytest

pytest.importorskip("fastapi")

from nearsight import AsyncClient
from nearsight.analyses.labeled_images import labels_by_key
from nearsight.errors import FilterError, ServiceError
from nearsight.evaluation import advise_dimension
from nearsight.services.documents import dimension_document
from nearsight.services.monitor import HISTORY, monitor, monitoring_document

from coroutines import run_coroutine

pytestmark = pytest.mark.cluster


def without_times(document):
    """Return a comparison of lengths without what a clock measured."""
    rows = [{name: row[name] for name in row if name != "search_ms"} for row in document["dimensions"]]
    return {**document, "dimensions": rows}


@pytest.mark.parametrize("labels", [None, "kind"])
def test_the_advised_dimension(many, stored, labels):
    by_id = labels and labels_by_key(stored, labels)
    expected = dimension_document(advise_dimension(stored, by_id, keep=0.8))
    assert without_times(many.advise_dimension(labels, keep=0.8)) == without_times(expected)
    assert "dimension" in many.analyses()


def test_labels_are_never_a_folder_of_the_server(many, place):
    for labels in (str(place), "none"):
        with pytest.raises(ServiceError, match="known are: kind"):
            many.advise_dimension(labels)


def test_new_images_are_compared(many, stored):
    document = many.monitor("kind = 'new'", by=["kind"])
    (stored.directory / HISTORY).unlink()
    expected = monitoring_document(monitor(stored, "kind = 'new'", by=["kind"]))
    listed = document["unknown_kinds"]["images"]
    assert [image["id"] for image in listed] == [i["id"] for i in expected["unknown_kinds"]["images"]]
    assert all(image["path"].startswith("data/images/new/") for image in listed)
    document["unknown_kinds"]["images"] = expected["unknown_kinds"]["images"]
    assert document == expected
    assert document["changed_mix"]["p"] < 0.01


def test_images_are_new_by_the_date_that_they_came(many, stored):
    with pytest.raises(ServiceError, match="240 known and 0 new"):
        many.monitor(since=date(2100, 1, 1))
    with pytest.raises(ServiceError, match="0 known and 240 new"):
        many.monitor(since=datetime(2001, 1, 1, tzinfo=timezone.utc))
    with pytest.raises(ServiceError, match="one of since and new"):
        many.monitor()
    with pytest.raises(FilterError):
        many.monitor("kind ~ 3")


def test_the_most_unusual_images(work, many, stored):
    expected = [(each.item.id, each.distance) for each in stored.outliers(7, where="kind = 'known'")]
    found = many.outliers(7, where="kind = 'known'")
    assert [(each.item.id, each.distance) for each in found] == expected
    assert found[0].item.path.startswith("data/images/known/")

    async def ask():
        async with AsyncClient(work.url) as client:
            return await client.collection("many").outliers(7, where="kind = 'known'")

    assert run_coroutine(ask()) == found


def test_an_image_that_has_left_is_not_on_the_map(many):
    whole = many.layout_2d(method="pca")
    assert len(whole.ids) == 240
    entry = many.move_to_trash([whole.ids[3]])["entry"]
    left, rows = many.map(), np.delete(np.arange(240), 3)
    assert left.ids == [whole.ids[row] for row in rows]
    np.testing.assert_array_equal(left.positions, whole.positions[rows])
    np.testing.assert_array_equal(left.clusters, whole.clusters[rows])
    many.restore_from_trash(entry["id"])
    assert many.map().ids == whole.ids
