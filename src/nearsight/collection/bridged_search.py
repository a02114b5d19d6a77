"""Searches by the new model while an upgrade is under way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight import images
from nearsight.collection import bridge, manifest, schema
from nearsight.collection.collection import Collection
from nearsight.collection.results import Match
from nearsight.collection.search import embed_with
from nearsight.collection.shadow_rows import ShadowRows, vectors_by_id
from nearsight.collection.upgrade_state import UpgradeState
from nearsight.embedder import Embedder
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, NearsightError, StorageError
from nearsight.models import Backend
from nearsight.parameters import require_whole
from nearsight.store import Filter


@dataclass(frozen=True)
class BridgedResult:
    """Matches by a model that the collection is being moved to.

    Attributes
    ----------
    matches : list of Match
        The most similar by the new model first, of those that were compared.
    estimated : list of str
        Ids among these whose similarity is an estimate, because the file is gone.
    n_embedded : int
        Images that this search embedded; they need not be embedded again.
    share : float
        Of the collection's images that have a vector of the new model now, 0..1.
    recall, low, high : float
        Expected share of the new model's ten nearest images that the search finds, with its 95 % interval.
    """

    matches: list[Match]
    estimated: list[str]
    n_embedded: int
    share: float
    recall: float
    low: float
    high: float


class BridgedSearch:
    """Searches a collection by the model that an upgrade moves it to, before all images have its vectors.

    *Method*: a ridge regression from old to new vectors, and to a lesser part the old model itself, propose
    100 images (`Bridge`). Those among them without a vector of the new model are embedded now, and all that
    have one are compared. The new vectors stay, so the collection moves where it is used first. Searches by
    the old model go on as before.

    Parameters
    ----------
    collection : Collection
        Opened with the old model.
    backend : Backend
        The new model.

    Raises
    ------
    FingerprintMismatchError
        No upgrade to this model is under way.
    InvalidParameterError
        Its sample is too small yet.
    """

    def __init__(self, collection: Collection, backend: Backend) -> None:
        location = collection.location
        state = UpgradeState.read(location)
        facts = manifest.CollectionManifest.read(location)
        digest = backend.spec.fingerprint.digest
        is_over = state is None or state.phase == "switched" or state.deleting
        if state is None or is_over or state.fingerprint != digest:
            raise FingerprintMismatchError(
                f"{location.uri} holds vectors of {facts.spec.id}, and no upgrade to {backend.spec.id} is"
                f" under way; nearsight upgrade --to {backend.spec.id} --dry-run begins one"
            )
        self._collection, self._backend = collection, backend
        self._rows = ShadowRows(location, facts, state.store, backend, collection.cache_dir)
        fingerprints = (facts.fingerprint.digest, digest)
        self._bridge = bridge.current_bridge(self._rows, fingerprints)

    def search(
        self,
        query: Any = None,
        *,
        id: str | Sequence[str] | None = None,
        k: int = 10,
        where: str | Filter | None = None,
        exact: bool = False,
        allow_remote: bool = False,
    ) -> BridgedResult:
        """Return the `k` most similar images; see `Collection.search` for parameters and errors."""
        ids = [self._collection.get(name).id for name in _as_list(id)]
        queries = _as_list(query)
        if not queries and not ids:
            raise InvalidParameterError("name what to search for: an image, or the id of one")
        require_whole("k", k)
        condition = self._collection.condition(where)
        embedder = Embedder(self._backend, cache_dir=self._collection.cache_dir, progress=False)
        vectors = [embed_with(embedder, image, allow_remote=allow_remote) for image in queries]
        vectors += self._stored(ids)
        vector = np.mean([v / np.linalg.norm(v) for v in vectors], axis=0).astype(np.float32)
        old = self._old_vector(queries, ids, allow_remote)
        return self._nearest(vector, old, ids, k, condition, exact)

    def _nearest(
        self,
        vector: NDArray[np.float32],
        old_vector: NDArray[np.float32] | None,
        left_out: list[str],
        k: int,
        condition: Filter | None,
        exact: bool,
    ) -> BridgedResult:
        rows, n_wanted = self._rows, k + len(left_out)
        proposed = self._bridge.propose(
            rows.old, vector, old_vector, n=max(bridge.N_PROPOSED, 2 * k), where=condition, exact=exact
        )
        there = vectors_by_id(rows.new, list(proposed))
        embedded = self._embed([id for id in proposed if id not in there])
        known = {id: _cosine(v, vector) for id, v in (there | embedded).items()}
        estimates = {id: similarity for id, similarity in proposed.items() if id not in known}
        known |= self._migrated(vector, n_wanted, condition, exact)
        found = known | estimates
        best = sorted((id for id in found if id not in left_out), key=lambda id: (-found[id], id))[:k]
        marked = self._marked(best)
        share = min(1.0, rows.new.count() / max(1, rows.old.count()))
        b = self._bridge
        recall, low, high = (share + (1 - share) * value for value in (b.recall, b.low, b.high))
        return BridgedResult(
            self._matches(best, found),
            [id for id in best if id in estimates or id in marked],
            len(embedded),
            share,
            recall,
            low,
            high,
        )

    def _old_vector(
        self, queries: Sequence[Any], ids: Sequence[str], allow_remote: bool
    ) -> NDArray[np.float32] | None:
        """Return the old model's vector of the query; None where that model is no longer there."""
        vectors = list(self._collection.vectors(ids)) if ids else []
        try:
            embedder = self._collection.embedder(progress=False) if queries else None
        except NearsightError:
            return None
        if embedder is not None:
            vectors += [embed_with(embedder, image, allow_remote=allow_remote) for image in queries]
        return np.asarray(np.mean([v / np.linalg.norm(v) for v in vectors], axis=0), np.float32)

    def _embed(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return new vectors of images, and keep them where that is possible."""
        vectors: dict[str, NDArray[np.float32]] = {}
        for rows, found in self._rows.embed(ids):
            vectors |= found
            try:
                self._rows.keep(rows, found)
            except (StorageError, FingerprintMismatchError, OSError):
                # The upgrade was ended meanwhile, or the disk refuses: the answer is right all the same.
                continue
        return vectors

    def _stored(self, ids: Sequence[str]) -> list[NDArray[np.float32]]:
        vectors = vectors_by_id(self._rows.new, ids) if ids else {}
        vectors |= self._embed([id for id in ids if id not in vectors])
        if lacking := [id for id in ids if id not in vectors]:
            estimates = self._bridge.map.transform(self._collection.vectors(lacking))
            vectors |= dict(zip(lacking, estimates, strict=True))
        return [vectors[id] for id in ids]

    def _migrated(
        self, vector: NDArray[np.float32], n: int, condition: Filter | None, exact: bool
    ) -> dict[str, float]:
        """Return the nearest of the images that have new vectors, and that the collection still has.

        Filters are asked of the old rows: metadata may have changed since a row was copied.
        """
        n_asked, n_rows = n, self._rows.new.count()
        while n_rows:
            [hits] = self._rows.new.search(vector[None], n_asked, exact=exact)
            ids = [hit.id for hit in hits]
            batches = self._rows.old.scan(["id"], condition, ids=ids)
            valid = {id for batch in batches for id in batch.column("id").to_pylist()}
            if len(valid) >= n or n_asked >= n_rows:
                return {hit.id: hit.similarity for hit in hits if hit.id in valid}
            n_asked = min(4 * n_asked, n_rows)
        return {}

    def _marked(self, ids: Sequence[str]) -> set[str]:
        """Return those whose new row holds an estimate."""
        mark = schema.PREFIX + schema.ESTIMATED_KEY
        if mark not in self._rows.new.schema.names:
            return set()
        batches = self._rows.new.scan(["id", mark], ids=ids)
        return {row["id"] for batch in batches for row in batch.to_pylist() if row[mark]}

    def _matches(self, ids: Sequence[str], similarities: dict[str, float]) -> list[Match]:
        columns = ["id", "path", *schema.metadata_columns(self._rows.old.schema)]
        found = {
            row["id"]: row for batch in self._rows.old.scan(columns, ids=ids) for row in batch.to_pylist()
        }
        # Another process may have removed a row meanwhile.
        return [
            Match(id, images.decode_path(found[id]["path"]), similarities[id], schema.metadata_of(found[id]))
            for id in ids
            if id in found
        ]


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
