"""The site: warnings are errors, and the architecture page says what the contracts say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_architecture_page_lists_the_layers_of_the_contract():
    contract = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("layers = [")[2].partition("]")[0]
    )
    layers = [line.replace("nearsight.", "") for line in re.findall(r'"(.*)"', contract)]
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    block = page.partition("## Layers")[2].split("```")[1].strip().splitlines()
    assert block == [layer for layer in layers if layer != "_version"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "pages",
    [
        {
            "limits.md": "[a page](no-such-page.md) [a heading](#no-such-heading)",
            "no-entry.md": "A page that the navigation lacks.",
        },
        # It ends the build at once.
        {"reference/store.md": "::: nearsight.store.no_such_name"},
    ],
)
def test_every_warning_stops_the_build(tmp_path, pages):
    """With the settings of the site, and of its pages only those with faults: `make docs` builds all."""
    pytest.importorskip("mkdocs", reason="needs the dependency group docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src", target_is_directory=True)
    for page, text in pages.items():
        (tmp_path / "docs" / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / page).write_text(f"# A title\n\n{text}\n", encoding="utf-8")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert build.returncode != 0
    # Each is told as what stops a strict build.
    lines = re.split(r"\n(?=[A-Z]+ +- )", build.stdout + build.stderr)
    told = [line for line in lines if line.startswith(("WARNING", "ERROR"))]
    said = [
        *re.findall(r"no[-_][a-z_-]+", " ".join(pages.values())),
        *(page for page in pages if "no-" in page),
    ]
    assert said
    assert [name for name in said if name not in "\n".join(told)] == []
