"""Customers, segmented by the images of what they bought."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse

from nearsight.errors import NearsightError
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.analyses import latest_result
from nearsight.server.routes.jobs import StartAnalysis
from nearsight.server.schemas import table_body
from nearsight.server.service import Service
from nearsight.server.tables import SentTable, sent_table
from nearsight.services.csv_tables import read_customers
from nearsight.services.customer_segments import customer_lines, segmentation_document
from nearsight.text_format import plain

if TYPE_CHECKING:
    from nearsight.analyses.customer_segments import Segmentation

router = APIRouter(prefix="/v1/collections/{name}/segments", tags=["customers"])

_CUSTOMERS = table_body("customer, image and, optionally, weight")
_FILE = "segments.npz"


@router.post("", status_code=202, dependencies=[requires("write")], openapi_extra=_CUSTOMERS)
async def segment_customers(
    request: Request,
    start: StartAnalysis,
    name: str,
    k: Annotated[int | None, Query(ge=1, le=100_000)] = None,
    word: Annotated[
        list[str],
        Query(max_length=5000, description="Name segments with these words; by default common ones."),
    ] = [],  # noqa: B006 - FastAPI copies it
    names: Annotated[bool, Query(description="Whether to name segments at all.")] = True,
    false_alarm_rate: Annotated[float | None, Query(gt=0, lt=1)] = None,
) -> dict[str, Any]:
    """Segment the customers of a table by the images of what they bought, as a job."""
    service: Service = request.app.state.service
    table = await sent_table(request, name, read_customers)
    shown = {"k": k, "word": word, "names": names, "false_alarm_rate": false_alarm_rate, "file": table.title}
    file = await service.in_thread(_segments_file, service, name)
    return await start(
        "segments",
        k=k,
        words=(word or None) if names else [],
        false_alarm_rate=false_alarm_rate,
        segments_file=str(file),
        shown={key: value for key, value in shown.items() if value not in (None, [])},
        **table.job_args(),
    )


@router.get("", dependencies=[requires("read")])
async def get_segments(request: Request, name: str) -> dict[str, Any]:
    """Return the latest segments with their customers."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        return _shown(service, latest_result(service, name, "segments"))

    return await service.in_thread(read)


@router.get("/file", dependencies=[requires("read")], response_class=FileResponse)
async def get_segments_file(request: Request, name: str) -> FileResponse:
    """Return the latest segments as a file for `Segmentation.load`; it holds no customer's name."""
    service: Service = request.app.state.service

    def find() -> Path:
        service.catalog.finished_file(name, "segments")
        return _segments_file(service, name)

    headers = {"Cache-Control": "private, no-cache"}
    return FileResponse(await service.in_thread(find), filename=f"{name}-{_FILE}", headers=headers)


@router.post("/assign", dependencies=[requires("read")], openapi_extra=_CUSTOMERS)
async def assign_customers(request: Request, name: str) -> dict[str, Any]:
    """Assign the customers of a table to the latest segments, or to those of a file named `segments`."""
    service: Service = request.app.state.service
    table = await sent_table(request, name, read_customers, also="segments")

    def assign() -> dict[str, Any]:
        try:
            collection = service.catalog.open(name)
            lines, resolution = customer_lines(collection, table.path)
            assigned = collection.assign_customers(_segmentation(service, name, table), lines)
        except NearsightError as error:
            raise Problem(400, table.public(error), code=type(error).__name__, param="file") from error
        finally:
            if table.is_upload:
                table.path.unlink(missing_ok=True)
        return _shown(service, segmentation_document(assigned, resolution))

    return await service.in_thread(assign)


def _segmentation(service: Service, name: str, table: SentTable) -> "Segmentation":
    from nearsight.analyses.customer_segments import Segmentation

    if not table.also:
        service.catalog.finished_file(name, "segments")
        return Segmentation.load(_segments_file(service, name))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _FILE
        file.write_bytes(table.also)
        try:
            return Segmentation.load(file)
        except NearsightError as error:
            raise Problem(
                400, f"segments: {error}".replace(str(file), "the file"), param="segments"
            ) from error


def _segments_file(service: Service, name: str) -> Path:
    return service.catalog.result_file(name, "segments").with_name(_FILE).absolute()


def _shown(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    shown = service.catalog.shown_path
    ambiguous = {name: [shown(path) for path in paths] for name, paths in document["ambiguous"].items()}
    facts: dict[str, Any] = plain({**document, "ambiguous": ambiguous})
    return facts
