"""What a client and a collection of a service can be asked, once for both ways of waiting."""

import functools
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from nearsight.client import (
    analysis_operations,
    anomaly_operations,
    customer_operations,
    face_operations,
    job_operations,
    label_operations,
    maintenance_operations,
    model_operations,
    operations,
    recommendation_operations,
    upgrade_operations,
)
from nearsight.client.requests import Operation

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """What waits for each answer."""

    _client: Any


class Awaiting:
    """What is awaited."""

    _client: Any


class Call(Generic[P, T]):
    """An operation as a method: a `Blocking` owner gets the result, an `Awaiting` one an awaitable.

    Parameters
    ----------
    operation : callable
        Its first parameter is the owner; its docstring becomes that of the method.
    """

    def __init__(self, operation: Callable[Concatenate[Any, P], Operation[T]]) -> None:
        self._operation = operation

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: Blocking, owner: Any = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Awaiting, owner: Any = None) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, instance: None, owner: Any = None) -> Callable[..., Any]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Callable[..., Any]:
        method = _awaitable if issubclass(owner, Awaiting) else _blocking
        function = method(self._operation)
        function.__name__ = self._name
        return function if instance is None else MethodType(function, instance)


def _blocking(operation: Callable[..., Operation[T]]) -> Callable[..., T]:
    @functools.wraps(operation)
    def method(self: Any, /, *args: Any, **kwargs: Any) -> T:
        result: T = self._client.run(operation(self, *args, **kwargs))
        return result

    return method


def _awaitable(operation: Callable[..., Operation[T]]) -> Callable[..., Awaitable[T]]:
    @functools.wraps(operation)
    async def method(self: Any, /, *args: Any, **kwargs: Any) -> T:
        result: T = await self._client.run(operation(self, *args, **kwargs))
        return result

    return method


class ClientCalls:
    """What a client can be asked."""

    embed = Call(operations.embed)
    embed_texts = Call(operations.embed_texts)
    models = Call(operations.models)
    collections = Call(operations.collections)
    delete_collection = Call(operations.delete)
    evaluate = Call(model_operations.evaluate)
    train = Call(model_operations.train)
    quantize = Call(model_operations.quantize)
    download_model = Call(model_operations.download)
    delete_model = Call(model_operations.delete)
    plan = Call(model_operations.plan)
    doctor = Call(model_operations.doctor)
    jobs = Call(job_operations.jobs)
    job = Call(job_operations.job)
    cancel_job = Call(job_operations.cancel)
    resume_job = Call(job_operations.resume)
    wait = Call(job_operations.wait)
    _create = Call(operations.create)


class CollectionCalls:
    """What a collection can be asked."""

    info = Call(operations.info)
    count = Call(operations.count)
    metadata_types = Call(operations.metadata_types)
    page = Call(operations.page)
    to_arrow = Call(operations.to_arrow)
    get = Call(operations.get)
    search = Call(operations.search)
    add = Call(operations.add)
    index = Call(operations.index)
    update_metadata = Call(operations.update_metadata)
    change_metadata = Call(operations.change_metadata)
    undo_metadata = Call(operations.undo_metadata)
    remove = Call(operations.remove)
    copy_from = Call(operations.copy_from)
    export = Call(operations.export)
    vectors = Call(operations.vectors)
    thumbnails = Call(operations.thumbnails)
    original = Call(operations.original)

    analyses = Call(analysis_operations.analyses)
    find_duplicates = Call(analysis_operations.find_duplicates)
    duplicates = Call(analysis_operations.duplicates)
    decide_duplicates = Call(analysis_operations.decide_duplicates)
    duplicate_decisions = Call(analysis_operations.duplicate_decisions)
    cluster = Call(analysis_operations.cluster)
    clusters = Call(analysis_operations.clusters)
    rename_cluster = Call(analysis_operations.rename_cluster)
    merge_clusters = Call(analysis_operations.merge_clusters)
    move_images = Call(analysis_operations.move_images)
    split_cluster = Call(analysis_operations.split_cluster)
    undo_cluster_edit = Call(analysis_operations.undo_cluster_edit)
    move_to_trash = Call(analysis_operations.move_to_trash)
    trash = Call(analysis_operations.trash)
    restore_from_trash = Call(analysis_operations.restore_from_trash)
    layout_2d = Call(analysis_operations.layout_2d)
    map = Call(analysis_operations.map)
    audit = Call(analysis_operations.audit)
    latest_audit = Call(analysis_operations.latest_audit)
    advise_dimension = Call(analysis_operations.advise_dimension)
    monitor = Call(analysis_operations.monitor)
    outliers = Call(analysis_operations.outliers)

    segment_customers = Call(customer_operations.segment_customers)
    customer_segments = Call(customer_operations.customer_segments)
    assign_customers = Call(customer_operations.assign_customers)

    compact = Call(maintenance_operations.compact)
    copy = Call(maintenance_operations.copy)
    reduce_dim = Call(maintenance_operations.reduce_dim)
    center = Call(maintenance_operations.center)

    labels = Call(label_operations.labels)
    set_labels = Call(label_operations.set_labels)
    undo_labels = Call(label_operations.undo_labels)
    next_images = Call(label_operations.next_images)
    label_accuracy = Call(label_operations.label_accuracy)
    check_labels = Call(label_operations.check_labels)
    confirm_labels = Call(label_operations.confirm_labels)
    fit_classifier = Call(label_operations.fit_classifier)
    load_classifier = Call(label_operations.load_classifier)
    classifiers = Call(label_operations.classifiers)
    save_classifier = Call(label_operations.save_classifier)
    delete_classifier = Call(label_operations.delete_classifier)
    classify = Call(label_operations.classify)

    recommend = Call(recommendation_operations.recommend)
    recommend_each = Call(recommendation_operations.recommend_each)
    recommendation_table = Call(recommendation_operations.recommendation_table)
    recommendation_rules = Call(recommendation_operations.recommendation_rules)
    save_recommendation_rules = Call(recommendation_operations.save_recommendation_rules)
    upgrade = Call(upgrade_operations.upgrade)
    upgrade_state = Call(upgrade_operations.upgrade_state)
    commit_upgrade = Call(upgrade_operations.commit_upgrade)
    abandon_upgrade = Call(upgrade_operations.abandon_upgrade)
    roll_back_upgrade = Call(upgrade_operations.roll_back_upgrade)
    search_by_model = Call(upgrade_operations.search_by_model)

    baskets = Call(recommendation_operations.baskets)
    fit_baskets = Call(recommendation_operations.fit_baskets)
    delete_baskets = Call(recommendation_operations.delete_baskets)

    detectors = Call(anomaly_operations.detectors)
    fit_detector = Call(anomaly_operations.fit_detector)


class DetectorCalls:
    """What a detector can be asked."""

    info = Call(anomaly_operations.info)
    delete = Call(anomaly_operations.delete)
    refit = Call(anomaly_operations.refit)
    score = Call(anomaly_operations.score)
    score_folder = Call(anomaly_operations.score_folder)
    watch_folder = Call(anomaly_operations.watch_folder)
    scored_images = Call(anomaly_operations.scored_images)
    heatmap = Call(anomaly_operations.heatmap)
    threshold = Call(anomaly_operations.threshold)
    threshold_effect = Call(anomaly_operations.threshold_effect)
    set_threshold = Call(anomaly_operations.set_threshold)
    decide = Call(anomaly_operations.decide)


class FaceCalls:
    """What the faces of a collection can be asked."""

    find = Call(face_operations.find)
    upgrade = Call(face_operations.upgrade)
    export = Call(face_operations.export)
    people = Call(face_operations.people)
    person = Call(face_operations.person)
    images = Call(face_operations.images)
    crop = Call(face_operations.crop)
    name_person = Call(face_operations.name)
    confirm = Call(face_operations.confirm)
    reject = Call(face_operations.reject)
    split = Call(face_operations.split)
    merge = Call(face_operations.merge)
    hide = Call(face_operations.hide)
    undo = Call(face_operations.undo)
    forget = Call(face_operations.forget)
    enroll = Call(face_operations.enroll)
    identify = Call(face_operations.identify)
    verify = Call(face_operations.verify)
