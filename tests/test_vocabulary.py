"""The words of the field: spelling and vocabulary, names of modules, and names of classes."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PROSE = (SOURCE, ROOT / "docs", ROOT / "README.md", ROOT / "CONTRIBUTING.md")
# imagenet.tsv is not read: it quotes WordNet.
SUFFIXES = {".py", ".md", ".html", ".css", ".js"}

# Words, and parts of names, that the project does not use; beside each what it says instead.
AVOIDED = {
    r"pictur": "image",
    r"learnt|spelt|burnt": "learned, spelled, burned",
    r"stranger": "unknown, rejected",
    r"(?:behavi|col|endeav|fav|flav|harb|hon|hum|lab|neighb|rig|rum|vap)our": "-or",
    r"\b(?:cent|fib|lit|met)re": "-er",
    r"licence|defence|offence": "license, defense, offense",
    r"grey|artefact|catalogue|whilst": "gray, artifact, catalog, while",
    r"(?:label|level|model|signal|travel)l(?:ed|ing|er)": "one l",
    r"\banalys(?:e|ed|ing|er)\b": "analyze",
    r"[a-z]{2,}(?:is)(?:ation|e|ed|er|es|ing)(?![a-z])": "-ize",
}
# Words whose -ise is no British -ize.
_ISE = re.compile(
    r"(?:wis|vis|(?<!i)cis|pris|nois|pois|rais|guis|pr[eo]mis|\ba?ris|_ris|franchis|merchandis|expertis|advertis)"
    r"(?:e|ed|er|es|ing|ation)$",
    re.IGNORECASE,
)

# (file, text of the line, why it stays)
ALLOWED = [
    ("estimators/anomaly/detector.py", "n_pictures_seen", "a key in artifacts of earlier versions"),
    ("faces/bank.py", 'table("picture")', "a column of every bank"),
    ("faces/schema.py", '"picture"', "a column of every bank"),
    ("web/views/shop.js", "aria-labelledby", "an attribute of HTML"),
    ("store/lance/store.py", '"pictures"', "the name of the table in every collection"),
    ("models/sift_vlad/vocabulary.py", '"learnt_from"', "a key in vocabulary files"),
    ("models/sift_vlad/vocabulary.py", '"intra_normalise"', "a key in vocabulary files"),
    ("images/limits.py", '"colour"', "a decoder rule in every fingerprint"),
    ("estimators/classification/few_shot.py", '"neighbours"', "a value in artifacts of earlier versions"),
    ("estimators/classification/few_shot.py", '"centre"', "a key in artifacts"),
    ("estimators/anomaly/score_fusion.py", '"centre"', "a key in artifacts"),
    ("estimators/customer_segments.py", '"centres"', "a key in artifacts"),
    ("estimators/stored_parameters.py", "neighbour", "parameters in artifacts of earlier versions"),
    ("estimators/stored_parameters.py", "normalisation", "parameters in artifacts of earlier versions"),
    ("faces/models/registry.py", '"LICENCE*"', "a file name that others use"),
    ("faces/storage.py", '"licences"', "a key in every bank"),
    ("faces/storage.py", '"recogniser"', "a key in every bank"),
    ("models/spec.py", '"licence"', "a key in manifests of earlier versions"),
    ("analyses/recommendations.py", '"catalogue"', "a kind of artifact of earlier versions"),
]

# Nouns of the field that end in -ing.
GERUNDS = {
    "batching",
    "clustering",
    "decoding",
    "encoding",
    "grouping",
    "planning",
    "pooling",
    "scaling",
    "testing",
    "tiling",
    "training",
}


def avoided_words(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield the number, the word, what to say instead, and the line of each avoided word."""
    for pattern, instead in AVOIDED.items():
        for match in re.finditer(pattern, text, re.IGNORECASE):
            start = text.rfind("\n", 0, match.start()) + 1
            word = re.findall(r"\w*", text[start : match.end()])[-2]
            if instead == "-ize" and _ISE.search(word):
                continue
            yield text.count("\n", 0, start) + 1, word, instead, text[start:].partition("\n")[0]


def prose_files() -> Iterator[Path]:
    for place in PROSE:
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        yield from (file for file in files if file.suffix in SUFFIXES)


def gerund_modules(root: Path) -> list[str]:
    """Return the modules and packages whose last word ends in -ing and is no noun of the field."""
    names = [path.relative_to(root) for path in root.rglob("*") if path.suffix == ".py" or path.is_dir()]
    endings = {str(name): name.stem.split("_")[-1] for name in names}
    return sorted(name for name, word in endings.items() if word.endswith("ing") and word not in GERUNDS)


def repeated_classes(root: Path) -> dict[str, list[str]]:
    """Return the class names that several modules define."""
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(root.rglob("*.py"))}
    # Also in docstrings; only what seems to be there twice is worth a parse.
    named = Counter(name for text in texts.values() for name in re.findall(r"\bclass\s+(\w+)", text))
    repeated = {name for name, n in named.items() if n > 1}
    homes = defaultdict(list)
    for file, text in texts.items():
        if repeated.isdisjoint(re.findall(r"\bclass\s+(\w+)", text)):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(str(file.relative_to(root)))
    return {name: files for name, files in homes.items() if len(files) > 1}


def test_the_words_of_the_field_are_used():
    unused = list(ALLOWED)
    wrong = []
    for file in prose_files():
        for number, word, instead, line in avoided_words(file.read_text(encoding="utf-8")):
            allowed = [entry for entry in ALLOWED if file.as_posix().endswith(entry[0]) and entry[1] in line]
            unused = [entry for entry in unused if entry not in allowed]
            if not allowed:
                wrong.append(f"{file.relative_to(ROOT)}:{number}: {word} (say: {instead})")
    assert not wrong, "\n".join(wrong)
    assert not unused, f"these exceptions are no longer needed: {unused}"


@pytest.mark.parametrize(
    "text",
    [
        "Add pictures.",
        "n_pictures = 3",
        "what was learnt",
        "a stranger",
        "the colour",
        "k_neighbours",
        "the licence",
        "in grey",
        "from the centre",
        "images were labelled",
        "to normalise",
        "the quantised model",
        "an initialisation",
        "optimising it",
        "we analyse images",
        "an artefact",
    ],
)
def test_an_avoided_word_is_noticed(text):
    assert {number for number, *_ in avoided_words(f"fine\n{text}\n")} == {2}


@pytest.mark.parametrize(
    "text",
    [
        "An image that was learned; unknown people.",
        "color, neighbor, license, center, labeled, normalize, analyses, an analysis",
        "precise, otherwise, noise, raises, pairwise, supervised, a promise, exercised, wise, rising",
        "advised, cosine, this, is, his, list, dist, exist, disk, island, miser, raised, poise, praised",
    ],
)
def test_other_words_are_not(text):
    assert list(avoided_words(text)) == []


def test_modules_are_named_by_nouns():
    assert gerund_modules(SOURCE) == []


def test_a_gerund_is_noticed(tmp_path):
    (tmp_path / "keeping").mkdir()
    for name in ("keeping/outlying.py", "temperature_scaling.py", "string.py", "two_words_grouping.py"):
        (tmp_path / name).touch()
    assert gerund_modules(tmp_path) == ["keeping", "keeping/outlying.py", "string.py"]


def test_a_class_name_means_one_thing():
    assert repeated_classes(SOURCE) == {}


def test_a_class_name_that_means_two_things_is_noticed(tmp_path):
    (tmp_path / "a.py").write_text("class Item: ...\nclass Other: ...\n")
    (tmp_path / "b.py").write_text("def f():\n    class Item: ...\n")
    assert repeated_classes(tmp_path) == {"Item": ["a.py", "b.py"]}
