"""A service segments customers as the library does."""

import numpy as np
import pytest

pytest.importorskip("fastapi")

from nearsight.errors import InvalidParameterError, MetadataError, ServiceError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def orders():
    """Twenty customers who buy of one kind; one row names no image."""
    rng = np.random.default_rng(0)
    kinds = ("known", "new")
    lines = [
        (f"c{customer}", f"{kinds[customer % 2]}/{n}.png", float(rng.integers(1, 4)))
        for customer in range(20)
        for n in rng.choice(120, 6, replace=False)
    ]
    return [*lines, ("c1", "gone.png", 1.0), ('=Zoë, "Z"', "new/3.png", 1.0)]


def test_segments_are_those_of_the_library(many, stored, orders, place):
    expected = stored.segment_customers(orders, words=[], false_alarm_rate=0.2, progress=False)
    found = many.segment_customers(orders, words=[], false_alarm_rate=0.2)
    assert len(found.segments) == 2
    assert found.unmatched == expected.unmatched == {"gone.png": 1}
    assert (found.segments, found.customers) == (expected.segments, expected.customers)
    assert found.silhouette == expected.silhouette
    assert not list(place.glob("results/**/tables/*"))
    later = [("ann", "known/3.png", 1.0), ("ann", "known/5.png", 1.0), ("bob", "new/7.png", 1.0)]
    assigned = many.assign_customers(expected, later)
    assert assigned.customers == stored.assign_customers(expected, later).customers
    assert many.customer_segments().customers == found.customers


def test_a_table_of_the_server_and_of_a_form(many, work, orders, place):
    from nearsight.client.job_operations import finished
    from nearsight.client.operations import collection_path
    from nearsight.client.requests import Request

    text = "customer,image\n" + "\n".join(f"{customer},{image}" for customer, image, _ in orders[:-1])
    (place / "orders.csv").write_text(text)
    path = collection_path(many, "segments")

    def ask(**request):
        job = yield Request("POST", path, params={"k": 3, "names": False}, **request)
        return (yield from finished(job.json()))

    job = work.run(ask(json={"file": "data/orders.csv"}))
    assert job["result"] == {"segments": 3, "customers": 20}
    assert job["args"] == {"k": 3, "names": False, "file": "data/orders.csv"}
    assert work.run(ask(files=[("file", ("o.csv", text.encode()))]))["result"] == job["result"]
    assert (place / "orders.csv").exists()


def test_tables_that_are_wrong(many, place):
    with pytest.raises(ServiceError, match=r"table\.csv") as error:
        many.segment_customers([("ann", "nowhere.png", 1.0)])
    assert str(place) not in str(error.value)
    with pytest.raises(MetadataError, match=r"table\.csv.*weight"):
        many.segment_customers([("ann", "known/3.png", -1.0)])
    with pytest.raises(InvalidParameterError, match=r"table\.csv"):
        many.assign_customers(many.customer_segments(), [("ann", "nowhere.png", 1.0)])
