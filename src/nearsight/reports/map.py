"""The page of `nearsight map`: one file with plotly's own script and all that it draws."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight.errors import MissingExtraError
from nearsight.reports import gallery
from nearsight.text_format import count, plain, printable

if TYPE_CHECKING:
    from nearsight.analyses.map import Map
    from nearsight.collection import Collection

# Thumbnails cost about 2 kB each; of more images, as many at equal steps have one.
MOST_THUMBNAILS = 5_000
_THUMBNAIL_PX = 72
_AT_ONCE = 500

# plotly's WebGL drawing makes functions out of text; nothing may be fetched or sent all the same.
_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    " 'unsafe-eval'; base-uri 'none'; form-action 'none'"
)


def write_map(
    file: Path,
    collection: "Collection",
    found: "Map",
    paths: Sequence[str],
    keys: Mapping[str, Sequence[Any]],
    *,
    color: str | None = None,
) -> None:
    """Write an interactive map.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        Where the thumbnails are.
    found : Map
    paths : sequence of str, length n
    keys : mapping of str to sequence, each of length n
        What the points may be colored by; None where an image has none.
    color : str, optional
        The key to begin with.

    Raises
    ------
    MissingExtraError
        plotly is not installed.
    """
    script = _plotly()
    step = max(1, -(-len(found.ids) // MOST_THUMBNAILS))
    images: list[str | None] = [None] * len(found.ids)
    chosen = range(0, len(found.ids), step)
    for start in range(0, len(chosen), _AT_ONCE):
        rows = chosen[start : start + _AT_ONCE]
        thumbnails = collection.thumbnails([found.ids[row] for row in rows])
        for row in rows:
            if (image := thumbnails.get(found.ids[row])) is not None:
                small = gallery.shrunk(image, _THUMBNAIL_PX)
                images[row] = base64.b64encode(small).decode("ascii")
    data = {
        "ids": found.ids,
        "x": [round(float(x), 4) for x in found.places[:, 0]],
        "y": [round(float(y), 4) for y in found.places[:, 1]],
        "names": [printable(path) or id for id, path in zip(found.ids, paths, strict=True)],
        "keys": {key: [_shown(value) for value in values] for key, values in keys.items()},
        "images": images,
    }
    facts = {
        "Method": {"umap": "UMAP", "pca": "PCA"}[found.method],
        "Trustworthiness": "–" if found.trustworthiness is None else f"{found.trustworthiness:.3f}",
        **({"Placed later": f"{int(found.placed.sum()):,}"} if found.placed.any() else {}),
        "Model": collection.spec.id,
        "Collection": str(collection.directory),
    }
    notes = [
        "Near is alike; distances across the map, and its axes, mean nothing. Trustworthiness: 1 where every"
        " neighbor on the map is one in truth, .5 by chance; UMAP of photographs reaches .9.",
        "Images placed later moved nothing that was there.",
    ]
    if step > 1:
        notes.append(f"One image in {step} has a thumbnail on this page; the others have their name.")
    gallery.write(file, _html(data, script, facts, notes, color))


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError(
            "the page of a map needs plotly: pip install 'nearsight[map]'; or write a table: --out x.parquet"
        ) from error
    return str(get_plotlyjs())


def _html(
    data: Mapping[str, Any], script: str, facts: Mapping[str, str], notes: Sequence[str], color: str | None
) -> str:
    here = files("nearsight.reports")
    own = here.joinpath("map.js").read_text(encoding="utf-8")
    css = files("nearsight.reports").joinpath("gallery.css").read_text(encoding="utf-8")
    css += here.joinpath("map.css").read_text(encoding="utf-8")
    # "<" would end the element that holds it, whatever a file is called.
    embedded = json.dumps(plain(data), separators=(",", ":")).replace("<", "\\u003c")
    figures = "".join(f"<div><dt>{escape(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items())
    options = "".join(_option(key, key == color) for key in data["keys"])
    title = f"Map of {count(len(data['ids']), 'image')}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
{css}</style>
<script>{script}</script>
</head>
<body>
<div class=wrap>
<header><div class="brand">{gallery.EYE}<span>nearsight</span></div>
<h1>{title}</h1>
<p class="lead">Point at an image, or tap it, to see it. Draw around some for their ids; scroll to zoom.</p>
<dl class="facts">{figures}</dl></header>
<main class="map">
<div class="stage"><div id="plot" role="img" aria-label="{title}, near is alike"></div></div>
<aside>
<div class="panel"><label for="color">Color by</label>
<select id="color"><option value="">nothing</option>{options}</select></div>
<div class="panel"><div class="look" id="look">Point at the map, or tap it</div>
<span class="name" id="name"></span><span class="folder" id="id"></span>
<dl class="meta" id="facts"></dl></div>
<div class="panel"><h2 id="count" aria-live="polite">Nothing selected</h2>
<p class="hint">Lasso: drag around images. Double-click: nothing again.</p>
<div class="picked" id="picked"></div>
<label for="ids">Their ids</label><textarea id="ids" readonly spellcheck="false"></textarea>
<button id="copy" type="button" disabled>Copy the ids</button></div>
</aside>
</main>
<footer>{"".join(f"<p>{_text(note)}</p>" for note in notes)}</footer>
</div>
<script type="application/json" id="data">{embedded}</script>
<script>{own}</script>
</body>
</html>
"""


def _option(key: str, chosen: bool) -> str:
    return f'<option value="{_text(key)}"{" selected" if chosen else ""}>{_text(key)}</option>'


def _text(text: str) -> str:
    return escape(printable(text), quote=True)


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value
