"""The result of a demo, for programs and for people."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nearsight.collection import AddReport, Collection, Item, Match
from nearsight.demo.edits import EditedImage
from nearsight.demo.sources import DemoImages
from nearsight.text_format import SHORT_ID_DIGITS, count, printable


@dataclass(frozen=True, slots=True)
class ExampleSearch:
    """An image of the collection, and its matches among the images that pass a filter."""

    item: Item
    where: str | None
    matches: list[Match]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo did.

    Attributes
    ----------
    report : Path
        The HTML report.
    collection : Collection
    images : DemoImages
    added : AddReport
    edits : list of EditedImage
    queries : list of ExampleSearch
    """

    report: Path
    collection: Collection
    images: DemoImages
    added: AddReport
    edits: list[EditedImage]
    queries: list[ExampleSearch]

    @property
    def commands(self) -> list[str]:
        """Commands to try next."""
        uri = shlex.quote(printable(self.collection.uri))
        id = self.queries[0].item.id[:SHORT_ID_DIGITS] if self.queries else "ID"
        commands = [
            f"nearsight search IMAGE -c {uri} --open",
            f"nearsight search --id {id} -c {uri} -k 20",
        ]
        if self.images.licenses:
            commands.append(f"nearsight ls -c {uri} --where \"defect = 'local'\"")
            commands.append("nearsight demo ~/photos --open")
        commands.append("nearsight index ~/photos")
        return commands

    @property
    def speed(self) -> str:
        """The speed of indexing; in a second run, that of checking for changes."""
        added = self.added
        if not added.embedded:
            return f"{count(added.unchanged, 'image')} unchanged, checked in {added.seconds:.1f} s"
        rate = f"{added.images_per_second:,.0f} per second"
        return f"{count(added.embedded, 'image')} embedded in {added.seconds:.1f} s, {rate}"

    @property
    def n_originals_first(self) -> int:
        """The number of edited images whose original is the first match."""
        return sum(1 for edited in self.edits if edited.rank == 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the document of ``--json``."""
        added = self.added.to_dict()
        return {
            "report": str(self.report),
            "collection": self.collection.uri,
            "images": len(self.collection),
            **{key: added[key] for key in ("embedded", "seconds", "images_per_second")},
            "edits": [
                {
                    "path": edited.item.path,
                    "edit": edited.edit.name,
                    "rank": edited.rank,
                    "similarity": edited.similarity,
                    "reason": edited.reason,
                }
                for edited in self.edits
            ],
            "queries": [
                {
                    "id": query.item.id,
                    "path": query.item.path,
                    "where": query.where,
                    "hits": [asdict(match) for match in query.matches],
                }
                for query in self.queries
            ],
            "failed": added["failed"],
            "licenses": {self.collection.spec.id: self.collection.spec.license, **self.images.licenses},
            "next": self.commands,
        }

    def lines(self) -> list[str]:
        """Return the summary for people."""
        return [
            f"{self.images.title}: {self.speed}.",
            f"Originals that come first: {self.n_originals_first} of {len(self.edits)}.",
            *(f"  {edited.edit.name}: {edited.reason}" for edited in self.edits if edited.reason),
            f"Model: {self.collection.spec.id}, {self.collection.spec.license}.",
            *(f"Images: {name}, {license}." for name, license in self.images.licenses.items()),
            "",
            "Next:",
            *(f"  {command}" for command in self.commands),
        ]
