"""`cluster`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.clusters import Clustering
    from nearsight.collection import Collection


@click.command(
    cls=Command,
    json_shape="""{"clusters": [{"id": int, "size": int, "representative": id, "name": text or null,
   "ids": [id], "representatives": [id], "words": [text]}],
 "noise": [id], "algorithm": "density"|"kmeans", "coordinates": "umap"|"diffusion"|"vectors"|null,
 "levels": [int], "level": int,
 "tree": [{"node": int, "joins": [node, node], "similarity": float, "size": int}]}""",
    examples=(
        "nearsight cluster --open",
        "nearsight cluster --detail 1",
        "nearsight cluster --k 12 --save-as kind",
        'nearsight cluster --where "kind = 3" --to detail.npz',
        "nearsight cluster --assign --where \"added > '2026-11-01'\"",
    ),
)
@click.option(
    "--algorithm",
    type=click.Choice(["density", "kmeans"]),
    metavar="density|kmeans",
    help="density (HDBSCAN) finds the number of clusters itself and leaves noise; kmeans makes K clusters of"
    " all images. Default: kmeans with --k, density without.",
)
@click.option(
    "--k",
    "-k",
    type=click.IntRange(min=1),
    metavar="K",
    help="Number of clusters. With density: merge the most similar clusters until K are left.",
)
@click.option(
    "--coordinates",
    type=click.Choice(["umap", "diffusion"]),
    metavar="umap|diffusion",
    help="What kmeans runs on. UMAP is mostly better and takes longer; it needs pip install 'nearsight[map]'."
    "  [default: umap where it is installed and there are 100 to 20,000 images, else diffusion]",
)
@click.option(
    "--min-size", type=click.IntRange(min=2), metavar="N", help="Smallest cluster that density finds."
)
@click.option(
    "--detail",
    type=int,
    metavar="N",
    help="Go N levels of detail up (more, smaller clusters) from what density finds, or down with -N."
    "  [default: 0]",
)
@options.where
@options.naming("clusters")
@click.option(
    "--save-as",
    metavar="KEY",
    help="Write each image's cluster into its metadata: the id under KEY (-1 is noise), the name under"
    " KEY_label.",
)
@click.option(
    "--overwrite", is_flag=True, help="With --save-as: allow a KEY that holds other metadata already."
)
@options.to_file(
    "Save the clusters to this file. Default: in the collection, unless --where is given.", ".npz"
)
@options.from_file("Assign images to the clusters saved in this file.")
@click.option("--assign", is_flag=True, help="Assign images to saved clusters instead of clustering again.")
@options.false_alarm_rate("Share of later images of a cluster that --assign may call noise.  [default: 0.05]")
@options.report("clusters")
@click.pass_obj
def cluster(
    run: Run,
    /,
    *,
    algorithm: str | None,
    k: int | None,
    coordinates: str | None,
    min_size: int | None,
    detail: int | None,
    where: str | None,
    words: list[str] | None,
    save_as: str | None,
    overwrite: bool,
    to_file: Path | None,
    from_file: Path | None,
    assign: bool,
    false_alarm_rate: float | None,
    report: Path | None,
) -> None:
    """Cluster images by similarity.

    Without --k, the number of clusters follows from the data, and images in no cluster are noise. Clusters
    are named with what sets them apart, if the model can read text (see `nearsight search --text`): "perhaps"
    stands before a name that is hardly distinctive, and "mixed" before the words of a mixed cluster, the most
    frequent first.
    With a face detector (pip install 'nearsight[faces]'), clusters of faces are named, too.
    The clusters are saved, so that --assign can assign new images to them later without changing them.
    For fewer or more clusters, use --detail -1 or --detail 1. For a closer look at one cluster, use
    --save-as KEY, and cluster again with --where.
    """
    from nearsight.analyses.clusters import Clustering
    from nearsight.analyses.saved_clusters import check_key
    from nearsight.services.cluster_edits import ClusterEdits
    from nearsight.services.clusters import clustering_file, name_people, save_clustering

    assign = assign or from_file is not None
    fit_options = options.without_none(
        algorithm=algorithm,
        k=k,
        coordinates=coordinates,
        min_cluster_size=min_size,
        detail=detail,
        words=words,
        false_alarm_rate=false_alarm_rate,
    )
    if assign and (fit_options or to_file):
        raise click.UsageError(
            "--assign and --from use clusters as they were saved; combine them only with --where, --save-as,"
            " --overwrite, --html and --open"
        )
    if overwrite and save_as is None:
        raise click.UsageError("--overwrite applies to --save-as KEY; add it")
    collection = run.open_collection()
    if save_as is not None:
        check_key(collection, save_as, overwrite=overwrite, where=None if assign else where)
    is_own = assign and from_file is None
    if assign:
        clustering = collection.predict_clusters(
            Clustering.load(from_file or clustering_file(collection)),
            where=where,
            progress=run.console.progress,
        )
    else:
        clustering = collection.cluster(where=where, progress=run.console.progress, **fit_options)
        if words is None:
            clustering = name_people(collection, clustering, progress=run.console.progress)
        is_saved = save_clustering(collection, clustering, file=to_file, where=where)
        is_own = is_saved and to_file is None
        if not is_saved and where is None:
            run.console.note(
                f"{printable(collection.uri)} is read-only, so the clusters are not saved for"
                " --assign; save them elsewhere with --to FILE.npz."
            )
    if save_as is not None:
        run.if_interrupted = f"some images have their new {save_as!r} already; the same command completes it"
        ClusterEdits(collection).save_as(clustering, save_as, is_own=is_own, overwrite=overwrite)
    from nearsight.services.documents import clusters_document

    run.console.document(clusters_document(clustering))
    _say(run, collection, clustering, where, detail or 0)
    if save_as is not None:
        run.console.note(f'For a closer look at one cluster: --where "{printable(save_as)} = 0".')
    if k is not None and 0 < len(clustering.clusters) < k:
        reason = (
            "the other images are identical to these"
            if clustering.algorithm == "kmeans"
            else "--algorithm kmeans splits them"
        )
        run.console.note(f"There are only {count(len(clustering.clusters), 'cluster')}; {reason}.")
    if report:
        from nearsight.reports.clusters import write_clusters

        write_clusters(report, collection, clustering)
        run.present_report(report)


def _say(
    run: Run, collection: "Collection", clustering: "Clustering", where: str | None, detail: int
) -> None:
    from nearsight.collection.arrays import items_by_id
    from nearsight.reports.clusters import COORDINATES

    representatives = [cluster.representative for cluster in clustering.clusters if cluster.representative]
    items = {} if run.console.as_json else items_by_id(collection, representatives)
    rows = [
        [
            str(cluster.id),
            f"{len(cluster.ids):,}",
            cluster.name or "",
            items[cluster.representative].path if cluster.representative in items else "",
        ]
        for cluster in clustering.clusters
    ]
    header = ("id", "images", "name", "representative") if rows else ()
    for line in text_format.table(rows, header=header, right=(0, 1)):
        run.console.say(line)
    n_images = sum(len(cluster.ids) for cluster in clustering.clusters) + len(clustering.noise)
    if not n_images:
        run.console.note(text_format.nothing(where))
    elif not clustering.clusters:
        run.console.note(
            f"No clusters among {count(n_images, 'image')}: all are noise. --k K makes K clusters, and"
            " --min-size N allows smaller ones."
        )
    else:
        run.console.note(f"Noise: {count(len(clustering.noise), 'image')} of {n_images:,}.")
        if clustering.algorithm == "kmeans" and clustering.coordinates is not None:
            run.console.note(f"k-means ran on {COORDINATES[clustering.coordinates]}.")
        if len(clustering.levels) > 1:
            run.console.note(_other_levels(clustering, detail))


def _other_levels(clustering: "Clustering", detail: int) -> str:
    """Return what the next steps of `--detail` would give."""
    levels, level = clustering.levels, clustering.level
    nearest = [(level + step, detail + step) for step in (1, -1) if 0 <= level + step < len(levels)]
    options = [f"--detail {option} gives {count(levels[i], 'cluster')}" for i, option in nearest]
    return f"Other levels: {', '.join(options)}."
