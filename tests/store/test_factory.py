"""One place opens stores, and says which it can open."""

from pathlib import Path

import pyarrow as pa
import pytest

from nearsight import Collection
from nearsight.errors import CollectionNotFoundError, InvalidParameterError, NearsightError
from nearsight.store import create_store, local_directory, locate, open_store, shown_uri
from nearsight.text_format import SHOWN_OPTIONS, without_passwords

from fake import FakeBackend

SCHEMA = pa.schema(
    [pa.field("id", pa.string(), nullable=False), pa.field("vector", pa.list_(pa.float32(), 4))]
)
REMOTE = ["mongo://host/db", "couch://host:1953/name", Path("mongo://host/db")]


def test_a_store_is_created_opened_and_created_again(tmp_path):
    create_store(tmp_path / "store", SCHEMA)
    store = create_store(str(tmp_path / "store"), SCHEMA)
    assert store.count() == 0
    assert open_store(tmp_path / "store").schema.names == ["id", "vector"]
    with pytest.raises(CollectionNotFoundError):
        open_store(tmp_path / "other")


@pytest.mark.parametrize("uri", REMOTE)
def test_a_uri_without_an_engine_is_refused(uri):
    scheme = str(uri).partition(":")[0]
    for call in (open_store, lambda uri: create_store(uri, SCHEMA)):
        with pytest.raises(InvalidParameterError, match=f"there is no store for {scheme}://"):
            call(uri)


def test_a_collection_at_such_a_uri_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (Collection.open, lambda uri: Collection.create(uri, model=FakeBackend())):
        with pytest.raises(InvalidParameterError, match="there is no store for"):
            call("mongo://ann:secret@host/db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [".nearsight", "/tmp/a:b", "C:\\photos", "C:/photos", "a/postgres://b"])
def test_directories_of_any_name(path):
    assert local_directory(path) == Path(path)


@pytest.mark.parametrize(
    "option",
    ["oauth_client_secret", "sslpassword", "pass", "PassWord", "p%61ssword", "pw", "token", "api_key"],
)
def test_an_option_that_may_hold_a_secret_is_not_shown(option):
    for scheme in ("postgres", "milvus", "mongo", "qdrant"):
        uri = f"{scheme}://ann@host:1/shop?collection=a&{option}=s3cr%20et&sslmode=require"
        shown = f"{scheme}://ann@host:1/shop?collection=a&{option}=***&sslmode=require"
        assert shown_uri(uri) == shown_uri(Path(uri.replace("//", "/"))).replace(":/", "://") == shown
        assert shown_uri(shown) == shown
        assert without_passwords(f"{uri} is away") == f"{shown} is away"
        with pytest.raises(NearsightError) as caught:
            locate(uri.replace("host", "")).open_store("store")
        assert "s3cr" not in str(caught.value)


def test_all_other_options_of_postgres_are_shown():
    psycopg = pytest.importorskip("psycopg")
    # "D" is of options for debugging.
    known = {
        one.keyword.decode() for one in psycopg.pq.Conninfo.get_defaults() if one.dispchar in (b"", b"D")
    }
    secret = {"scram_client_key", "scram_server_key", "sslkeylogfile"}
    assert known - secret <= SHOWN_OPTIONS
    hidden = {one.keyword.decode() for one in psycopg.pq.Conninfo.get_defaults() if one.dispchar == b"*"}
    assert not (hidden | secret) & SHOWN_OPTIONS


@pytest.mark.parametrize("place", ["photos?a=b", "/data/a:b@c?pw=1", "C:\\photos?token=1"])
def test_a_directory_is_shown_as_it_is(place):
    assert shown_uri(place) == place


def test_no_password_is_shown():
    for uri in ("postgres://ann:se/c@ret@h/db?collection=x", "mongo://h/db?password=secret&x=1"):
        with pytest.raises(InvalidParameterError) as caught:
            open_store(uri)
        assert "ret" not in str(caught.value), uri
