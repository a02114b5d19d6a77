"""The default vocabulary: words for what images show, and the categories that each belongs to."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its categories, such as "daisy" with "flower" and "plant".

    Attributes
    ----------
    text : str
    categories : tuple of str
        The most specific first; empty where the word belongs to none.
    """

    text: str
    categories: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def default_vocabulary() -> list[Word]:
    """Return the classes of ImageNet-1k, frequent nouns, and words for people, places, events and documents.

    Categories are hypernyms of WordNet that people use; see ``data/categories.tsv``.

    Examples
    --------
    >>> words = {word.text: word for word in default_vocabulary()}
    >>> words["daisy"].categories
    ('flower', 'plant')
    >>> words["wedding"].categories
    ('event',)
    """
    text = files("nearsight.models.text").joinpath("data/categories.tsv").read_text(encoding="utf-8")
    lines = (line.partition("\t") for line in text.splitlines() if not line.startswith("#"))
    return [Word(word, tuple(c for c in categories.split(", ") if c)) for word, _, categories in lines]
