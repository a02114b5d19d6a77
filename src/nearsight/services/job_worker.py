"""The process of one job: ``python -m nearsight.services.job_worker``.

It reads the job as a line of JSON from stdin, and writes lines of JSON to stdout: how far it is, and at last
``result`` or ``error``. It ends when stdin is closed: a job does not outlive the service. Whatever else is
printed goes to stderr.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from nearsight import progress
from nearsight.errors import NearsightError

# How often progress is told, in seconds.
_INTERVAL_S = 0.25
_MAX_LISTED = 1000


def index(args: Mapping[str, Any]) -> dict[str, Any]:
    """Add a folder to a collection; what is there already costs a look at each file."""
    from nearsight import images
    from nearsight.collection import Collection

    collection = Collection.open(
        args["directory"], device=args.get("device", "auto"), cache_dir=_path(args.get("cache_dir"))
    )
    exclude, include_hidden = args.get("exclude") or (), bool(args.get("include_hidden"))
    exclusions = images.Exclusions(exclude, include_hidden=include_hidden)
    images.require_any([args["folder"]], exclusions=exclusions)
    report = collection.add(
        args["folder"],
        metadata=args.get("metadata"),
        prune=bool(args.get("prune")),
        exclude=exclude,
        include_hidden=include_hidden,
        n_threads=args.get("n_threads"),
    )
    facts = report.to_dict()
    for name in ("failed", "vanished", "excluded"):
        facts[f"n_{name}"] = len(facts[name])
        facts[name] = facts[name][:_MAX_LISTED]
    return facts


def analysis(kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Run the function of that name in `analysis_jobs`, which imports what only analyses need."""
    from nearsight.services import analysis_jobs

    result: dict[str, Any] = getattr(analysis_jobs, kind)(args)
    return result


_ANALYSES = (
    *("duplicates", "clusters", "cluster_split", "map", "audit"),
    *("compact", "copy", "reduce_dim", "dimension", "monitor", "outliers", "segments"),
    *("classifier", "label_check", "predictions"),
    *("baskets", "recommendations"),
    *("faces", "faces_upgrade", "upgrade"),
)


def anomaly(kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Run the function of that name in `anomaly_jobs`."""
    from nearsight.services import anomaly_jobs

    result: dict[str, Any] = getattr(anomaly_jobs, kind)(args)
    return result


def of_models(kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Run the function of that name in `model_jobs`."""
    from nearsight.services import model_jobs

    result: dict[str, Any] = getattr(model_jobs, kind)(args)
    return result


#: What a job can be, by its kind.
KINDS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "index": index,
    **{kind: partial(analysis, kind) for kind in _ANALYSES},
    **{kind: partial(anomaly, kind) for kind in ("anomaly_fit", "anomaly_score", "anomaly_watch")},
    **{kind: partial(of_models, kind) for kind in ("evaluation", "training", "quantization")},
}


def main(stdin: IO[str], stdout: IO[str]) -> int:
    """Run one job; return the exit code."""
    document = json.loads(stdin.readline())
    threading.Thread(target=_end_with_parent, args=(stdin,), daemon=True).start()
    if limit := document.get("memory_bytes"):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with contextlib.suppress(OSError):
        os.nice(10)
    lock, told = threading.Lock(), [0.0]

    def write(**facts: Any) -> None:
        with lock:
            stdout.write(json.dumps(facts) + "\n")
            stdout.flush()

    def listener(message: str, done: float, total: float | None) -> None:
        now = time.monotonic()
        if now - told[0] >= _INTERVAL_S or done == total:
            told[0] = now
            write(message=message, done=done, total=total)

    try:
        with contextlib.redirect_stdout(sys.stderr), progress.told_to(listener):
            result = KINDS[document["kind"]](document["args"])
        write(result=result)
        return 0
    except NearsightError as error:
        write(error=str(error), error_type=type(error).__name__)
    except MemoryError:
        write(error="there is not enough memory", error_type="MemoryError")
    return 1


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _end_with_parent(stdin: IO[str]) -> None:
    # What is written is whole at any moment, so nothing needs to be put in order.
    while stdin.read(1):
        pass
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main(sys.stdin, sys.stdout))
