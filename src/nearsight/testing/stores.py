"""What every `VectorStore` must do, whatever the engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from nearsight.errors import MetadataError, NearsightError, RowsRefusedError
from nearsight.store import Field, VectorStore, append_accepted, parse
from nearsight.testing.store_rows import (
    DIM,
    FIELDS,
    HARD,
    SCHEMA,
    VALUES,
    fetch,
    ids_of,
    rows,
    vector_array,
    vectors_of,
)

__all__ = ["DIM", "FIELDS", "SCHEMA", "StoreTests", "fetch", "ids_of", "rows", "vector_array", "vectors_of"]


class StoreTests:
    """The tests of an engine: give `make` and `reopen`.

    Attributes
    ----------
    atol : float
        How far a stored number may be from the one written, and a similarity from the exact cosine.
    largest : float
        A number that a stored vector can hold.
    n_examples : int
        Sequences of random calls that are compared with a dict; fewer where a call is slow.

    Examples
    --------
    A test module of an engine::

        from nearsight.testing import StoreTests
        from nearsight.testing.stores import SCHEMA

        class TestMyStore(StoreTests):
            def make(self, directory):
                return MyStore.create(directory, SCHEMA)

            def reopen(self, directory):
                return MyStore.open(directory)
    """

    atol = 1e-5
    largest = 1e30
    n_examples = 15

    def make(self, directory: Path) -> VectorStore:
        """Return a new, empty store of SCHEMA."""
        raise NotImplementedError

    def reopen(self, directory: Path) -> VectorStore:
        """Return a second handle on the store made in `directory`."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> VectorStore:
        return self.make(tmp_path / "store")

    def test_it_is_a_vector_store(self, store: VectorStore) -> None:
        assert isinstance(store, VectorStore)
        assert store.schema.names == SCHEMA.names
        assert [field.type for field in store.schema] == [field.type for field in SCHEMA]

    def test_an_empty_store_answers(self, store: VectorStore) -> None:
        assert store.count() == 0
        assert ids_of(store) == []
        assert store.search(vectors_of(1, 2), 3) == [[], []]
        assert store.delete(["a"]) == 0

    def test_rows_come_back_as_they_were_written(self, store: VectorStore) -> None:
        table = rows(
            ["a", "b"],
            path=["/ü\n'\"\\.jpg", None],
            other_paths=[["x", "y"], []],
            width=[640, None],
            modified=[1_700_000_000_123_456, None],
            thumbnail=[b"\x00\xff", None],
        )
        store.append(table)
        found = fetch(store, [name for name in SCHEMA.names if name != "id"])
        expected = table.select(SCHEMA.names).to_pylist()
        for row, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(row.pop("vector"), wanted.pop("vector"), atol=self.atol)
        assert found == expected

    def test_vectors_are_read_as_float32(self, store: VectorStore) -> None:
        store.append(rows(["a", "b"]))
        [batch] = store.scan(["vector"])
        assert batch.schema.field("vector").type == pa.list_(pa.float32(), DIM)

    def test_columns_left_out_become_null(self, store: VectorStore) -> None:
        store.append(rows(["a"]))
        assert fetch(store, ["path", "other_paths", "width", "modified", "thumbnail"]) == [
            {"id": "a", "path": None, "other_paths": None, "width": None, "modified": None, "thumbnail": None}
        ]

    def test_scan_by_ids_and_filter(self, store: VectorStore) -> None:
        names = [f"{number:04}" for number in range(2500)]
        store.append(rows(names, width=list(range(2500))))
        assert ids_of(store, ids=[*names[10:2200], "missing", names[10]]) == names[10:2200]
        assert ids_of(store, ids=names[:50], where=parse("width >= 48", FIELDS)) == names[48:50]
        assert ids_of(store, ids=[]) == []
        assert store.count(parse("width BETWEEN 10 AND 19", FIELDS)) == 10

    def test_ids_with_quotes_are_just_ids(self, store: VectorStore) -> None:
        names = ["it's", "') OR (1=1", 'a"b`c', "\\"]
        store.append(rows(names))
        assert ids_of(store, ids=["') OR (1=1"]) == ["') OR (1=1"]
        assert store.delete(["it's", "\\"]) == 2
        assert ids_of(store) == sorted(["') OR (1=1", 'a"b`c'])

    def test_search_returns_the_most_similar_first(self, store: VectorStore) -> None:
        stored = vectors_of(*range(50))
        store.append(rows([f"{number:02}" for number in range(50)], stored, width=list(range(50))))
        queries = vectors_of(100, 101, 102)
        found = store.search(queries, 7, columns=["width"])
        for query, hits in zip(queries, found, strict=True):
            cosines = stored @ query
            expected = np.argsort(-cosines)[:7]
            assert [hit.row["width"] for hit in hits] == expected.tolist()
            assert [hit.id for hit in hits] == [f"{number:02}" for number in expected]
            assert np.allclose([hit.similarity for hit in hits], cosines[expected], atol=self.atol)

    def test_search_among_rows_that_match(self, store: VectorStore) -> None:
        store.append(
            rows([f"{number:02}" for number in range(50)], vectors_of(*range(50)), width=list(range(50)))
        )
        hits = store.search(vectors_of(3), 10, where=parse("width > 44", FIELDS))[0]
        assert sorted(hit.id for hit in hits) == ["45", "46", "47", "48", "49"]
        assert store.search(vectors_of(3), 10, where=parse("width > 99", FIELDS)) == [[]]

    def test_k_beyond_the_rows_gives_all_rows(self, store: VectorStore) -> None:
        store.append(rows(["a", "b"]))
        assert len(store.search(vectors_of(0), 1000)[0]) == 2

    def test_similarity_stays_in_its_range(self, store: VectorStore) -> None:
        one = vectors_of(5)
        store.append(rows(["same", "opposite"], np.vstack([one, -one])))
        same, opposite = store.search(one, 2)[0]
        assert same.id == "same"
        assert same.similarity == pytest.approx(1, abs=1e-6)
        assert opposite.similarity == pytest.approx(-1, abs=1e-6)
        assert -1 <= opposite.similarity <= same.similarity <= 1

    @pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
    def test_a_wrong_k_is_refused(self, store: VectorStore, k: Any) -> None:
        with pytest.raises(ValueError, match="k is") as caught:
            store.search(vectors_of(1), k)
        assert isinstance(caught.value, NearsightError)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30, 0.0])
    def test_vectors_without_a_direction_are_refused(self, store: VectorStore, wrong: Any) -> None:
        bad = vectors_of(1, 2)
        bad[1] = 0 if wrong == 0 else bad[1]
        bad[1, 3] = self.largest if wrong == 1e30 else wrong
        if wrong == 1e30:  # the square of this is infinite in float32, though it is a fine direction
            store.append(rows(["a", "b"], bad))
            return
        with pytest.raises(ValueError, match="vector 1 is all zeros or holds NaN") as caught:
            store.append(rows(["a", "b"], bad))
        assert isinstance(caught.value, NearsightError)
        with pytest.raises(ValueError, match="query vector 1"):
            store.search(bad, 1)
        assert store.count() == 0

    @pytest.mark.parametrize("shape", [(DIM,), (1, DIM + 1), (1, 1, DIM)])
    def test_queries_of_another_shape_are_refused(self, store: VectorStore, shape: Any) -> None:
        with pytest.raises(ValueError, match=f"needs \\(n, {DIM}\\)"):
            store.search(np.ones(shape, np.float32), 1)

    def test_rows_that_do_not_fit_are_refused(self, store: VectorStore) -> None:
        good = rows(["a", "b"])
        wide = pa.table({"id": ["a"], "vector": vector_array(np.ones((1, DIM + 1), np.float32))})
        cases = {
            "several rows have the same id": rows(["a", "a"]),
            f"needs fixed_size_list.*\\[{DIM}\\]": wide,
            "no column 'id'": good.drop_columns(["id"]),
            "no column 'vector'": good.drop_columns(["vector"]),
            "do not fit the table": good.append_column("color", pa.array(["red", "blue"])),
            "have no id": good.set_column(0, "id", pa.array(["a", None])),
            "do not fit the table's types": good.append_column("width", pa.array(["x", "y"])),
        }
        for message, table in cases.items():
            with pytest.raises(ValueError, match=message) as caught:
                store.append(table)
            assert isinstance(caught.value, NearsightError)
        assert store.count() == 0

    def test_values_come_back_as_they_were_or_name_the_row(self, store: VectorStore) -> None:
        for column, type_, values in VALUES:
            store.add_columns([pa.field(column, type_)])
            ids = [f"{column} {place}" for place in range(len(values))]
            table = pa.table(
                {
                    "id": ids,
                    column: pa.array(values, type_),
                    "vector": vector_array(vectors_of(*range(len(ids)))),
                }
            )
            refused = append_accepted(store, table)
            assert refused.keys() <= {id for id, value in zip(ids, values, strict=True) if value in HARD}
            kept = table.filter(pa.array([id not in refused for id in ids]))
            expected = dict(zip(kept["id"].to_pylist(), kept[column].to_pylist(), strict=True))

            def check(found: dict[str, Any], expected: dict[str, Any] = expected) -> None:
                # By their text: NaN is not equal to itself, and 0.0 is to -0.0.
                assert {id: repr(value) for id, value in found.items()} == {
                    id: repr(value) for id, value in expected.items()
                }

            check({row["id"]: row[column] for row in fetch(store, [column], ids=ids)})
            hits = store.search(vectors_of(0), 1000, columns=[column])[0]
            check({hit.id: hit.row[column] for hit in hits if hit.id in expected})
            store.update(pa.table({"id": ids, column: pa.array([None] * len(ids), type_)}))
            store.update(kept.select(["id", column]))
            check({row["id"]: row[column] for row in fetch(store, [column], ids=ids)})

    def test_nothing_is_written_where_a_row_is_refused(self, store: VectorStore) -> None:
        def reasons_of(write: Callable[[pa.Table], None], table: pa.Table) -> dict[str, str]:
            try:
                write(table)
            except RowsRefusedError as error:
                reasons = error.reasons
                message = str(error)
            else:
                return {}
            assert reasons.keys() == {"2"}
            assert f"2: {reasons['2']}" in message
            return reasons

        for value in HARD:
            table = rows(["1", "2"], path=["good", value])
            if reasons_of(store.append, table):
                assert store.count() == 0
                store.append(rows(["1", "2"], path=["one", "two"]))
            changes = table.drop_columns(["vector"])
            expected = ["one", "two"] if reasons_of(store.update, changes) else ["good", value]
            assert [row["path"] for row in fetch(store, ["path"])] == expected
            assert store.delete(["1", "2"]) == 2

    def test_update_changes_only_what_it_names(self, store: VectorStore) -> None:
        store.append(
            rows(["a", "b", "c"], width=[1, 2, 3], path=["p", "q", "r"], thumbnail=[b"1", b"2", b"3"])
        )
        store.update(pa.table({"id": ["b", "missing"], "width": pa.array([20, 0], pa.int32())}))
        found = fetch(store, ["width", "path", "thumbnail"])
        assert [tuple(row.values()) for row in found] == [
            ("a", 1, "p", b"1"),
            ("b", 20, "q", b"2"),
            ("c", 3, "r", b"3"),
        ]
        assert np.allclose([hit.similarity for hit in store.search(vectors_of(1), 1)[0]], 1, atol=self.atol)

    def test_update_moves_a_vector(self, store: VectorStore) -> None:
        store.append(rows([f"{number}" for number in range(5)], width=list(range(5))))
        new = vectors_of(77)
        store.update(pa.table({"id": ["3"], "vector": vector_array(new)}))
        best = store.search(new, 1, columns=["width"])[0][0]
        assert (best.id, best.row) == ("3", {"width": 3})
        assert store.search(vectors_of(3), 5)[0][0].similarity < 0.999
        assert store.count() == 5

    def test_update_of_many_rows(self, store: VectorStore) -> None:
        names = [f"{number:04}" for number in range(3000)]
        store.append(rows(names))
        store.update(pa.table({"id": names, "width": pa.array(range(3000), pa.int32())}))
        assert [row["width"] for row in fetch(store, ["width"])] == list(range(3000))

    def test_binary_values_follow_their_rows(self, store: VectorStore) -> None:
        store.append(rows(["a", "b", "c"], thumbnail=[b"1", b"2", None]))
        store.delete(["a"])
        store.append(rows(["a", "d"], thumbnail=[b"new", b"4"]))
        store.update(pa.table({"id": ["b", "c", "missing"], "thumbnail": [b"two", b"three", b"x"]}))
        store.update(pa.table({"id": ["d"], "thumbnail": pa.array([None], pa.binary()), "width": [4]}))
        expected = {"a": b"new", "b": b"two", "c": b"three", "d": None}
        for _ in range(2):
            assert {row["id"]: row["thumbnail"] for row in fetch(store, ["thumbnail"])} == expected
            assert fetch(store, ["thumbnail"], ids=["c", "missing"]) == [{"id": "c", "thumbnail": b"three"}]
            [batch] = store.scan(["thumbnail", "width"], parse("width = 4", FIELDS))
            assert batch.to_pydict() == {"thumbnail": [None], "width": [4]}
            hits = store.search(vectors_of(0), 9, columns=["thumbnail"])[0]
            assert {hit.id: hit.row["thumbnail"] for hit in hits} == expected
            store.optimize()
        store.append(rows(["missing"]))
        assert fetch(store, ["thumbnail"], ids=["missing"]) == [{"id": "missing", "thumbnail": None}]

    def test_binary_values_of_many_rows(self, store: VectorStore) -> None:
        names = [f"{number:04}" for number in range(2500)]
        values = [None if number % 7 == 0 else f"{number}".encode() for number in range(2500)]
        store.append(rows(names, thumbnail=values))
        found = [row for batch in store.scan(["id", "thumbnail"]) for row in batch.to_pylist()]
        assert {row["id"]: row["thumbnail"] for row in found} == dict(zip(names, values, strict=True))
        assert [row["thumbnail"] for row in fetch(store, ["thumbnail"], ids=names[::2])] == values[::2]

    def test_deleted_rows_are_gone_at_once(self, store: VectorStore) -> None:
        store.append(rows([f"{number}" for number in range(5)]))
        assert store.delete(["1", "3", "3", "missing"]) == 2
        assert ids_of(store) == ["0", "2", "4"]
        assert {hit.id for hit in store.search(vectors_of(1), 5)[0]} == {"0", "2", "4"}
        store.append(rows(["1"]))
        assert store.count() == 4

    def test_new_columns_start_out_null(self, store: VectorStore) -> None:
        store.append(rows(["a", "b"]))
        wanted = [pa.field("meta_stars", pa.int64()), pa.field("meta_Place name", pa.string())]
        store.add_columns(wanted)
        store.add_columns(wanted)
        assert fetch(store, ["meta_stars"]) == [
            {"id": "a", "meta_stars": None},
            {"id": "b", "meta_stars": None},
        ]
        store.update(pa.table({"id": ["b"], "meta_stars": [5], "meta_Place name": ["Ålesund"]}))
        store.append(rows(["c"]))
        fields = {"metadata.place": Field("meta_Place name", pa.string())}
        assert ids_of(store, where=parse("metadata.place = 'Ålesund'", fields)) == ["b"]
        with pytest.raises(MetadataError, match="holds int64, not string"):
            store.add_columns([pa.field("meta_stars", pa.string())])

    def test_long_names_of_columns_stay_apart(self, store: VectorStore) -> None:
        names = [f"meta_{'long_' * 11}{ending}" for ending in ("", "a", "ab", "abc", "abd")]
        names += [f"meta_{'ü' * 30}{ending}" for ending in "ab"] + ["meta_Price", "meta_price"]
        store.add_columns([pa.field(name, pa.string()) for name in names])
        store.append(rows(["a", "b"]))
        store.update(pa.table({"id": ["a"], **{name: [name] for name in names}}))
        assert fetch(store, names, ids=["a"]) == [{"id": "a", **{name: name for name in names}}]
        assert store.search(vectors_of(0), 1, columns=names)[0][0].row == {name: name for name in names}
        for name in names:
            where = parse(f"key = '{name}'", {"key": Field(name, pa.string())})
            assert ids_of(store, where=where) == ["a"]

    def test_versions_grow(self, store: VectorStore) -> None:
        seen = [store.version]
        for change in (
            lambda: store.append(rows(["a"])),
            lambda: store.update(pa.table({"id": ["a"], "width": pa.array([1], pa.int32())})),
            lambda: store.add_columns([pa.field("x", pa.int64())]),
            lambda: store.delete(["a"]),
        ):
            change()
            seen.append(store.version)
        assert seen == sorted(set(seen))
        store.search(vectors_of(1), 1)
        assert store.version == seen[-1]

    def test_no_revision_comes_twice(self, store: VectorStore, tmp_path: Path) -> None:
        other = self.make(tmp_path / "other")
        seen = [store.revision, other.revision]
        for each in (store, other):
            each.append(rows(["a"]))
            seen.append(each.revision)
            each.delete(["a"])
            seen.append(each.revision)
        assert self.reopen(tmp_path / "store").revision == store.revision == seen[3]
        assert len(set(seen)) == len(seen)

    def test_another_handle_sees_writes_at_its_next_call(self, store: VectorStore, tmp_path: Path) -> None:
        other = self.reopen(tmp_path / "store")
        for number in range(5):
            store.append(rows([f"{number}"], vectors_of(number)))
            assert other.count() == number + 1
            assert other.version == store.version
            assert other.search(vectors_of(number), 1)[0][0].id == f"{number}"
        other.add_columns([pa.field("x", pa.int64())])
        assert "x" in store.schema.names

    def test_maintenance_changes_nothing_that_can_be_read(self, store: VectorStore) -> None:
        for number in range(40):
            store.append(
                rows([f"{number:02}"], vectors_of(number), width=[number], thumbnail=[bytes([number])])
            )
        store.delete(["07"])
        store.update(pa.table({"id": ["08"], "width": pa.array([80], pa.int32())}))
        everything = ["path", "width", "thumbnail", "vector"]
        before = fetch(store, everything), store.search(vectors_of(3), 39)
        store.maintain()
        store.optimize()
        assert (fetch(store, everything), store.search(vectors_of(3), 39)) == before

    def test_against_a_dict(self, tmp_path: Path) -> None:
        numbers = iter(range(10**6))
        make = self.make

        class Machine(_AgainstDict):
            atol = self.atol

            def make(self) -> VectorStore:
                return make(tmp_path / f"machine{next(numbers)}")

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=self.n_examples,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


_KEYS = st.sampled_from([f"k{number}" for number in range(8)])


class _AgainstDict(RuleBasedStateMachine):
    """Random calls; the dict holds (width, seed of the vector) by id."""

    atol = 1e-5

    def make(self) -> VectorStore:
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        self.store = self.make()
        self.model: dict[str, tuple[int | None, int]] = {}

    @rule(keys=st.lists(_KEYS, unique=True, max_size=4), seed=st.integers(0, 99))
    def append(self, keys: list[str], seed: int) -> None:
        new = [key for key in keys if key not in self.model]
        added = {key: (seed % 5, seed + place) for place, key in enumerate(new)}
        if new:
            self.store.append(
                rows(new, vectors_of(*(s for _, s in added.values())), width=[w for w, _ in added.values()])
            )
        self.model |= added

    @rule(keys=st.lists(_KEYS, unique=True, min_size=1, max_size=4), width=st.none() | st.integers(0, 9))
    def update_widths(self, keys: list[str], width: int | None) -> None:
        self.store.update(pa.table({"id": keys, "width": pa.array([width] * len(keys), pa.int32())}))
        self.model |= {key: (width, self.model[key][1]) for key in keys if key in self.model}

    @rule(key=_KEYS, seed=st.integers(0, 99))
    def update_vector(self, key: str, seed: int) -> None:
        self.store.update(pa.table({"id": [key], "vector": vector_array(vectors_of(seed))}))
        if key in self.model:
            self.model[key] = (self.model[key][0], seed)

    @rule(keys=st.lists(_KEYS, max_size=4))
    def delete(self, keys: list[str]) -> None:
        assert self.store.delete(keys) == len(set(keys) & self.model.keys())
        self.model = {key: value for key, value in self.model.items() if key not in keys}

    @rule()
    def optimize(self) -> None:
        self.store.optimize()

    @rule(seed=st.integers(0, 99), k=st.integers(1, 9), least=st.none() | st.integers(0, 9))
    def search(self, seed: int, k: int, least: int | None) -> None:
        where = None if least is None else parse(f"width >= {least}", FIELDS)
        hits = self.store.search(vectors_of(seed), k, where=where)[0]
        matching = {
            key: float(vectors_of(s)[0] @ vectors_of(seed)[0])
            for key, (width, s) in self.model.items()
            if least is None or (width is not None and width >= least)
        }
        assert np.allclose(
            [hit.similarity for hit in hits], sorted(matching.values(), reverse=True)[:k], atol=self.atol
        )
        found = [hit.similarity for hit in hits]
        assert np.allclose(found, [matching[hit.id] for hit in hits], atol=self.atol)

    @invariant()
    def the_rows_are_those_of_the_dict(self) -> None:
        assert self.store.count() == len(self.model)
        assert {row["id"]: row["width"] for row in fetch(self.store, ["width"])} == {
            key: width for key, (width, _) in self.model.items()
        }
