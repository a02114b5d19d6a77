"""Names of clusters, with an encoder whose words are known directions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.analyses.cluster_names import ClusterName, names_from_words, unique_names
from nearsight.models import ModelSpec
from nearsight.models.text.vocabulary import Word

from fake import FakeBackend

VOCABULARY = [
    *(Word(kind, ("bird", "animal")) for kind in ("robin", "heron", "owl", "finch")),
    *(Word(kind, ("dog", "animal")) for kind in ("poodle", "beagle")),
    *(Word(kind, ("fruit", "food")) for kind in ("lemon", "fig")),
    Word("clock"),
]


@dataclass
class Encoder:
    """Each word is an axis; an image is near the axis of what it shows."""

    prompt: str = "a {}"
    sharpness: float = 12.0
    texts: list[str] = field(default_factory=list)
    spec: ModelSpec = field(default_factory=lambda: FakeBackend().spec)

    def embed(self, texts: list[str]) -> np.ndarray:
        self.texts += texts
        words = [word.text for word in VOCABULARY]
        return np.eye(len(words), dtype=np.float32)[[words.index(text.removeprefix("a ")) for text in texts]]

    def logits(self, X: np.ndarray, queries: np.ndarray) -> np.ndarray:
        return self.sharpness * X @ queries.T


def images(*shown: str) -> np.ndarray:
    words = [word.text for word in VOCABULARY]
    return np.eye(len(words), dtype=np.float32)[[words.index(word) for word in shown]]


def names(*clusters: tuple[str, ...], **options: Any) -> list[str | None]:
    X = np.concatenate([images(*cluster) for cluster in clusters])
    labels = np.repeat(range(len(clusters)), [len(cluster) for cluster in clusters])
    return [name.name for name in names_from_words(Encoder(**options), X, labels, VOCABULARY)]


def test_many_kinds_are_their_category_and_one_kind_is_itself() -> None:
    birds, lemons, clocks = ("robin", "heron", "owl", "finch"), ("lemon",) * 4, ("clock",) * 4
    assert names(birds, lemons, clocks) == ["bird", "lemon", "clock"]
    # Among birds only, kinds set clusters apart.
    assert names(("robin",) * 4, ("owl",) * 4) == ["robin", "owl"]


def test_a_mixed_cluster_is_named_after_its_categories_the_most_frequent_first() -> None:
    mixed = ("robin", "heron", "owl", "finch", "robin", "lemon", "fig", "lemon", "fig", "fig")
    dogs = ("poodle", "beagle") * 5
    assert names(mixed, dogs, ("clock",) * 10) == ["mixed: fruit, bird", "dog", "clock"]
    assert names((*mixed, "owl"), dogs, ("clock",) * 10)[0] == "mixed: bird, fruit"
    # Six tenths of one category are enough for its name.
    mostly = ("robin", "heron", "owl", "finch", "robin", "owl", "heron", "fig", "lemon", "fig")
    assert names(mostly, dogs, ("clock",) * 10)[0] == "bird"


def test_a_mixed_cluster_is_never_a_single_noun() -> None:
    clocks = ("clock",) * 12
    # Six tenths are lemons: enough for a name by the probabilities, but a whole part of the vectors is not.
    assert names(("lemon",) * 6 + ("robin",) * 4, clocks) == ["mixed: lemon, robin", "clock"]
    # What sets no part apart is no name of it: clocks are everywhere.
    assert names(("lemon",) * 6 + ("clock",) * 4, ("clock",) * 40) == ["mixed: lemon, others", "clock"]
    # A tenth that is something else makes no mixture.
    assert names(("lemon",) * 9 + ("robin",), clocks) == ["lemon", "clock"]


def test_a_name_that_is_hardly_distinctive_is_perhaps_right() -> None:
    sure, unsure = (names(("lemon",) * 4, ("clock",) * 4, sharpness=sharpness) for sharpness in (12.0, 1.5))
    assert sure == ["lemon", "clock"]
    assert unsure == ["perhaps fruit", "perhaps clock"]


def test_words_are_embedded_once_for_all_runs(tmp_path: Path) -> None:
    X, labels = images("lemon", "lemon", "clock", "clock"), np.array([0, 0, 1, 1])
    runs = []
    for _ in range(2):
        encoder = Encoder()
        found = names_from_words(encoder, X, labels, VOCABULARY, is_cached=True, cache_dir=tmp_path)
        runs.append(([name.name for name in found], len(encoder.texts)))
    assert runs == [(["lemon", "clock"], len(VOCABULARY) + 2), (["lemon", "clock"], 2)]


def test_without_images_or_differences_there_is_no_name() -> None:
    assert names((), ("clock",)) == [None, "clock"]
    X = np.zeros((4, len(VOCABULARY)), np.float32)
    assert [n.name for n in names_from_words(Encoder(), X, np.array([0, 0, 1, 1]), VOCABULARY)] == [
        None,
        None,
    ]


def test_two_mixed_clusters_of_the_same_words_are_told_apart() -> None:
    mixed = [ClusterName(["lemon", word], "mixed: lemon, others") for word in ("fig", "clock")]
    alike = [ClusterName(["lemon", "robin", word], "mixed: lemon, robin") for word in ("fig", "clock")]
    assert [name.name for name in unique_names([*mixed, *alike])] == [
        "mixed: lemon, fig, others",
        "mixed: lemon, clock, others",
        "mixed: lemon, robin, fig",
        "mixed: lemon, robin, clock",
    ]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.lists(st.sampled_from("abc"), max_size=3))))
def test_no_two_clusters_have_the_same_name(given_names: list[tuple[str | None, list[str]]]) -> None:
    result = unique_names([ClusterName(words, name) for name, words in given_names])
    texts = [name.name for name in result if name.name is not None]
    assert len(set(texts)) == len(texts)
    assert [name.name is None for name in result] == [name is None for name, _ in given_names]


@pytest.mark.parametrize("n_images", [1, 250])
def test_few_and_many_images(n_images: int) -> None:
    assert names(("lemon",) * n_images, ("clock",) * 3) == ["lemon", "clock"]
