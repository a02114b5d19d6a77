"""Checks of a database, and of a collection in it, each with its remedy."""

import ipaddress
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from nearsight.store.location import StoreCheck
from nearsight.store.postgres.address import Address
from nearsight.store.postgres.indexes import MAX_DIM, MIN_INDEXED_ROWS, Indexes, vector_method
from nearsight.store.postgres.sql import name_sql
from nearsight.store.postgres.tables import ROW, Tables

_OLDEST_SERVER, _OLDEST_PGVECTOR = 13, (0, 8)
# Statistics are old when more than this share of the rows was written since.
_MAX_CHANGED = 0.2
_COMPACT = "run: nearsight compact -c URI"


def check_server(connection: Any, address: Address) -> Iterator[StoreCheck]:
    """Check what does not depend on the collection: the server, the connection, the extension, the rights."""
    yield _server(connection)
    yield _encryption(connection)
    yield _extension(connection)
    yield _permissions(connection, address)


def check_collection(
    connection: Any, tables: Tables, indexes: Indexes, schema: pa.Schema
) -> Iterator[StoreCheck]:
    """Check the rows, the indexes and the statistics of a collection."""
    [n_rows, n_lost] = connection.execute(
        f"SELECT count(*), count(*) - count(v.{ROW}) FROM {tables.rows} r LEFT JOIN {tables.vectors} v"
        f" USING ({ROW})"
    ).fetchone()
    yield _rows(n_rows, n_lost, tables)
    yield _indexes(connection, tables, indexes, schema, n_rows)
    yield _statistics(connection, tables, n_rows)


def _server(connection: Any) -> StoreCheck:
    version, encoding, is_replica, is_read_only = connection.execute(
        "SELECT current_setting('server_version'), current_setting('server_encoding'), pg_is_in_recovery(),"
        " current_setting('default_transaction_read_only')::boolean"
    ).fetchone()
    detail = f"PostgreSQL {version.split()[0]}, {encoding}"
    if encoding != "UTF8":
        fix = "make a database for nearsight: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
        return StoreCheck("server", "fail", f"{detail}: not every file name can be stored", fix)
    if int(version.split(".")[0]) < _OLDEST_SERVER:
        return StoreCheck("server", "warn", detail, f"update it to PostgreSQL {_OLDEST_SERVER} or newer")
    if is_replica or is_read_only:
        reason = "a replica" if is_replica else "read-only by its settings"
        return StoreCheck("server", "warn", f"{detail}, {reason}", "to index, connect to the primary server")
    return StoreCheck("server", "ok", detail)


def _encryption(connection: Any) -> StoreCheck:
    row = connection.execute(
        "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    ).fetchone() or (False, None)
    mode = connection.info.get_parameters().get("sslmode", "prefer")
    if row[0]:
        if mode.startswith("verify-"):
            return StoreCheck("encryption", "ok", f"{row[1]}, sslmode={mode}")
        fix = "write sslmode=verify-full into the URI, and the server's root certificate into sslrootcert"
        return StoreCheck("encryption", "warn", f"{row[1]}, but no certificate was checked", fix)
    if _is_local(connection):
        return StoreCheck("encryption", "ok", "none; the server is on this machine")
    fix = "turn on ssl at the server, and write sslmode=verify-full into the URI"
    return StoreCheck("encryption", "warn", "none: images and password cross the network in the open", fix)


def _is_local(connection: Any) -> bool:
    host = connection.info.host
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _extension(connection: Any) -> StoreCheck:
    rows = connection.execute(
        "SELECT name, installed_version, default_version FROM pg_available_extensions"
        " WHERE name IN ('vector', 'vchord') ORDER BY name = 'vchord'"
    ).fetchall()
    versions = {name: (installed, default) for name, installed, default in rows}
    installed, default = versions.get("vector", (None, None))
    update = "install pgvector 0.8 or newer on the server"
    if installed is None and default is None:
        return StoreCheck("pgvector", "fail", "the server does not have it", update)
    is_old = _numbers(installed or default) < _OLDEST_PGVECTOR
    if installed is None:
        if not is_old and _may_make_extension(connection, default):
            return StoreCheck(
                "pgvector", "ok", f"{default}; the first command that writes puts it into the database"
            )
        fix = f"{update}; then" if is_old else "let the owner of the database run"
        return StoreCheck(
            "pgvector", "fail", f"{default} is not in this database", f"{fix}: CREATE EXTENSION vector"
        )
    if is_old:
        fix = "" if _numbers(default) >= _OLDEST_PGVECTOR else f"{update}, and then "
        return StoreCheck(
            "pgvector", "fail", f"{installed} is too old", f"{fix}run: ALTER EXTENSION vector UPDATE"
        )
    chord = versions.get("vchord", (None, None))[0]
    return StoreCheck("pgvector", "ok", installed + (f", VectorChord {chord}" if chord else ""))


def _may_make_extension(connection: Any, version: str) -> bool:
    row = connection.execute(
        "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
        " OR trusted AND has_database_privilege(current_database(), 'CREATE')"
        " FROM pg_available_extension_versions WHERE name = 'vector' AND version = %s",
        (version,),
    ).fetchone()
    return bool(row and row[0])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _permissions(connection: Any, address: Address) -> StoreCheck:
    user = connection.info.user
    [schema] = connection.execute("SELECT to_regnamespace(%s)::oid", (name_sql(address.schema),)).fetchone()
    if schema is None:
        if connection.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchone()[0]:
            return StoreCheck("permissions", "ok", f"{user} may make the schema {address.schema}")
        made = f"CREATE SCHEMA {name_sql(address.schema)} AUTHORIZATION {name_sql(user)}"
        fix = f"let the owner of the database run: {made}"
        return StoreCheck("permissions", "fail", f"{user} may not make the schema {address.schema}", fix)
    names = ["_documents", "_stores", address.collection]
    names += [f"{address.collection}.vectors", f"{address.collection}.binary"]
    lacking = [
        f"{right} on {name}"
        for name, right in connection.execute(
            "SELECT c.relname, p.name FROM pg_class c,"
            " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (name)"
            " WHERE c.relnamespace = %s AND c.relkind = 'r' AND c.relname = ANY(%s)"
            " AND NOT has_table_privilege(c.oid, p.name) ORDER BY 1, 2",
            (schema, names),
        ).fetchall()
    ]
    for right in ("USAGE", "CREATE"):
        if not connection.execute("SELECT has_schema_privilege(%s::oid, %s)", (schema, right)).fetchone()[0]:
            lacking.insert(0, f"{right} on the schema")
    n_foreign = connection.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = %s AND relname = ANY(%s)"
        " AND NOT pg_has_role(relowner, 'USAGE')",
        (schema, names[2:]),
    ).fetchone()[0]
    if n_foreign:
        lacking.append("ownership of the tables, which indexes and new columns need")
    if lacking:
        can_read = not any(right.startswith(("SELECT", "USAGE")) for right in lacking)
        fix = f"let the owner GRANT them to {user}, or make {user} a member of the role that owns the tables"
        return StoreCheck(
            "permissions", "warn" if can_read else "fail", f"{user} lacks {', '.join(lacking)}", fix
        )
    return StoreCheck("permissions", "ok", f"{user} may read and write")


def _rows(n_rows: int, n_lost: int, tables: Tables) -> StoreCheck:
    if n_lost:
        fix = (
            f"delete them, and index again: DELETE FROM {tables.rows} r WHERE NOT EXISTS"
            f" (SELECT FROM {tables.vectors} v WHERE v.{ROW} = r.{ROW})"
        )
        return StoreCheck(
            "rows", "fail", f"{n_lost:,} of {n_rows:,} have no vector: no search finds them", fix
        )
    return StoreCheck("rows", "ok", f"{n_rows:,}, each with its vector")


def _indexes(connection: Any, tables: Tables, indexes: Indexes, schema: pa.Schema, n_rows: int) -> StoreCheck:
    dim = schema.field("vector").type.list_size
    if n_rows <= MIN_INDEXED_ROWS:
        return StoreCheck("index", "ok", f"none yet: up to {MIN_INDEXED_ROWS:,} rows are compared one by one")
    invalid = connection.execute(
        "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
        " AND indrelid = ANY(ARRAY[to_regclass(%s), to_regclass(%s)]::oid[])",
        (tables.rows, tables.vectors),
    ).fetchone()[0]
    if invalid:
        return StoreCheck("index", "warn", "an index is not valid: its making was interrupted", _COMPACT)
    if missing := indexes.missing(connection, schema):
        names = ", ".join(sorted(missing))
        return StoreCheck("index", "warn", f"missing: {names}; searches compare all rows", _COMPACT)
    method = vector_method(connection, tables)
    if method is None:
        return StoreCheck("index", "ok", f"none: pgvector indexes up to {MAX_DIM:,} numbers, not {dim:,}")
    return StoreCheck("index", "ok", f"{method.name} of the vectors, and of what filters compare")


def _statistics(connection: Any, tables: Tables, n_rows: int) -> StoreCheck:
    when, n_changed = connection.execute(
        "SELECT greatest(last_analyze, last_autoanalyze), n_mod_since_analyze FROM pg_stat_all_tables"
        " WHERE relid = to_regclass(%s)",
        (tables.rows,),
    ).fetchone()
    detail = f"of {when:%Y-%m-%d %H:%M} UTC" if when else "never gathered"
    if n_rows > MIN_INDEXED_ROWS and (when is None or n_changed > _MAX_CHANGED * n_rows):
        detail += f", {n_changed:,} rows were written since" if when else ""
        fix = f"turn on autovacuum at the server; {_COMPACT}"
        return StoreCheck("statistics", "warn", detail, fix)
    return StoreCheck("statistics", "ok", detail)
