"""Groups of images and of customers: `cluster`, `segment`."""

import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.classify import names_of
from nearsight.cli.commands.search import present
from nearsight.cli.framework import BadInputError, Command, Run, out_file
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.clusters import Clustering
    from nearsight.analyses.customer_segments import Segmentation
    from nearsight.collection import Collection

_F = TypeVar("_F", bound=Callable[..., Any])

# Unknown images and customers that people are shown.
_SHOWN = 5

_words = click.option(
    "--words",
    multiple=True,
    metavar="WORD,...",
    help="To name groups with; @FILE has one on each line. Default: 1,000 common things.",
)
_no_labels = click.option("--no-labels", is_flag=True, help="Do not name groups.")


def _rate(text: str) -> Callable[[_F], _F]:
    """Return the option for the stated rate of false alarms."""
    return click.option(
        "--false-alarm-rate",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.05,
        show_default=True,
        metavar="R",
        help=text,
    )


def _is_given(name: str) -> bool:
    """Return whether an option was named, rather than at its default."""
    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


@click.command(
    cls=Command,
    json_shape="""{"clusters": [{"id": int, "size": int, "representative", "label": text or null, "ids": [id],
   "representatives": [id], "words": [text]}], "noise": [id], "algorithm",
 "tree": [{"node": int, "joins": [node, node], "similarity": float, "size": int}]}""",
    examples=(
        "nearsight cluster --open",
        "nearsight cluster --k 12 --save kind",
        'nearsight cluster --where "kind = 3" --model inside.npz',
        "nearsight cluster --assign --where \"added > '2026-11-01'\"",
    ),
)
@click.option(
    "--algorithm",
    type=click.Choice(["density", "kmeans"]),
    metavar="NAME",
    help="density finds the clusters that are there; kmeans makes K of all. Default: kmeans if K is given.",
)
@click.option(
    "--k", "-k", type=click.IntRange(min=1), metavar="K", help="How many; density joins the most alike."
)
@click.option("--min-size", type=click.IntRange(min=2), metavar="N", help="Of density: less is no cluster.")
@options.where
@_words
@_no_labels
@click.option("--save", metavar="KEY", help="Write each image's cluster into its metadata.")
@click.option("--overwrite", is_flag=True, help="With --save: even where KEY is metadata of your own.")
@click.option(
    "--model",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=out_file(".npz"),
    metavar="FILE.npz",
    help="Where clusters are kept for --assign. Default: in the collection; not kept with --where.",
)
@click.option("--assign", is_flag=True, help="Find none: say to which of those kept images belong.")
@_rate("Share of a cluster's like that --assign may call noise.")
@options.page("Write a page of thumbnails.")
@click.pass_obj
def cluster(
    run: Run,
    /,
    algorithm: str | None,
    k: int | None,
    min_size: int | None,
    where: str | None,
    words: tuple[str, ...],
    no_labels: bool,
    save: str | None,
    overwrite: bool,
    model: Path | None,
    assign: bool,
    false_alarm_rate: float,
    out: Path | None,
    show: bool,
) -> None:
    """Find groups of images that look alike.

    Without --k, the groups that are there; what belongs to none is noise. Groups are named with words that
    set them apart, if words can be read (see `nearsight search --text`). The answer is kept, so that
    --assign can say later where new images belong, without a change to the groups. To zoom out, join
    groups with --algorithm density --k; to zoom in, --save a key and look into one group with --where.
    """
    from nearsight.analyses.clusters import FILENAME, Clustering
    from nearsight.analyses.saved_clusters import check_key

    if words and no_labels:
        raise click.UsageError("--words names groups and --no-labels does not; give one of them")
    learns = (algorithm, k, min_size, words, no_labels, _is_given("false_alarm_rate"))
    if assign and any(given for given in learns):
        raise click.UsageError("--assign takes the clusters as they are; it goes with --where, --save, --out")
    if overwrite and save is None:
        raise click.UsageError("--overwrite says what --save KEY may do; add it")
    collection = run.open_collection()
    file = model or collection.directory / FILENAME
    if save is not None:
        check_key(collection, save, overwrite=overwrite)
        if where is not None and not assign and not overwrite:
            _require_others_without(collection, save, where)
    if assign:
        found = collection.predict_clusters(Clustering.load(file), where=where, progress=run.console.progress)
    else:
        found = collection.cluster(
            k,
            algorithm=algorithm,  # type: ignore[arg-type]  # click has checked the word
            where=where,
            words=[] if no_labels else names_of(words) or None,
            min_cluster_size=min_size,
            false_alarm_rate=false_alarm_rate,
            progress=run.console.progress,
        )
        # A look into one cluster must not replace the clusters of all.
        if model is not None or (where is None and os.access(collection.directory, os.W_OK)):
            found.save(file)
        elif where is None:
            run.console.note(
                f"{printable(str(collection.directory))} cannot be written to, so the groups are not kept for"
                " --assign; --model FILE.npz keeps them elsewhere."
            )
    if save is not None:
        run.if_interrupted = f"some images have their new {save!r} already; the same command finishes it"
        collection.save_clusters(found, save, overwrite=overwrite)
    run.console.document(_document(found))
    _say(run, collection, found, save, where)
    if k is not None and 0 < len(found.clusters) < k:
        why = (
            "others would be of equal images"
            if found.algorithm == "kmeans"
            else "--algorithm kmeans cuts them"
        )
        run.console.note(f"There are no more than {count(len(found.clusters), 'group')}; {why}.")
    if out or show:
        from nearsight.reports.clusters import write_clusters

        target = out or run.settings.cache_dir / "clusters.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_clusters(target, collection, found)
        present(run, target, show=show)


def _require_others_without(collection: "Collection", key: str, where: str) -> None:
    """Refuse to number a part's clusters as those of the rest are numbered already."""
    if key not in collection.info()["metadata"]:
        return
    has = f"{key} IS NOT NULL"
    # Not by NOT: what `where` cannot tell of would be on neither side.
    n = collection.count(has) - collection.count(f"{has} AND ({where})")
    if n:
        raise BadInputError(
            f"{count(n, 'image')} beside these have a {key!r} already, so its numbers would mean two"
            f" things; choose another key, such as {key}_part, or add --overwrite"
        )


def _document(found: "Clustering") -> dict[str, Any]:
    k = len(found.clusters)
    return {
        "clusters": [
            {
                "id": c.id,
                "size": len(c.ids),
                "representative": c.representative,
                "label": c.label,
                "ids": c.ids,
                "representatives": c.representatives,
                "words": c.words,
            }
            for c in found.clusters
        ],
        "noise": found.noise,
        "algorithm": found.algorithm,
        "tree": [
            {"node": node, "joins": [a, b], "similarity": similarity, "size": size}
            for node, (a, b, similarity, size) in enumerate(found.tree, k)
        ],
    }


def _say(
    run: Run, collection: "Collection", found: "Clustering", save: str | None, where: str | None
) -> None:
    from nearsight.collection.arrays import items_by_id

    shown = [c.representative for c in found.clusters if c.representative]
    items = {} if run.console.as_json else items_by_id(collection, shown)
    rows = [
        [
            str(c.id),
            f"{len(c.ids):,}",
            c.label or "",
            items[c.representative].path if c.representative in items else "",
        ]
        for c in found.clusters
    ]
    for line in text_format.table(
        rows, header=("id", "images", "label", "representative") if rows else (), right=(0, 1)
    ):
        run.console.say(line)
    n = sum(len(c.ids) for c in found.clusters) + len(found.noise)
    if not n:
        run.console.note(text_format.nothing(where))
    elif not found.clusters:
        run.console.note(
            f"No groups among {count(n, 'image')}; --k makes some, --min-size allows small ones."
        )
    else:
        run.console.note(f"{count(len(found.noise), 'image')} of {n:,} in no cluster.")
    if save is not None:
        run.console.note(f'Saved: look into one with --where "{printable(save)} = 0".')


@click.command(
    cls=Command,
    json_shape="""{"segments": [{"id": int, "size": int, "customers": [name], "representatives": [id],
   "spread": float or null, "label": text or null, "words": [text]}],
 "customers": {name: segment, or -1 for none}, "strangers": [name], "unknown": {image: lines},
 "silhouette": float or null}""",
    examples=(
        "nearsight segment --customers orders.csv --open",
        "nearsight segment --customers orders.csv --k 5 --save segments.npz",
        "nearsight segment --customers new-customers.csv --model segments.npz",
    ),
)
@click.option(
    "--customers",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="Whose images: a file with the columns customer, image, and perhaps weight.",
)
@click.option(
    "--k", "-k", type=click.IntRange(min=1), metavar="K", help="How many. Default: what suits best."
)
@_words
@_no_labels
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=out_file(".npz"),
    metavar="FILE.npz",
    help="Keep the segments, so that --model can ask them; no customer's name is kept.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Find none: say to which of those that --save kept these customers belong.",
)
@_rate("Share of customers like these that --model may call strangers.")
@options.page("Write a page of thumbnails.")
@click.pass_obj
def segment(
    run: Run,
    /,
    customers: Path,
    k: int | None,
    words: tuple[str, ...],
    no_labels: bool,
    save: Path | None,
    model: Path | None,
    false_alarm_rate: float,
    out: Path | None,
    show: bool,
) -> None:
    """Segment customers by the images that are theirs.

    An image is an id, a path, a file name, or a name without its ending, such as an article number; what
    is no image of the collection is listed and left out. Customers are compared by the mean of their
    images and by how much these differ. Without --k, there are as many segments as two halves of the
    customers agree on.

    --save keeps the segments, and --model says where other customers belong, without a change to them;
    who is like none of theirs is a stranger.
    """
    from nearsight.analyses.customer_segments import Segmentation
    from nearsight.cli.csv_tables import read_customers

    if words and no_labels:
        raise click.UsageError("--words names segments and --no-labels does not; give one of them")
    learns = (k, words, no_labels, save, _is_given("false_alarm_rate"))
    if model is not None and any(given for given in learns):
        raise click.UsageError("--model takes the segments as they are; it goes with --customers and --out")
    collection = run.open_collection()
    lines = read_customers(customers)
    if model is not None:
        found = collection.assign_customers(Segmentation.load(model), lines)
    else:
        found = collection.segment_customers(
            lines,
            k,
            words=[] if no_labels else names_of(words) or None,
            false_alarm_rate=false_alarm_rate,
            progress=run.console.progress,
        )
    if save is not None:
        found.save(save)
    run.console.document(
        {
            "segments": [{"size": len(s.customers), **asdict(s)} for s in found.segments],
            "customers": found.customers,
            "strangers": found.strangers,
            "unknown": found.unknown,
            "silhouette": found.silhouette,
        }
    )
    _say_segments(run, found, customers, asked=model is not None)
    if k is None and model is None and len(found.segments) == 1 < len(found.customers):
        run.console.note("No division that two halves of the customers agree on; --k makes one.")
    if save is not None:
        run.console.note(f"The segments are in {printable(str(save))}; ask them with --model.")
        if not found.promises:
            run.console.note("There are too few customers to know strangers by: everyone will belong to one.")
    if out or show:
        from nearsight.reports.customer_segments import write_segments

        target = out or run.settings.cache_dir / "segments.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_segments(target, collection, found)
        present(run, target, show=show)


def _say_segments(run: Run, found: "Segmentation", file: Path, *, asked: bool) -> None:
    rows = [
        [
            str(s.id),
            f"{len(s.customers):,}",
            "-" if math.isnan(s.spread) else f"{s.spread:.2f}",
            s.label or "",
            ", ".join(s.customers[:_SHOWN]),
        ]
        for s in found.segments
    ]
    for line in text_format.table(
        rows, header=("id", "customers", "spread", "label", "such as"), right=(0, 1, 2)
    ):
        run.console.say(line)
    if asked:
        n, some = len(found.strangers), ", ".join(found.strangers[:_SHOWN])
        more = f" and {n - _SHOWN:,} more" if n > _SHOWN else ""
        run.console.note(
            f"{count(n, 'customer')} of {len(found.customers):,} in no segment"
            + (f": {printable(some)}{more}." if n else ".")
        )
    elif found.silhouette == found.silhouette:
        run.console.note(f"Silhouette {found.silhouette:.2f} (1 is distinct, 0 a continuum).")
    if found.unknown:
        some = ", ".join(list(found.unknown)[:_SHOWN])
        more = f" and {len(found.unknown) - _SHOWN:,} more" if len(found.unknown) > _SHOWN else ""
        run.console.warn(
            f"{count(sum(found.unknown.values()), 'line')} of {file} name no single image of the"
            f" collection, and were left out: {some}{more}"
        )
