import json
import stat

import pytest

from nearsight.errors import InvalidParameterError, StorageError
from nearsight.services.keys import KeyStore


def test_only_the_hash_is_stored(tmp_path):
    store = KeyStore(tmp_path / "data")
    key, secret = store.add("shop", ["embed", "read"])
    text = store.path.read_text()
    assert secret not in text
    assert secret.startswith(key.prefix)
    assert len(secret) > 40
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert store.find(secret) == key
    assert store.find(secret + "x") is None
    assert store.find("") is None
    assert store.find("\udcff") is None


def test_changes_are_seen_by_others_at_once(tmp_path):
    store, other = KeyStore(tmp_path), KeyStore(tmp_path)
    assert len(other) == 0
    _, secret = store.add("a", ["admin"])
    assert other.find(secret).allows("faces")
    store.revoke("a")
    assert other.find(secret) is None


def test_scopes(tmp_path):
    key, _ = KeyStore(tmp_path).add("a", ["read"])
    assert key.allows("read")
    assert not key.allows("write")


@pytest.mark.parametrize(
    ("name", "scopes"), [("a", []), ("a", ["root"]), (" ", ["read"]), ("taken", ["read"])]
)
def test_bad_keys_are_refused(tmp_path, name, scopes):
    store = KeyStore(tmp_path)
    store.add("taken", ["read"])
    with pytest.raises(InvalidParameterError):
        store.add(name, scopes)
    assert len(KeyStore(tmp_path)) == 1


def test_an_unknown_key_cannot_be_revoked(tmp_path):
    store = KeyStore(tmp_path)
    store.add("a", ["read"])
    with pytest.raises(InvalidParameterError, match="there are: a"):
        store.revoke("b")


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [{}]}', json.dumps({"keys": [{"name": 1}]})])
def test_a_damaged_file_does_not_open_the_service(tmp_path, content):
    store = KeyStore(tmp_path)
    store.path.write_text(content)
    with pytest.raises(StorageError, match="damaged"):
        store.all()
