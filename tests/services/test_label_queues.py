"""Two people never label the same image at once, and a plan answers where choosing takes long."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nearsight import Collection
from nearsight.analyses import label_queue
from nearsight.analyses.labeled_images import labels_by_key
from nearsight.errors import InvalidParameterError
from nearsight.services import label_queues
from nearsight.services.label_queues import LabelQueue

from fake import FakeBackend


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def collection(tmp_path):
    """Eighty vectors of two classes; their ids are hashes."""
    collection = Collection.create(tmp_path / "c", model=FakeBackend())
    rng = np.random.default_rng(0)
    X = np.eye(2, collection.spec.dim)[np.arange(80) % 2] + 0.1 * rng.normal(size=(80, collection.spec.dim))
    ids = [hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest() for n in range(80)]
    collection.add_vectors(X.astype(np.float32), ids=ids, fingerprint=collection.fingerprint)
    return collection


@pytest.fixture(params=["chosen", "planned"])
def large(request, monkeypatch):
    """Small collections choose anew for each request, large ones follow a plan; who gets what is the same."""
    if request.param == "planned":
        monkeypatch.setattr(label_queues, "_MAX_CHOSEN_ANEW", 10)


def ids_of(turn):
    return [image.prediction.id for image in turn.images]


def test_an_image_is_one_persons_until_the_time_is_over(collection, large):
    clock = Clock()
    queue = LabelQueue(collection, clock=clock)
    ann = ids_of(queue.next(8, labeler="ann", lease_s=60))
    bob = queue.next(8, labeler="bob", lease_s=90)
    assert not set(ann) & set(ids_of(bob))
    assert bob.n_leased == 8
    assert not {*ann, *ids_of(bob)} & set(ids_of(queue.next(8)))
    # Another process sees it.
    again = LabelQueue(Collection.open(collection.directory, model=FakeBackend()), clock=clock)
    ann = ids_of(again.next(8, labeler="ann", lease_s=60))
    assert not set(ann) & set(ids_of(bob))
    # What is not shown any more is free, but for what is still held.
    first, second = ann[:2]
    skipped = set(ann)
    others = ids_of(queue.next(8, labeler="ann", lease_s=60, skipped=skipped, held=[first]))
    assert not set(others) & {*ann, *ids_of(bob)}
    cy = ids_of(queue.next(40, labeler="cy", lease_s=10))
    assert second in cy
    assert first not in cy
    clock.now += 61
    assert {first, *others} <= set(ids_of(queue.next(80 - 8, labeler="cy")))
    clock.now += 1000
    assert len(queue.next(200, labeler="dee").images) == 80
    # A file that is damaged holds nobody up.
    (collection.directory / "labels" / "label" / "leases.json").write_text("[")
    assert len(queue.next(200, labeler="ann").images) == 80
    with pytest.raises(InvalidParameterError, match="lease_s above 0"):
        queue.next(1, labeler="ann", lease_s=0)


def test_people_who_ask_at_once_get_different_images(collection, large):
    def ask(number):
        queue = LabelQueue(Collection.open(collection.directory, model=FakeBackend()))
        return ids_of(queue.next(6, labeler=f"person {number}"))

    with ThreadPoolExecutor(8) as pool:
        given = [id for ids in pool.map(ask, range(8)) for id in ids]
    assert len(given) == len(set(given)) == 48


def test_a_plan_answers_until_it_is_used_up(collection, monkeypatch):
    monkeypatch.setattr(label_queues, "_MAX_CHOSEN_ANEW", 10)
    monkeypatch.setattr(label_queues, "_N_PLANNED", 24)
    chosen = []
    choose = label_queue.next_images
    monkeypatch.setattr(
        label_queue, "next_images", lambda *args, **options: chosen.append(1) or choose(*args, **options)
    )
    expected = [image.prediction.id for image in choose(collection, n=24)]
    queue = LabelQueue(collection)
    turn = queue.next(6)
    assert (ids_of(turn), turn.is_stale, len(chosen)) == (expected[:6], False, 1)
    assert [image.is_check for image in turn.images] == [
        label_queue.is_check_image(id) for id in expected[:6]
    ]
    for number, image in enumerate(ids_of(turn)):
        collection.update_metadata([image], {"label": f"class {number % 2}"})
    turn = queue.next(6, skipped={expected[6]})
    assert (ids_of(turn), turn.is_stale, len(chosen)) == (expected[7:13], False, 1)
    # A new classifier: the plan answers with its predictions, and is made anew by who has time.
    collection.fit_classifier(labels_by_key(collection, "label"), progress=False)
    turn = queue.next(6)
    assert (ids_of(turn), turn.is_stale, len(chosen)) == (expected[6:12], True, 1)
    assert {image.prediction.label for image in turn.images} <= {"class 0", "class 1"}
    queue.plan()
    assert not queue.next(6).is_stale
    assert len(chosen) == 2
    # Where the plan is too short for what is asked, images are chosen on the spot.
    assert len(queue.next(60).images) == 60
    assert len(chosen) == 3
