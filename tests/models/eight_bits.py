"""Forms with eight bits, which some processors compute too coarsely to be used."""

import platform
from collections.abc import Callable
from typing import Any

import pytest

from nearsight import processor
from nearsight.errors import ParityError


def loaded_or_skipped(load: Callable[[], Any]) -> Any:
    """Return a loaded form; skip the test where its refusal is right: x86 without VNNI saturates."""
    try:
        return load()
    except ParityError:
        sets = processor.instruction_sets()
        if platform.machine() not in ("x86_64", "AMD64") or any("vnni" in n or "amx_int8" in n for n in sets):
            raise
        pytest.skip("without VNNI, eight-bit products saturate; the form is refused, as it should be")
