"""The report of `nearsight dimension`: quality, bytes and search time by the length of the vectors."""

from pathlib import Path

from nearsight import text_format
from nearsight.evaluation import DimensionAdvice, DimensionRow
from nearsight.reports.charts import Point, chart
from nearsight.reports.gallery import Section, write_gallery


def dimension_table(advice: DimensionAdvice) -> list[list[str]]:
    """Return the curve as a table, its header first.

    Parameters
    ----------
    advice : DimensionAdvice
    """
    has_labels = advice.rows[0].recall is not None
    header = ["numbers", "neighbors kept", *(["recall@1 (95 %)"] if has_labels else []), "bytes", "search"]
    return [header, *(_cells(row) for row in advice.rows)]


def _cells(row: DimensionRow) -> list[str]:
    recall = row.recall
    shown = [] if recall is None else [f"{recall.value:.3f} ({recall.low:.3f} to {recall.high:.3f})"]
    return [
        f"{row.dim:,}",
        f"{row.neighbors_kept.value:.1%}",
        *shown,
        text_format.size(row.bytes_per_vector),
        f"{row.search_ms:.3g} ms",
    ]


def write_dimension(file: Path, advice: DimensionAdvice, directory: str) -> None:
    """Write the report of one collection.

    Parameters
    ----------
    file : Path
        Replaced whole.
    advice : DimensionAdvice
    directory : str
        The collection's.
    """
    values = [(row.dim, row.recall or row.neighbors_kept) for row in advice.rows]
    name = "recall@1" if advice.rows[0].recall is not None else "share of the ten nearest neighbors kept"
    curve = chart(
        [
            Point(dim, e.value, e.low, e.high, f"{dim:,}", is_marked=dim == advice.advised_dim)
            for dim, e in values
        ],
        title=f"{name} by the length of the vectors",
        x_title="numbers of a vector",
        y_title=name,
        log_x=True,
        is_line=True,
    )
    how = "principal components" if advice.method == "pca" else "truncation, which the model was trained for"
    write_gallery(
        file,
        "How many numbers are enough",
        [
            Section("Curve", "Intervals hold with 95 % confidence.", chart=curve),
            Section(
                "Figures",
                "A search compares one query with all images, on one core.",
                table=dimension_table(advice),
            ),
        ],
        lead=advice.rule,
        facts={"Collection": directory, "Images compared": f"{advice.n_images:,}", "Shortened by": how},
        footer=("Search times were measured on the images that were compared, and scaled to all of them.",),
    )
