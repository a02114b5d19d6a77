"""`monitor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run

if TYPE_CHECKING:
    from nearsight.services.monitor import Monitoring

# Paths that the terminal lists; --json and --html have more.
_N_SHOWN = 5


@click.command(
    cls=Command,
    json_shape="""{"known": int, "new": int,
 "unknown_kinds": {"share": float, "usual_share": float, "p": float, "twice_in_a_row": bool,
   "images": [{"id", "path"}]},
 "changed_mix": {"p": float, "auc": float, "mmd": float, "twice_in_a_row": bool},
 "growth": [{"value", "known_share": float, "new_share": float, "p": float}],
 "pipeline": {"lowest_cosine": float or null, "changed": bool}, "advice": [str]}""",
    examples=(
        "nearsight monitor --since 2026-11-01",
        "nearsight monitor --new \"camera = 'X100'\" --by category --open",
    ),
)
@click.option(
    "--since",
    metavar="DATE",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="New images are those that were added on DATE or later (UTC).",
)
@click.option("--new", metavar="EXPR", help="New images are those that match a filter.")
@click.option(
    "--by",
    metavar="KEY",
    multiple=True,
    help="Metadata whose values may have become more frequent.  [default: saved clusters]",
)
@options.where
@options.report("monitor", "Write an HTML report of the images of unknown kinds.")
@options.device
@click.pass_obj
def monitor(
    run: Run,
    /,
    *,
    since: Any,
    new: str | None,
    by: tuple[str, ...],
    where: str | None,
    report: Path | None,
) -> None:
    """Say whether new images are still like the known ones.

    Two questions have two answers. Are there images of kinds that the collection does not know? And has the
    mix of kinds changed? A few known images are embedded again, to see whether the software still computes
    the same vectors.

    A single upload always differs. So a change counts only after two runs in a row with p below 0.01, the
    second mostly on other new images: the same ones, compared again, confirm nothing. Compare at least 300
    images, by time and not by folder. All images that are not new are known, or those of them that --where
    names.
    """
    if (since is None) == (new is None):
        raise click.UsageError("say which images are new: --since DATE, or --new EXPR")
    from nearsight.services.collections import added_since
    from nearsight.services.monitor import monitor as compare
    from nearsight.services.monitor import monitoring_document

    expression = new or added_since(since)
    collection = run.open_collection()
    result = compare(collection, expression, known=where, by=by)
    run.console.document(monitoring_document(result))
    _say(run, result)
    if report is not None:
        from nearsight.reports.monitor import write_monitor

        write_monitor(
            report,
            collection,
            result.unknown_items,
            facts={"New images": f"{result.n_new:,}", "Known images": f"{result.n_known:,}"},
            answers=_answers(result),
            growth=[
                [g.value, f"{g.new_share:.1%}", f"{g.known_share:.1%}", f"{g.p:.2g}"] for g in result.growth
            ],
            advice=result.advice,
        )
        run.present_report(report)


def _facts(result: "Monitoring") -> dict[str, str]:
    unknown, mix = result.unknown, result.mix
    return {
        "Compared": f"{result.n_new:,} new images with {result.n_known:,} known ones",
        "Unknown kinds": f"{unknown.share:.1%} of new images are unusually far from the known ones"
        f" ({unknown.usual_share:.1%} of known images are), p {unknown.p:.3g}",
        "Mix": f"a classifier tells new images from known ones with AUC {mix.auc:.2f} (0.5: not at all),"
        f" p {mix.p:.3g}",
        "Software": "no known file is there to embed again"
        if result.lowest_cosine is None
        else f"known files, embedded again, have a cosine of at least {result.lowest_cosine:.5f} with their"
        " stored vectors",
    }


def _answers(result: "Monitoring") -> list[list[str]]:
    """Return each question, its answer, what was measured, and p."""
    from nearsight.services.monitor import ALARM_P

    def answer(p: float, is_twice: bool) -> str:
        return (
            "yes, twice in a row" if is_twice else "yes, the first time" if p < ALARM_P else "no sign of it"
        )

    facts, unknown, mix = _facts(result), result.unknown, result.mix
    software = "yes" if result.pipeline_changed else "not known" if result.lowest_cosine is None else "no"
    return [
        [
            "Are there images of kinds that are not known?",
            answer(unknown.p, result.unknown_in_a_row),
            facts["Unknown kinds"].rpartition(", p ")[0],
            f"{unknown.p:.3g}",
        ],
        [
            "Has the mix of kinds changed?",
            answer(mix.p, result.mix_in_a_row),
            facts["Mix"].rpartition(", p ")[0],
            f"{mix.p:.3g}",
        ],
        ["Does the software compute other vectors?", software, facts["Software"], "–"],
    ]


def _say(run: Run, result: "Monitoring") -> None:
    width = max(map(len, _facts(result)))
    for name, value in _facts(result).items():
        run.console.say(f"{name:<{width}}  {value}")
    for growth in result.growth[:_N_SHOWN]:
        run.console.say(
            f"{'':<{width}}  more {text_format.printable(growth.value)}: {growth.new_share:.1%} instead of"
            f" {growth.known_share:.1%}"
        )
    if result.unknown.rows.size:
        run.console.say()
        n_beyond = len(result.unknown.rows)
        run.console.say(f"The farthest of the {text_format.count(n_beyond, 'new image')} beyond the limit:")
        for item in result.unknown_items[:_N_SHOWN]:
            run.console.say(f"  {text_format.printable(item.path)}")
    run.console.say()
    for sentence in result.advice:
        run.console.say(sentence, bold=True)
