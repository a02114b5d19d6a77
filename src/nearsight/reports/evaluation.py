"""The report of `nearsight eval`: the verdict, figures with intervals, and the queries that differ most."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np

from nearsight.evaluation import Evaluation, ModelResult, class_means, learned_sentence, metric_title
from nearsight.reports.charts import Point, chart
from nearsight.reports.gallery import Card, Row, Section, write_gallery
from nearsight.reports.row_charts import bars, critical_differences
from nearsight.text_format import count, shortened

_N_QUERIES = 12
_N_HITS = 5
_N_LEAKS = 12

_FOOTER = (
    "Intervals hold with 95 % confidence; they and the p values draw groups of near-duplicates, not images."
    " p is adjusted for the number of comparisons (Holm). A tie means that the data cannot tell, not that two"
    " models are equal.",
    "Cards link to the originals.",
)


def write_evaluation(
    file: Path, evaluation: Evaluation, thumbnails: Mapping[str, bytes], directory: str
) -> None:
    """Write the report of an evaluation.

    Parameters
    ----------
    file : Path
        Replaced whole.
    evaluation : Evaluation
    thumbnails : mapping of str to bytes
        JPEG by path.
    directory : str
        What was evaluated.
    """
    sections = [
        _figures(evaluation),
        _critical_differences(evaluation),
        _comparisons(evaluation),
        _learned(evaluation),
        _cost(evaluation),
        _dimensions(evaluation),
        *_queries(evaluation, thumbnails),
        _classes(evaluation),
        _leaks(evaluation, thumbnails),
        _skipped(evaluation),
    ]
    how = "a test split, searched among the others" if evaluation.is_split else "each image, among all others"
    facts = {
        "Images": f"{len(evaluation.paths):,}",
        "Classes": f"{len(set(evaluation.labels)):,}",
        "Queries": f"{len(evaluation.queries):,}: {how}",
        "Groups of near-duplicates": f"{evaluation.n_groups:,}",
        "Folder": directory,
    }
    if (pair := evaluation.decisive) is not None:
        facts["Detectable difference"] = (
            f"{pair.difference.detectable:.3f} in {metric_title(evaluation.metric)} between {pair.first} and"
            f" {pair.second}, in 4 of 5 cases"
        )
    write_gallery(
        file,
        f"Models compared: {shortened([model.model for model in evaluation.models], 4)}",
        [section for section in sections if section.title],
        lead=evaluation.verdict,
        facts=facts,
        footer=_FOOTER,
    )


def _figures(evaluation: Evaluation) -> Section:
    """Return a table with a column for each model, since intervals are wide and models few."""
    models, first = evaluation.models, evaluation.metric
    table = [["metric", *(model.model for model in models)]]
    if len(models) > 1:
        table.append(
            ["verdict", *("recommended" if model is evaluation.recommended else "" for model in models)]
        )
    for metric in sorted(models[0].metrics, key=lambda name: name != first):
        estimates = [model.metrics[metric] for model in models]
        values = [f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})" if e.n else "–" for e in estimates]
        table.append([metric_title(metric), *values])
    table += [
        ["NMI", *(f"{model.nmi:.3f}" for model in models)],
        ["ARI", *(f"{model.ari:.3f}" for model in models)],
        ["images/s", *(f"{model.images_per_second:,.0f}" for model in models)],
        ["bytes a vector", *(f"{model.bytes_per_vector:,}" for model in models)],
        ["license", *(model.license for model in models)],
    ]
    lead = f"The best {metric_title(first)} first; brackets are 95 % intervals."
    return Section("Figures", lead, table=table)


def _critical_differences(evaluation: Evaluation) -> Section:
    if not evaluation.comparisons:
        return Section()
    title = metric_title(evaluation.metric)
    estimates = {model.model: model.metrics[evaluation.metric] for model in evaluation.models}
    drawn = critical_differences(
        estimates, evaluation.tied_sets, title=f"Critical differences in {title}", x_title=title
    )
    lead = (
        "Thick lines on the right join models of which the queries tell no two apart. Thin lines are 95 %"
        " intervals of each model alone; differences are paired, so intervals may overlap and still differ."
    )
    if not evaluation.tied_sets:
        lead = "Each model differs from each other one. Thin lines are 95 % intervals of each model alone."
    return Section("Critical differences", lead, chart=drawn)


def _learned(evaluation: Evaluation) -> Section:
    part = evaluation.learned_classes
    if part is None:
        return Section()
    lead = learned_sentence(evaluation)
    if not part.others or not part.learned:
        return Section("Learned classes and others", lead)
    title = metric_title(evaluation.metric)
    n_learned, n_others = (next(iter(e.values())).n for e in (part.learned, part.others))
    drawn = bars(
        {model.model: [part.learned[model.model], part.others[model.model]] for model in evaluation.models},
        (f"learned classes ({n_learned:,})", f"other classes ({n_others:,})"),
        title=f"{title} of learned classes and of others",
        x_title=title,
    )
    more = (
        f"Learned: {shortened(part.classes, 12)}. Every query is searched among all classes. If the model saw"
        " these very images, its figure of learned classes is too high."
    )
    table = [
        ["other classes", f"{part.models[0]} minus it", "95 % interval"],
        *(
            [model, f"{d.value:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}"]
            for model, d in part.differences.items()
        ),
    ]
    return Section("Learned classes and others", f"{lead} {more}", chart=drawn, table=table)


def _skipped(evaluation: Evaluation) -> Section:
    if not evaluation.skipped:
        return Section()
    table = [["model", "reason"], *([one.model, one.reason] for one in evaluation.skipped)]
    return Section("Not compared", "Models that nearsight knows and that could not be used.", table=table)


def _comparisons(evaluation: Evaluation) -> Section:
    if not evaluation.comparisons:
        return Section()
    table = [
        [
            "model",
            "against",
            "difference",
            "95 % interval",
            "p, adjusted",
            "verdict",
            "detectable",
            "queries needed",
        ]
    ]
    n_queries = evaluation.models[0].metrics[evaluation.metric].n
    for one in evaluation.comparisons:
        gap = one.difference
        table.append(
            [
                one.first,
                one.second,
                f"{gap.value:+.3f}",
                f"{gap.low:+.3f} to {gap.high:+.3f}",
                f"{one.p_adjusted:.4f}",
                one.verdict,
                f"{gap.detectable:.3f}",
                f"{gap.n_needed:,}" if one.verdict == "tie" and (gap.n_needed or 0) > n_queries else "–",
            ]
        )
    title = metric_title(evaluation.metric)
    return Section("Differences", f"In {title}, paired by query. {_ties(evaluation)}", table=table)


def _ties(evaluation: Evaluation) -> str:
    """Name the models that a critical-difference diagram would join with the best one."""
    best = evaluation.models[0].model
    verdicts = {c.second: c.verdict for c in evaluation.comparisons if c.first == best}
    tied = [model for model, verdict in verdicts.items() if verdict == "tie"]
    return f"Not to be told from {best}: {', '.join(tied)}." if tied else f"{best} is better than all others."


def _cost(evaluation: Evaluation) -> Section:
    chosen = evaluation.recommended
    points = [
        Point(m.images_per_second, e.value, e.low, e.high, m.model, m is chosen)
        for m in evaluation.models
        for e in [m.metrics[evaluation.metric]]
    ]
    title = metric_title(evaluation.metric)
    drawn = chart(
        points, title=f"{title} against speed", x_title="images per second", y_title=title, log_x=True
    )
    return Section("Quality and speed", "The recommended model is filled.", chart=drawn)


def _dimensions(evaluation: Evaluation) -> Section:
    points = [
        Point(dim, e.value, e.low, e.high, is_marked=dim == evaluation.advised_dim)
        for dim, e in evaluation.dimensions
    ]
    if len(points) < 2:
        return Section()
    title, model = metric_title(evaluation.metric), evaluation.recommended.model
    n = evaluation.advised_dim
    lead = (
        f"{model}, shortened by PCA that was learned on the gallery. {n:,} numbers are the fewest within one"
        f" standard error of the best: {n * 4:,} bytes a vector."
    )
    drawn = chart(
        points, title=f"{title} by dimension", x_title="numbers", y_title=title, log_x=True, is_line=True
    )
    return Section("Dimension", lead, chart=drawn)


def _queries(evaluation: Evaluation, thumbnails: Mapping[str, bytes]) -> list[Section]:
    """Show the queries on which the best model and the next differ most."""
    if len(evaluation.models) < 2:
        return []
    best, other = evaluation.models[:2]
    gaps = best.values[evaluation.metric] - other.values[evaluation.metric]
    order = np.argsort(np.where(np.isnan(gaps), 0, -gaps), kind="stable")
    won = list(takewhile(lambda row: gaps[row] > 0, order[:_N_QUERIES]))
    lost = list(takewhile(lambda row: gaps[row] < 0, order[::-1][:_N_QUERIES]))
    return [
        _query_section(f"Won by {best.model}", won, (best, other), evaluation, thumbnails),
        _query_section(f"Lost to {other.model}", lost, (best, other), evaluation, thumbnails),
    ]


def _query_section(
    title: str,
    positions: Sequence[int],
    models: tuple[ModelResult, ModelResult],
    evaluation: Evaluation,
    thumbnails: Mapping[str, bytes],
) -> Section:
    if not positions:
        return Section()
    rows = []
    for position in positions:
        query = int(evaluation.queries[position])
        label = evaluation.labels[query]
        answers = {}
        for model in models:
            value = model.values[evaluation.metric][position]
            hits = [int(row) for row in model.matches[position, :_N_HITS] if row >= 0]
            heading = f"{model.model}: {metric_title(evaluation.metric)} {value:.2f}"
            answers[heading] = [_card(evaluation, row, thumbnails, right=label) for row in hits]
        (heading, cards), *more = answers.items()
        query_card = Card(evaluation.paths[query], thumbnails.get(evaluation.paths[query]))
        rows.append(Row(query_card, cards, label, heading=heading, more_hits=dict(more)))
    n = count(len(positions), "query", "queries")
    lead = f"{n}, the largest differences first. Wrong matches are faded, in a dashed frame."
    return Section(title, lead, rows=rows)


def _card(evaluation: Evaluation, row: int, thumbnails: Mapping[str, bytes], right: str) -> Card:
    path, label = evaluation.paths[row], evaluation.labels[row]
    return Card(path, thumbnails.get(path), name=label, is_right=label == right)


def _classes(evaluation: Evaluation) -> Section:
    models = evaluation.models[:4]
    table = [["class", *(model.model for model in models), "difference"]]
    means = class_means(evaluation, models)
    for label, values in sorted(means.items(), key=lambda item: item[1][0] - item[1][-1]):
        gap = f"{values[0] - values[-1]:+.3f}" if len(values) > 1 else "–"
        table.append([label, *(f"{value:.3f}" for value in values), gap])
    lead = (
        f"{metric_title(evaluation.metric)} by class; the difference is that of the first and the last model."
    )
    return Section("Classes", lead, table=table, is_folded=len(means) > 30)


def _leaks(evaluation: Evaluation, thumbnails: Mapping[str, bytes]) -> Section:
    if not evaluation.leaks:
        return Section()
    rows = [
        Row(
            Card(evaluation.paths[query], thumbnails.get(evaluation.paths[query])),
            [Card(evaluation.paths[row], thumbnails.get(evaluation.paths[row]))],
            f"test: {evaluation.labels[query]}",
            heading=f"train: {evaluation.labels[row]}",
        )
        for query, row in evaluation.leaks[:_N_LEAKS]
    ]
    lead = (
        f"Near-duplicates on both sides of the split, {count(len(evaluation.leaks), 'pair')}."
        " They are not compared here."
    )
    return Section("Leaks", lead, rows=rows)
