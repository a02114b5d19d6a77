"""The page's modules and sheets name what is there, and hold nothing that nobody uses: no build step says so."""

import re
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "src" / "nearsight" / "web"
MODULES = sorted(path for path in WEB.rglob("*.js") if path.parent.name != "vendor")
SHEETS = sorted(WEB.rglob("*.css"))
_IMPORT = re.compile(r'^(import|export) \{([^}]*)\} from "([^"]+)";$', re.M)
# The stars of "image/*" open none.
_COMMENT = re.compile(r"(?<!\w)/\*.*?\*/|(?<![:\"'])//[^\n]*", re.S)


def names(listed):
    """Pairs of a name as it is exported and as it is called here."""
    pairs = (each.strip().split(" as ") for each in listed.split(",") if each.strip())
    return [(pair[0], pair[-1]) for pair in pairs]


def exported(path):
    text = path.read_text(encoding="utf-8")
    own = re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", text, re.M)
    listed = [m.group(1) for m in re.finditer(r"export ?\{([^}]*)\}", text)]
    return {*own, *(name for each in listed for _, name in names(each))}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_what_a_module_imports_is_there_and_used(path):
    text = path.read_text(encoding="utf-8")
    code = re.sub(r'"[^"\n]*"', '""', _COMMENT.sub("", text))
    for way, listed, place in _IMPORT.findall(text):
        there = exported((path.parent / place).resolve())
        for name, here in names(listed):
            assert name in there, f"{place} does not export {name}"
            is_used = len(re.findall(rf"\b{here}\b", code)) > 1
            assert way == "export" or is_used, f"{here} is imported and not used"


def test_what_is_exported_is_used_elsewhere():
    code = {path: path.read_text(encoding="utf-8") for path in MODULES}
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for path in MODULES:
        others = tests + "".join(text for other, text in code.items() if other != path)
        unused = [name for name in exported(path) if not re.search(rf"\b{name}\b", others)]
        assert unused == [], path.name


def test_every_selector_names_what_a_module_makes():
    code = "".join(path.read_text(encoding="utf-8") for path in [*MODULES, WEB / "index.html"])
    words = set(re.findall(r"[A-Za-z][\w-]*", code))
    unused = []
    for path in SHEETS:
        rules = _COMMENT.sub("", path.read_text(encoding="utf-8"))
        for selector in re.findall(r"([^{}]+)\{", rules):
            if not selector.strip().startswith("@"):
                unused += [
                    name for name in re.findall(r"[.#]([A-Za-z][\w-]*)", selector) if name not in words
                ]
    assert unused == []
