"""The report of `nearsight map`: an interactive scatter plot, with plotly's script in the file."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nearsight.analyses.map import ImageMap
from nearsight.collection import Collection
from nearsight.errors import MissingExtraError
from nearsight.reports.html import policy_hash, render, smaller_jpeg, template_source, write_html
from nearsight.reports.titles import titles_of
from nearsight.text_format import count, plain, printable

# A thumbnail takes about 2 kB. Of more images, evenly spaced ones have a thumbnail.
_MAX_THUMBNAILS = 5_000
_THUMBNAIL_PX = 72
_THUMBNAILS_AT_ONCE = 500

# Fields of EXIF with nearly as many values as images.
_NO_COLORS = frozenset({"taken", "place"})

_METHODS = {"umap": "UMAP", "pca": "PCA"}


def write_map(
    file: Path,
    collection: Collection,
    image_map: ImageMap,
    paths: Sequence[str],
    keys: Mapping[str, Sequence[Any]],
    *,
    color: str | None = None,
    exif: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write an interactive map.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    image_map : ImageMap
    paths : sequence of str, length n
    keys : mapping of str to sequence, each of length n
        Metadata that the points can be colored by; None for an image without a value. `title` or `name`, if
        there is one, is shown instead of the path. The names in ``KEY_label`` are written on the map when it
        is colored by ``KEY``.
    color : str, optional
        The key that colors the points at first.
    exif : sequence of mapping, length n
        When and with what each image was taken; see `Item.exif`. The camera colors points, too.

    Raises
    ------
    MissingExtraError
        plotly is not installed.
    """
    keys = {**_columns(exif), **keys}
    shown_paths = [printable(path) or id for id, path in zip(image_map.ids, paths, strict=True)]
    titles = titles_of(keys, len(shown_paths))
    plotly, script = Markup(_plotly_script()), template_source("map.js")
    step = max(1, -(-len(image_map.ids) // _MAX_THUMBNAILS))
    data = {
        "ids": image_map.ids,
        "x": [round(float(x), 4) for x in image_map.positions[:, 0]],
        "y": [round(float(y), 4) for y in image_map.positions[:, 1]],
        "names": [title or path for title, path in zip(titles, shown_paths, strict=True)],
        "paths": shown_paths,
        "keys": {key: [_printable(value) for value in values] for key, values in keys.items()},
        "images": _thumbnails(collection, image_map.ids, step),
    }
    facts = {
        "Method": _METHODS[image_map.method],
        "Trustworthiness": "–" if image_map.trustworthiness is None else f"{image_map.trustworthiness:.3f}",
        **({"Added later": f"{int(image_map.is_added.sum()):,}"} if image_map.is_added.any() else {}),
        "Model": collection.spec.id,
        "Collection": collection.uri,
    }
    footer = [
        "Images that lie close together look alike. Large distances and the axes have no meaning."
        " Trustworthiness is 1 where all neighbors on the map are neighbors by their vectors, and 0.5 by"
        " chance; UMAP of photographs reaches 0.9.",
        "Images that were added later did not move the others.",
    ]
    if step > 1:
        footer.append(f"One image in {step} has a thumbnail in this report; the others show their name.")
    html = render(
        "map.html",
        title=f"Map of {count(len(image_map.ids), 'image')}",
        lead="Point at an image, or tap it, to see it. Draw around images for their ids; scroll to zoom.",
        facts=facts,
        footer=footer,
        keys=[key for key in keys if key not in _NO_COLORS and not _is_label(key, keys)],
        color=color,
        data=plain(data),
        plotly=plotly,
        script=script,
        script_hashes=" ".join(map(policy_hash, (plotly, script))),
    )
    write_html(file, html)


def _columns(exif: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    names = dict.fromkeys(name for fields in exif for name in fields)
    return {name: [fields.get(name) for fields in exif] for name in names}


def _is_label(key: str, keys: Mapping[str, Sequence[Any]]) -> bool:
    return key.endswith("_label") and key.removesuffix("_label") in keys


def _plotly_script() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError(
            "the report of a map needs plotly: pip install 'nearsight[map]'; or write a table:"
            " --out x.parquet"
        ) from error
    return str(get_plotlyjs())


def _thumbnails(collection: Collection, ids: Sequence[str], step: int) -> list[str | None]:
    """Return base64 of a small JPEG for every `step`-th image."""
    images: list[str | None] = [None] * len(ids)
    rows = range(0, len(ids), step)
    for start in range(0, len(rows), _THUMBNAILS_AT_ONCE):
        part = rows[start : start + _THUMBNAILS_AT_ONCE]
        thumbnails = collection.thumbnails([ids[row] for row in part])
        for row in part:
            if (jpeg := thumbnails.get(ids[row])) is not None:
                images[row] = base64.b64encode(smaller_jpeg(jpeg, _THUMBNAIL_PX)).decode("ascii")
    return images


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value
