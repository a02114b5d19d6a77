"""SVG: drawn at a fixed size, in a process of its own.

resvg draws them; it is imported here only, in the process that is started. A small document can ask for any
amount of time and memory, and the library then ends its process: that must not be ours. Files and addresses
that a document refers to are not read.
"""

import re
import subprocess
import sys
import time
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from nearsight.images.limits import Limits
from nearsight.images.optional_formats import missing
from nearsight.images.strict_decoding import DamagedError, DecodingError

SIDE_PX: Final = 512
"""The longer side of the drawing, in pixels: SVG has no size of its own that means pixels."""

_MAX_MEMORY_BYTES = 4 << 30
_HEAD_BYTES = 4096
_STARTS = (b"<svg", b"<?xml", b"<!--", b"<!DOCTYPE svg")
_GZIP = b"\x1f\x8b"
# What is loaded from elsewhere; data URLs lie in the document itself.
_EXTERNAL = re.compile(
    r"(<(?:\w+:)?(?:image|feImage)\b[^>]*?href\s*=\s*)(\"(?!\s*(?:data:|#))[^\"]*\"|'(?!\s*(?:data:|#))[^']*')",
    re.IGNORECASE,
)
_DRAW = f"""
import sys
sys.path.insert(0, sys.argv[1])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({_MAX_MEMORY_BYTES}, {_MAX_MEMORY_BYTES}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, OSError, ValueError):
    pass
import resvg_py
text = sys.stdin.buffer.read().decode("utf-8", "replace")
try:
    png = resvg_py.svg_to_bytes(svg_string=text, width={SIDE_PX}, height={SIDE_PX})
except ValueError as error:
    sys.exit(f"{{error}}")
sys.stdout.buffer.write(bytes(png))
"""


def is_svg(data: bytes) -> bool:
    """Return whether the bytes are an SVG, compressed or not."""
    head = data[:_HEAD_BYTES]
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, _HEAD_BYTES)
        except zlib.error:
            return False
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(_STARTS) and re.search(rb"<(\w+:)?svg\b", head) is not None


def read_svg(data: bytes, deadline: float, limits: Limits) -> bytes:
    """Return a drawing of the document, of mode RGBA, as PNG."""
    package = find_spec("resvg_py")
    if package is None or package.origin is None:
        raise missing("an SVG")
    text = _EXTERNAL.sub(r'\1""', _text(data, limits))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _DRAW, str(Path(package.origin).parent.parent)],
            input=text.encode(),
            capture_output=True,
            timeout=max(0.1, deadline - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        raise DecodingError("takes too long to draw; raise Limits.max_seconds to wait longer") from None
    if done.returncode == 1 and done.stderr:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1]
        raise DamagedError(f"the SVG cannot be drawn: {reason}")
    if done.returncode:
        raise DecodingError("the SVG needs more memory to draw than is allowed; convert it to PNG")
    return done.stdout


def _text(data: bytes, limits: Limits) -> str:
    if data.startswith(_GZIP):
        inflater = zlib.decompressobj(31)
        try:
            data = inflater.decompress(data, limits.max_bytes)
        except zlib.error as error:
            raise DamagedError(f"the compressed SVG is damaged ({error})") from None
        if inflater.unconsumed_tail:
            raise DecodingError("is larger than Limits.max_bytes when it is unpacked")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
