"""Care of a collection of a service."""

import pytest

pytest.importorskip("fastapi")

pytestmark = pytest.mark.cluster


def test_a_collection_is_compacted(work, many, stored):
    ids = [item.id for item in stored.items()][::60]
    vectors = stored.vectors(ids)
    many.update_metadata(ids[0], {"odd": True})
    assert many.compact() is None
    job = work.jobs()[0]
    info = many.info()
    assert (job["kind"], job["result"]["images"], job["result"]["size_bytes"]) == (
        "compact",
        240,
        info["size_bytes"],
    )
    assert (many.vectors(ids) == vectors).all()
