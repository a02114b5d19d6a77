"""Random filters on a real server: the rows, and the nearest of them, whatever its statistics and indexes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearsight.store import create_store, parse
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.postgres import indexes, search
from nearsight.testing.stores import ids_of

from filter_expressions import EXPRESSIONS, FIELDS, ODD_ROWS, ROWS, SCHEMA, odd_expressions

DIM, N_ROWS = 32, 1500
# Of the rows that match, more than these are found by the index of vectors.
MAX_COMPARED = 60
VECTOR = pa.field("vector", pa.list_(pa.float16(), DIM))
POSITION = SCHEMA.get_field_index("vector")
WIDE = SCHEMA.set(POSITION, pa.field("vector", pa.list_(pa.float32(), DIM)))
COLUMNS = SCHEMA.set(POSITION, VECTOR)


def drawn_rows():
    """Return rows with every kind of value, missing ones too; vectors are in groups, as those of images."""
    examples = []

    @settings(max_examples=30, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(ROWS, ODD_ROWS)
    def draw(rows, odd_rows):
        examples.extend([*rows, *odd_rows])

    draw()
    for row in examples:
        if row["meta_score"] is not None:
            # LanceDB, and so the oracle, has -0.0 below 0.0 where two columns are compared.
            row["meta_score"] += 0.0
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, DIM))[rng.integers(0, 40, N_ROWS)] + rng.standard_normal((N_ROWS, DIM))
    # As the database rounds them, so that the oracle compares the same numbers.
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    rows = [{"id": f"{i:05}", **examples[i % len(examples)], "vector": X[i].tolist()} for i in range(N_ROWS)]
    return pa.Table.from_pylist(rows, schema=WIDE), X


@pytest.fixture(scope="module")
def stores(server, tmp_path_factory):
    """The same rows in a store of each kind; the server never gathers statistics of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", server.password)
        patch.setenv("NEARSIGHT_FILES", str(tmp_path_factory.mktemp("files")))
        patch.setattr(search, "MAX_COMPARED", MAX_COMPARED)
        table, X = drawn_rows()
        made = {}
        for is_indexed in (False, True):
            patch.setattr(indexes, "MIN_INDEXED_ROWS", 1000 if is_indexed else 10**6)
            for is_analyzed in (False, True):
                name = f"filters-{is_indexed:d}{is_analyzed:d}"
                store = create_store(f"{server.uri}?collection={name}", COLUMNS)
                with store._database.connection() as connection:
                    for own in (store._tables.rows, store._tables.vectors):
                        connection.execute(f"ALTER TABLE {own} SET (autovacuum_enabled = off)")
                    store.append(table)
                    store.maintain()
                    for own in (store._tables.rows, store._tables.vectors):
                        if is_analyzed:
                            connection.execute(f"ANALYZE {own}")
                        else:
                            connection.execute(
                                "DELETE FROM pg_statistic WHERE starelid = %s::regclass", (own,)
                            )
                            connection.execute(
                                "UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE oid = %s::regclass",
                                (own,),
                            )
                    assert (store._search._index(connection, store.version) is not None) == is_indexed
                made[is_indexed, is_analyzed] = store
        yield made, table, X


@pytest.mark.slow
def test_random_filters_lose_no_row_whatever_the_planner_knows(stores, monkeypatch):
    made, table, X = stores
    ids = np.array(table["id"].to_pylist())
    n_expected, n_walked, n_found = 0, 0, dict.fromkeys(made, 0)
    # Walks that end early, as they do in a large index, find too few.
    usual, short = search.search_settings, {"hnsw.ef_search": "20", "hnsw.max_scan_tuples": "1"}
    ends = {}
    monkeypatch.setattr(search, "search_settings", lambda *walk: {**usual(*walk), **ends})
    texts = EXPRESSIONS.map(lambda expression: expression[0]) | odd_expressions()

    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(texts, st.sampled_from([1, 10, 50]), st.integers(0, N_ROWS - 1))
    def check(text, k, number):
        nonlocal n_expected, n_walked
        where = parse(text, FIELDS)
        matching = np.flatnonzero(matching_rows(where, table))
        query = X[number] + X[number - 1] / 4
        cosines = (X @ query) / np.linalg.norm(X, axis=1) / np.linalg.norm(query)
        nearest = set(ids[matching[np.argsort(-cosines[matching], kind="stable")[:k]]])
        n_expected += len(nearest)
        n_walked += len(matching) > MAX_COMPARED
        for kind, store in made.items():
            assert ids_of(store, where=where) == ids[matching].tolist(), kind
            assert store.count(where) == len(matching), kind
            for end in (short, {}):
                ends.clear()
                ends.update(end)
                [hits] = store.search(query[None], k, where=where)
                own = {hit.id for hit in hits}
                assert len(hits) == len(own) == min(k, len(matching)), kind
                assert own <= set(ids[matching]), kind
                similarities = [cosines[int(hit.id)] for hit in hits]
                np.testing.assert_allclose([hit.similarity for hit in hits], similarities, atol=1e-3)
            n_found[kind] += len(own & nearest)

    check()
    # Both ways of a search were taken.
    assert 10 < n_walked < 58
    recall = {kind: n / n_expected for kind, n in n_found.items()}
    assert min(recall.values()) >= 0.99, recall
