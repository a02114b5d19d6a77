"""Long work and how far it is: a table that the service and the command line share."""

import json
import os
import secrets
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearsight.errors import InvalidParameterError, StorageError
from nearsight.services.database import Database, FileChanges
from nearsight.text_format import without_passwords

FILENAME = "jobs.sqlite"
STATES = ("queued", "running", "done", "failed", "cancelled", "interrupted")
ENDED = ("done", "failed", "cancelled", "interrupted")
# What may simply run again after a restart: work that is done already costs next to nothing.
RESUMED = ("index", "anomaly_watch")
# What runs until it is cancelled, beside the job whose turn it is.
STANDING = ("anomaly_watch",)
# How many of those run at once: each holds a model in memory.
MOST_STANDING = 4
# What the command line of a job's process holds; a process of that id without it is somebody else's.
WORKER_MODULE = "nearsight.services.job_worker"
_IDEMPOTENT_S = 24 * 3600
_TIMEOUT_S = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    args TEXT NOT NULL,
    state TEXT NOT NULL,
    done REAL NOT NULL DEFAULT 0,
    total REAL,
    message TEXT NOT NULL DEFAULT '',
    result TEXT,
    error TEXT,
    pid INTEGER,
    is_cancel_requested INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    key_prefix TEXT NOT NULL DEFAULT '',
    idempotency_key TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE INDEX IF NOT EXISTS jobs_by_idempotency_key ON jobs (idempotency_key);
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes
    ----------
    id, kind : str
    args : dict
        What it works on.
    state : str
        One of `STATES`.
    done, total : float
        How far it is; the total is None while unknown.
    message : str
        What it does now.
    result : dict or None
        What came out.
    error : str or None
        Why it failed.
    pid : int or None
        Its process, while it runs.
    is_cancel_requested : bool
    created, started, ended : float
        Seconds since 1970.
    key_prefix : str
        Of the key that asked for it.
    """

    id: str
    kind: str
    args: dict[str, Any]
    state: str
    done: float
    total: float | None
    message: str
    result: dict[str, Any] | None
    error: str | None
    pid: int | None
    is_cancel_requested: bool
    created: float
    started: float | None
    ended: float | None
    key_prefix: str


class JobTable:
    """The jobs of a data directory, in SQLite.

    Parameters
    ----------
    directory : path
        It is made if it is missing.
    """

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory) / FILENAME
        self._database = Database(self.path, _SCHEMA, _TIMEOUT_S)

    def add(
        self, kind: str, args: Mapping[str, Any], *, key_prefix: str = "", idempotency_key: str | None = None
    ) -> tuple[Job, bool]:
        """Queue a job; return it, and whether it is new.

        Parameters
        ----------
        args : mapping
            ``request``, if it is there, is what a request with the same key is known by: with that of the
            earlier one, what the others say is no matter.
        idempotency_key : str, optional
            A job of the same key, asked for by the same `key_prefix` within a day, is returned instead.

        Raises
        ------
        InvalidParameterError
            The key was used for something else.
        """
        text = json.dumps(args, sort_keys=True)
        with self._transaction() as database:
            earlier = _of_idempotency_key(database, key_prefix, idempotency_key)
            if earlier is not None:
                is_repeated = "request" in args and earlier.args.get("request") == args["request"]
                if not is_repeated and (earlier.kind, earlier.args) != (kind, json.loads(text)):
                    raise InvalidParameterError(
                        f"the Idempotency-Key {idempotency_key!r} was used for another job; choose a new one"
                    )
                return earlier, False
            id = secrets.token_hex(8)
            database.execute(
                "INSERT INTO jobs (id, kind, args, state, created, key_prefix, idempotency_key)"
                " VALUES (?, ?, ?, 'queued', ?, ?, ?)",
                (id, kind, text, time.time(), key_prefix, idempotency_key),
            )
            return _job(database.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()), True

    def repeated(self, request: str, *, key_prefix: str, idempotency_key: str) -> Job | None:
        """Return the job that the same request made with the same key within a day; see `add`."""
        with self._transaction() as database:
            earlier = _of_idempotency_key(database, key_prefix, idempotency_key)
        return earlier if earlier is not None and earlier.args.get("request") == request else None

    def get(self, id: str) -> Job:
        """Return a job.

        Raises
        ------
        InvalidParameterError
            There is none of that id.
        """
        with self._transaction() as database:
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise InvalidParameterError(f"there is no job {id!r}; nearsight job list shows them")
        return _job(row)

    def list(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        collection: str | None = None,
        limit: int = 100,
        before: float | None = None,
    ) -> "list[Job]":
        """Return jobs, the latest first."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT * FROM jobs WHERE (:state IS NULL OR state = :state)"
                " AND (:kind IS NULL OR kind = :kind)"
                " AND (:collection IS NULL OR json_extract(args, '$.collection') = :collection)"
                " AND (:before IS NULL OR created < :before) ORDER BY created DESC, id LIMIT :limit",
                {"state": state, "kind": kind, "collection": collection, "before": before, "limit": limit},
            ).fetchall()
        return [_job(row) for row in rows]

    def waits(self) -> dict[str, str]:
        """Return what each queued job waits for, in words, by its id."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT id, kind, state FROM jobs WHERE state IN ('running', 'queued')"
                " ORDER BY state = 'queued', created, id"
            ).fetchall()
        told: dict[str, str] = {}
        for is_standing in (False, True):
            before: list[Any] = []
            for row in (each for each in rows if (each["kind"] in STANDING) is is_standing):
                if row["state"] == "queued":
                    told[row["id"]] = _waits_for(before, is_standing=is_standing)
                before.append(row)
        return told

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of jobs by kind and state."""
        with self._transaction() as database:
            rows = database.execute("SELECT kind, state, count(*) FROM jobs GROUP BY kind, state").fetchall()
        return {(row[0], row[1]): row[2] for row in rows}

    def claim(self) -> Job | None:
        """Return the oldest queued job, which is running from now on; None if there is none.

        Those that run until they are cancelled are left to `claim_standing`.
        """
        return self._claim("NOT IN")

    def claim_standing(self) -> Job | None:
        """Return the oldest queued job of a kind in `STANDING`, which is running from now on."""
        return self._claim("IN")

    def _claim(self, how: str) -> Job | None:
        kinds = ", ".join(f"'{kind}'" for kind in STANDING)
        with self._transaction() as database:
            row = database.execute(
                "UPDATE jobs SET state = 'running', started = ?, done = 0, total = NULL, message = '', "
                "error = NULL"
                f" WHERE id = (SELECT id FROM jobs WHERE state = 'queued' AND kind {how} ({kinds})"
                " ORDER BY created, id LIMIT 1) RETURNING *",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    def report(self, id: str, *, done: float, total: float | None, message: str) -> None:
        """Note how far a job is."""
        self._set(id, done=done, total=total, message=message)

    def has_started(self, id: str, pid: int) -> None:
        """Note the process of a job."""
        self._set(id, pid=pid)

    def finish(
        self, id: str, state: str, *, result: Mapping[str, Any] | None = None, error: str | None = None
    ) -> None:
        """Note how a job ended."""
        text = None if result is None else json.dumps(result)
        error = None if error is None else without_passwords(error)
        self._set(id, state=state, result=text, error=error, ended=time.time(), pid=None)

    def cancel(self, id: str) -> Job:
        """Cancel a job: at once if it does not run, else by ending its process, as whoever runs it sees.

        Raises
        ------
        InvalidParameterError
            There is no such job, or it is done or cancelled.
        """
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND state IN ('queued', "
                "'interrupted', 'failed')",
                (time.time(), id),
            ).rowcount
            changed += database.execute(
                "UPDATE jobs SET is_cancel_requested = 1 WHERE id = ? AND state = 'running'", (id,)
            ).rowcount
        job = self.get(id)
        if not changed:
            raise InvalidParameterError(
                f"the job {id} is {job.state}; only a job that waits or runs can be cancelled"
            )
        if job.state == "running" and job.pid is not None and is_worker(job.pid):
            os.kill(job.pid, signal.SIGTERM)
        return job

    def resume(self, id: str) -> Job:
        """Queue a job again that was interrupted, failed or cancelled.

        Raises
        ------
        InvalidParameterError
            There is no such job, it waits, runs or is done, or its collection was deleted.
        """
        if self.get(id).args.get("is_detached"):
            raise InvalidParameterError(f"the collection of the job {id} was deleted; start a new job")
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET state = 'queued', is_cancel_requested = 0, ended = NULL, error = NULL, "
                "created = ?"
                " WHERE id = ? AND state IN ('interrupted', 'failed', 'cancelled')",
                (time.time(), id),
            ).rowcount
        job = self.get(id)
        if not changed:
            raise InvalidParameterError(
                f"the job {id} is {job.state}; only a job that ended early can be resumed"
            )
        return job

    def detach(self, collection: str) -> None:
        """Note that a collection is deleted: its jobs go on in no other one that gets its name."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET args = json_set(args, '$.is_detached', json('true'))"
                " WHERE json_extract(args, '$.collection') = ?",
                (collection,),
            )

    def recover(self) -> None:
        """After a crash of the service: end what still runs, and queue again what may simply go on."""
        self._forget_passwords()
        running = self.list(state="running", limit=10_000)
        for job in running:
            if job.pid is not None and is_worker(job.pid):
                os.kill(job.pid, signal.SIGKILL)
            self.finish(job.id, "cancelled" if job.is_cancel_requested else "interrupted")
        for job in self.list(state="interrupted", limit=10_000):
            if job.kind in RESUMED:
                self.resume(job.id)

    def changes(self) -> FileChanges:
        """Return what tells whether any process may have written to the table since."""
        return self._database.changes()

    def _forget_passwords(self) -> None:
        """Remove the passwords of databases that earlier versions wrote down."""
        with self._transaction() as database:
            rows = database.execute("SELECT id, args FROM jobs WHERE args LIKE '%://%'").fetchall()
            told = [(without_passwords(row["args"]), row["id"]) for row in rows]
            changed = [pair for pair, row in zip(told, rows, strict=True) if pair[0] != row["args"]]
            database.executemany("UPDATE jobs SET args = ? WHERE id = ?", changed)
        if changed:
            self._database.vacuum()

    def _set(self, id: str, **values: Any) -> None:
        columns = ", ".join(f"{name} = :{name}" for name in values)
        with self._transaction() as database:
            database.execute(f"UPDATE jobs SET {columns} WHERE id = :id", {**values, "id": id})

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be used: {error}") from error
        with self._database.transaction() as database:
            yield database


def _of_idempotency_key(database: sqlite3.Connection, key_prefix: str, key: str | None) -> Job | None:
    if not key:
        return None
    row = database.execute(
        "SELECT * FROM jobs WHERE idempotency_key = ? AND key_prefix = ? AND created > ?",
        (key, key_prefix, time.time() - _IDEMPOTENT_S),
    ).fetchone()
    return None if row is None else _job(row)


def _waits_for(before: "list[sqlite3.Row]", *, is_standing: bool) -> str:
    """Return what a job waits for that comes after others; those that run come first."""
    if is_standing and len(before) >= MOST_STANDING:
        return f"{MOST_STANDING} folders are watched, which is the most at once; cancel one of these jobs"
    if is_standing or not before:
        return "it starts in a moment, if the service runs"
    first, *others = before
    more = f" and {len(others)} more" if others else ""
    return f"jobs run one at a time: it waits for {first['id']} ({first['kind']}){more}"


def is_worker(pid: int) -> bool:
    """Whether a process runs, and is one of a job: process ids are used again."""
    try:
        return WORKER_MODULE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        if Path("/proc/self").exists():
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _job(row: sqlite3.Row) -> Job:
    facts = {name: row[name] for name in row.keys() if name != "idempotency_key"}  # noqa: SIM118 - a Row
    facts["args"] = json.loads(facts["args"])
    facts["result"] = None if facts["result"] is None else json.loads(facts["result"])
    facts["is_cancel_requested"] = bool(facts["is_cancel_requested"])
    return Job(**facts)
