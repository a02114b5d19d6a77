"""Recommendations: what looks like an image, what is bought with it, and the baskets that tell."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import Field
from starlette.responses import FileResponse, Response

from nearsight.collection import Collection
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.jobs import StartAnalysis
from nearsight.server.schemas import RequestBody, table_body
from nearsight.server.service import Service
from nearsight.server.tables import sent_table
from nearsight.services.csv_tables import read_baskets
from nearsight.services.documents import recommendations_document
from nearsight.services.recommendation_rules import (
    MAX_RULES,
    RulesChangedError,
    StoredRules,
    check_rules,
    revision,
)
from nearsight.services.recommendations import (
    RecommendationOptions,
    count_allowed,
    items_of,
    recommend_each,
    recommend_images,
)
from nearsight.services.recommenders import StoredRecommenders

router = APIRouter(prefix="/v1/collections/{name}", tags=["recommendations"])

_BASKETS = table_body("basket and item")
_MAX_HISTORY = 100
# Images that are recommended for in one request; more are a job.
_MAX_EACH = 200


class Rules(RequestBody):
    """How images are recommended; see `nearsight.Collection.recommend`."""

    k: Annotated[int, Field(ge=1, le=1000)] = 10
    where: str | None = None
    rule: list[str] = Field(
        [],
        max_length=MAX_RULES,
        description="Filters in which item.FIELD stands for the value of the image, such as"
        " category != item.category. A rule does not apply to an image that lacks the value.",
    )
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    include_new_items: bool = False
    baskets: str | None = Field(
        None, description="The baskets to recommend by; without a name, images that look alike."
    )

    def options(self) -> RecommendationOptions:
        """Return the options of the service behind."""
        return RecommendationOptions(self.k, self.where, self.rule, self.diversity, self.include_new_items)


class SavedRules(RequestBody):
    """The rules that are saved with a collection."""

    rules: list[str] = Field(max_length=MAX_RULES)


class ItemRules(Rules):
    """How images are recommended for one image or a history."""

    also: list[str] = Field(
        [], max_length=_MAX_HISTORY, description="Further images of a customer's history."
    )


class TableRules(Rules):
    """How images are recommended, and for which: by default for every image."""

    ids: list[str] | None = Field(None, min_length=1, max_length=10_000)


class EachRules(Rules):
    """How images are recommended for each of several images."""

    ids: list[str] = Field(min_length=1, max_length=_MAX_EACH)


@router.get("/items/{id}/recommendations", dependencies=[requires("read")])
async def recommend(
    request: Request, name: str, id: str, query: Annotated[ItemRules, Query()]
) -> dict[str, Any]:
    """Recommend images for one image, or for a customer's history, and say why.

    `allowed` is the number of images that the rules let through.
    """
    service: Service = request.app.state.service

    def run() -> dict[str, Any]:
        collection = service.catalog.open(name)
        ids = [collection.get(each).id for each in (id, *query.also)]
        recommender = None
        if query.baskets is not None:
            _require(collection, query.baskets)
            recommender = service.recommenders.get(collection, query.baskets)
        found = recommend_images(collection, ids, query.options(), recommender)
        document = recommendations_document(found, ids, service.catalog.shown_path)
        return {**document, "allowed": count_allowed(collection, ids[0], query.options())}

    return await service.in_thread(run)


@router.post("/recommendations", status_code=202, dependencies=[requires("write")])
async def export_recommendations(
    request: Request, start: StartAnalysis, name: str, body: TableRules
) -> dict[str, Any]:
    """Write a table of the recommendations for every image, or for those named by `ids`, as a job."""
    service: Service = request.app.state.service

    def check() -> None:
        collection = service.catalog.open(name)
        if body.baskets is not None:
            _require(collection, body.baskets)
        check_rules(collection, body.rule)
        items_of(collection, body.ids or ())

    await service.in_thread(check)
    roots = {alias: str(place) for alias, place in service.catalog.roots.items()}
    return await start("recommendations", body, rules=body.rule, roots=roots)


@router.post("/recommendations/each", dependencies=[requires("read")])
async def recommend_for_each(request: Request, name: str, body: EachRules) -> dict[str, Any]:
    """Recommend images for each of up to 200 images, in the order of `ids`; for more, there is the table.

    An image that was added after the baskets were learned from has none.
    """
    service: Service = request.app.state.service

    def run() -> list[dict[str, Any]]:
        collection = service.catalog.open(name)
        recommender = None
        if body.baskets is not None:
            _require(collection, body.baskets)
            recommender = service.recommenders.get(collection, body.baskets)
        items = items_of(collection, body.ids)
        known = [item for item in items if recommender is None or item.id in recommender]
        found = recommend_each(collection, known, body.options(), recommender)
        shown = service.catalog.shown_path
        return [recommendations_document(each, [item.id], shown) for item, each in found]

    return {"results": await service.in_thread(run)}


@router.get("/recommendations", dependencies=[requires("read")], response_class=FileResponse)
async def get_recommendations(request: Request, name: str) -> FileResponse:
    """Return the latest table of recommendations, as CSV."""
    service: Service = request.app.state.service
    file = await service.in_thread(service.catalog.finished_file, name, "recommendations")
    return FileResponse(
        file,
        media_type="text/csv",
        filename=f"{name}-recommendations.csv",
        headers={"Cache-Control": "private, no-cache"},
    )


@router.get("/recommendations/rules", dependencies=[requires("read")])
async def get_rules(request: Request, response: Response, name: str) -> SavedRules:
    """Return the rules that are saved with the collection, for everybody who recommends from it.

    Their `ETag` is what `If-Match` takes when they are replaced.
    """
    service: Service = request.app.state.service
    rules = await service.in_thread(lambda: StoredRules(service.catalog.open(name)).read())
    response.headers["ETag"] = f'"{revision(rules)}"'
    return SavedRules(rules=rules)


@router.put("/recommendations/rules", dependencies=[requires("write")])
async def put_rules(
    request: Request,
    response: Response,
    name: str,
    body: SavedRules,
    if_match: Annotated[str | None, Header(max_length=100)] = None,
) -> SavedRules:
    """Save rules with the collection, in place of those before; a request still names those it follows.

    Of two requests at once, the one that ends last holds. With the `ETag` of the rules that are replaced as
    `If-Match`, the second is refused instead (412).
    """
    service: Service = request.app.state.service
    before = None if if_match in (None, "*") else if_match.removeprefix("W/").strip('"')
    try:
        await service.in_thread(
            lambda: StoredRules(service.catalog.open(name)).write(body.rules, before=before)
        )
    except RulesChangedError as error:
        raise Problem(412, str(error), code="rules_changed") from None
    response.headers["ETag"] = f'"{revision(body.rules)}"'
    return body


@router.get("/baskets", dependencies=[requires("read")])
async def list_baskets(request: Request, name: str) -> dict[str, Any]:
    """Return the baskets that recommendations can be based on."""
    service: Service = request.app.state.service

    def read() -> list[dict[str, Any]]:
        stored = StoredRecommenders(service.catalog.open(name))
        return [stored.facts(each) for each in stored.names()]

    return {"baskets": await service.in_thread(read)}


@router.put("/baskets/{baskets}", status_code=202, dependencies=[requires("write")], openapi_extra=_BASKETS)
async def put_baskets(request: Request, start: StartAnalysis, name: str, baskets: str) -> dict[str, Any]:
    """Learn from a table of baskets, as a job; it replaces what has the name."""
    service: Service = request.app.state.service
    collection = await service.in_thread(service.catalog.open, name)
    StoredRecommenders(collection).file(baskets)  # the name is checked before anything is stored
    table = await sent_table(request, name, read_baskets)
    return await start("baskets", baskets=baskets, **table.job_args())


@router.delete("/baskets/{baskets}", status_code=204, dependencies=[requires("write")])
async def delete_baskets(request: Request, name: str, baskets: str) -> Response:
    """Delete what was learned from baskets."""
    service: Service = request.app.state.service

    def delete() -> None:
        collection = service.catalog.open(name)
        _require(collection, baskets)
        StoredRecommenders(collection).delete(baskets)

    await service.in_thread(delete)
    return Response(status_code=204)


def _require(collection: Collection, baskets: str) -> None:
    if not StoredRecommenders(collection).file(baskets).exists():
        raise Problem(404, f"there are no baskets {baskets!r}", code="baskets_not_found", param="baskets")
