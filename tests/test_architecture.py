"""The rules of the architecture; each is seen to bite. `make imports` says whether the package keeps them."""

import ast
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import nearsight

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src" / "nearsight").rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules_with(words: str) -> list[Path]:
    """Return the modules whose text has such words: only these are worth a parse."""
    return [path for path in MODULES if re.search(words, path.read_text())]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    # The copy must be found before the installed package.
    environment = {"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [*command, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


BREAKS = [
    ("images/__init__.py", "from nearsight import embedder", "Data flows one way"),
    ("anomaly/tiling.py", "import nearsight.reports", "Data flows one way"),
    (
        "estimators/anomaly/score_fusion.py",
        "import nearsight.models",
        "Estimators know neither images nor models",
    ),
    (
        "estimators/conformal/calibration.py",
        "import nearsight.models",
        "Estimators know neither images nor models",
    ),
    ("estimators/conformal/calibration.py", "import nearsight.store", "Data flows one way"),
    (
        "estimators/duplicates/estimator.py",
        "import nearsight.estimators.clustering",
        "Estimators are independent of each other",
    ),
    (
        "estimators/neighbors/search.py",
        "import nearsight.estimators.conformal.threshold",
        "Estimators are independent of each other",
    ),
    ("store/filters/parser.py", "import nearsight.models", "Models and stores never see each other"),
    ("models/registry.py", "import nearsight.store.base", "Models and stores never see each other"),
    ("collection/schema.py", "import lancedb", "LanceDB stays in store.lance"),
    ("faces/storage.py", "import nearsight.store.lance.store", "Engines stay behind the store factory"),
    ("distributed/worker.py", "import ray", "Ray stays in distributed.ray"),
    ("store/postgres/store.py", "import psycopg", "psycopg stays in store.postgres.connection"),
    ("store/milvus/store.py", "import pymilvus", "pymilvus stays in store.milvus.server"),
    ("collection/schema.py", "import nearsight.store.postgres.sql", "Engines stay behind the store factory"),
    ("store/memory/rows.py", "import usearch", "usearch and numkong stay in store.memory.accelerators"),
    ("store/lance/store.py", "import numkong", "usearch and numkong stay in store.memory.accelerators"),
    (
        "embedder/embedder.py",
        "import onnxruntime",
        "ONNX Runtime stays in models.runtimes.onnx_session and models.precision",
    ),
    (
        "models/runtimes/gpu_decode.py",
        "import nvidia",
        "nvImageCodec stays in models.runtimes.jpeg_decoders",
    ),
    ("models/sift_vlad/model.py", "import cv2", "OpenCV stays in verification.sift"),
    ("models/registry.py", "import onnx", "onnx stays in models.onnx_graph"),
    (
        "models/huggingface/folder.py",
        "import huggingface_hub",
        "huggingface_hub stays in models.huggingface.hub",
    ),
    ("models/runtimes/variants.py", "import openvino", "OpenVINO stays in models.runtimes.openvino"),
    ("models/huggingface/hub.py", "import yaml", "PyYAML stays in models.huggingface.model_card"),
    (
        "models/runtimes/placement.py",
        "import torch",
        "PyTorch stays in runtimes.torch, training and torch_products",
    ),
    (
        "training/train.py",
        "import torch",
        "PyTorch stays in runtimes.torch, training and torch_products",
    ),
    ("models/text/clip.py", "import tokenizers", "tokenizers stays in models.text.tokenizer"),
    ("models/text/clip.py", "import safetensors", "safetensors stays in models.text.minilm"),
    ("images/formats.py", "import rawpy", "rawpy stays in images.raw"),
    ("images/formats.py", "import psd_tools", "psd-tools stays in images.photoshop"),
    ("images/formats.py", "import pydicom", "pydicom stays in images.dicom"),
    ("images/formats.py", "import imagecodecs", "imagecodecs stays in images.jpeg_xl"),
    ("images/formats.py", "import tifffile", "tifffile stays in images.scientific_tiff"),
    ("images/svg.py", "import resvg_py", "resvg stays in a process of its own"),
    ("collection/schema.py", "import sqlglot", "sqlglot stays in store.filters.parser"),
    ("estimators/layout2d.py", "import umap", "umap-learn stays in estimators.umap_coordinates"),
    ("reports/gallery.py", "import plotly", "plotly stays in reports.map"),
    ("reports/gallery.py", "import jinja2", "Jinja2 stays in reports.html"),
    ("images/__init__.py", "import click", "click stays in the command line"),
    ("services/collections.py", "import click", "click stays in the command line"),
    ("services/collections.py", "import nearsight.reports.gallery", "Data flows one way"),
    ("reports/gallery.py", "import nearsight.services", "Data flows one way"),
    ("cli/commands/keys.py", "import nearsight.server.service", "Data flows one way"),
    ("server/app.py", "import nearsight.cli.console", "Data flows one way"),
    ("services/keys.py", "import fastapi", "The web framework stays in server"),
    ("server/app.py", "import opentelemetry", "OpenTelemetry stays in server.traces"),
    ("server/fetch.py", "import httpx2", "httpx2 stays in client.transport"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is told of each contract when all of `BREAKS` are made at once: one analysis takes seconds."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(ROOT / "src", folder / "src")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for module, line, _ in BREAKS:
        with (folder / "src" / "nearsight" / module).open("a") as file:
            file.write(f"\n{line}\n")
    result = lint_imports(folder)
    assert result.returncode == 1, result.stdout + result.stderr
    # Under "Broken contracts" stands the name of each, a line of dashes, and the imports, wrapped.
    parts = re.split(r"\n([^\n]+)\n-{3,}\n", result.stdout.partition("Broken contracts\n")[2])
    return {name: " ".join(told.split()) for name, told in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize(("module", "line", "contract"), BREAKS)
def test_a_broken_import_is_caught(broken: dict[str, str], module: str, line: str, contract: str) -> None:
    importer = ".".join(["nearsight", *Path(module).with_suffix("").parts]).removesuffix(".__init__")
    imported = line.removeprefix("import ").replace("from nearsight import ", "nearsight.")
    assert f"- {importer} -> {imported} (l." in broken[contract]


def test_each_contract_is_broken(broken: dict[str, str]) -> None:
    contracts = (ROOT / "pyproject.toml").read_text().partition("[[tool.importlinter.contracts]]")[2]
    assert set(broken) == set(re.findall(r'^name = "(.+)"$', contracts, re.MULTILINE))


def test_public_names_are_sorted_complete_and_real() -> None:
    assert nearsight.__all__ == sorted(nearsight.__all__)
    assert set(nearsight._HOMES) == set(nearsight.__all__)
    for name in nearsight.__all__:
        assert getattr(nearsight, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="Colection"):
        nearsight.Colection  # noqa: B018 - the access is the test


def test_only_text_format_writes_cells_of_tables() -> None:
    writers = {path.name for path in MODULES if re.search(r"csv\.(Dict)?[wW]riter", path.read_text())}
    assert writers == {"text_format.py"}


def test_only_settings_reads_the_environment() -> None:
    readers = {
        path.relative_to(ROOT / "src" / "nearsight").as_posix()
        for path in modules_with("environ|getenv")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }
    # The reports of ONNX Runtime, the log levels of LanceDB and nvImageCodec, Ray's token and its directory
    # can be set in no other way; that is a write. Workers inherit the environment.
    writers = {"__init__.py", "store/lance/engine.py", "distributed/ray_cluster.py"}
    writers.add("models/runtimes/jpeg_decoders.py")
    assert readers <= {"settings.py", "processor.py", "parallel/processes.py", *writers}


def private_reads(source: str) -> set[str]:
    """Return the private attributes that are read from an argument or a variable that holds a collection."""
    reads: set[str] = set()
    module = ast.parse(source)
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    for scope in (module, *functions):
        names = {"collection", "self.collection", "self._collection", "run.collection"}
        if isinstance(scope, ast.FunctionDef):
            arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
            names |= {
                arg.arg
                for arg in arguments
                if arg.annotation and re.search(r"\bCollection\b", ast.unparse(arg.annotation))
            }
        names |= {
            ast.unparse(target)
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and re.match(r"Collection\b", ast.unparse(node.value))
            for target in node.targets
        }
        reads |= {
            ast.unparse(node)
            for node in ast.walk(scope)
            if isinstance(node, ast.Attribute)
            and re.match(r"_[^_]", node.attr)
            and ast.unparse(node.value) in names
        }
    return reads


@pytest.mark.parametrize(
    "source",
    [
        "def f(view: Collection): return view._store",
        "def f(view: 'Collection | None'): return view._lock",
        "c = Collection.open('x')\nc._writer()",
        "class A:\n    def f(self): return self._collection._manifest",
    ],
)
def test_a_read_of_a_private_attribute_is_caught(source: str) -> None:
    assert len(private_reads(source)) == 1


@pytest.mark.slow
def test_nobody_outside_collection_reads_its_private_attributes() -> None:
    package = ROOT / "src" / "nearsight"
    others = [path for path in modules_with(r"\._[a-z]") if path.parent != package / "collection"]
    reads = {path.relative_to(package).as_posix(): private_reads(path.read_text()) for path in others}
    assert {path: names for path, names in reads.items() if names} == {}


def test_no_module_has_more_than_500_lines() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in MODULES}
    assert max(lengths.values()) <= 500, lengths


def test_no_assert_guards_user_input() -> None:
    guilty = [
        path
        for path in modules_with("assert")
        # The conformance suites are tests.
        if path.parent.name != "testing"
        and any(isinstance(node, ast.Assert) for node in ast.walk(tree(path)))
    ]
    assert guilty == []
