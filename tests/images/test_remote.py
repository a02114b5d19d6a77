"""URLs, on fsspec's memory file system and a web server on this machine."""

import datetime
import http.server
import sys
import threading
import uuid

import fsspec
import pytest

from nearsight.errors import ImageError, ImageFailure
from nearsight.images import Limits, count, covers, decode, exists, find, roots
from nearsight.images.remote import RemoteSource, refusal_reason, remote_stat
from nearsight.object_storage.driver import protocols

from sample_images import samples

IMAGE = samples()["jpeg"]
MAY_DAY = datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc)


@pytest.fixture
def store():
    fs = fsspec.filesystem("memory")
    root = f"/{uuid.uuid4().hex}"
    for name in ("b.jpg", "a/z.png", "a/b/c.jpg", "notes.txt", ".hidden.jpg", "a/.hid/d.jpg", "x[1].jpg"):
        fs.pipe(f"{root}/{name}", IMAGE)
    yield f"memory://{root}"
    fs.rm(root, recursive=True)


def found(url, **options):
    return [one if isinstance(one, ImageFailure) else one.path for one in find(url, **options)]


def test_a_folder_of_objects(store):
    for url in (store, store + "/"):
        names = [path.removeprefix(store + "/") for path in found(url)]
        assert sorted(names) == ["a/b/c.jpg", "a/z.png", "b.jpg", "x[1].jpg"]
        assert names == [path.removeprefix(store + "/") for path in found(url)]


def test_one_object(store):
    [one] = find(f"{store}/b.jpg")
    assert (one.path, one.key) == (f"{store}/b.jpg",) * 2
    assert one.read(Limits()) == IMAGE
    assert one.stat().size_bytes == len(IMAGE)
    assert decode(one).image.size == (64, 48)
    assert exists(one.key)
    assert found(f"{store}/x[1].jpg") == [f"{store}/x[1].jpg"]
    assert found(f"{store}/no.jpg") == [ImageFailure(f"{store}/no.jpg", "does not exist")]


def test_one_object_has_one_identity(store):
    for spelling in (store, store.replace(":///", "://")):
        [one] = find(f"{spelling}/b.jpg")
        assert (one.path, one.key) == (f"{spelling}/b.jpg", f"{store}/b.jpg")
        for inputs in (f"{spelling}/b.jpg", spelling, f"{spelling}/", f"{spelling}/*.jpg"):
            assert covers(roots(inputs), one.key), inputs
        assert not covers(roots(f"{spelling}/*.png"), one.key)
        assert not covers(roots(f"{spelling}/a"), one.key)


def test_globs_of_objects(store):
    assert found(f"{store}/**/*.jpg") == sorted(found(f"{store}/**/*.jpg"))
    assert f"{store}/a/b/c.jpg" in found(f"{store}/**/*.jpg")
    assert found(f"{store}/*.bmp") == [ImageFailure(f"{store}/*.bmp", "no image matches this pattern")]


def test_an_object_that_vanished(store):
    [one] = find(f"{store}/b.jpg")
    fsspec.filesystem("memory").rm(one.key.removeprefix("memory://"))
    with pytest.raises(ImageError, match="does not exist"):
        one.read(Limits())
    assert not exists(one.key)


def test_limits_hold(store):
    [one] = find(f"{store}/b.jpg")
    for source in (one, RemoteSource(one.path, one.key)):
        with pytest.raises(ImageError, match="max_bytes"):
            source.read(Limits(max_bytes=100))
        with pytest.raises(ImageError, match="max_seconds"):
            source.read(Limits(max_seconds=-1))


def test_the_stamp_changes_with_the_object(store):
    [before] = find(f"{store}/b.jpg")
    assert before.stat() == next(iter(find(f"{store}/b.jpg"))).stat() == RemoteSource("", before.key).stat()
    fsspec.filesystem("memory").pipe(before.key.removeprefix("memory://"), IMAGE + b"x")
    [after] = find(f"{store}/b.jpg")
    assert after.stat().stamp != before.stat().stamp
    assert 0 <= after.stat().stamp < 2**63


@pytest.mark.parametrize(
    "info",
    [
        {
            "size": 7,
            "ETag": '"x"',
            "LastModified": datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc),
        },
        {"size": 7, "etag": "x", "updated": "2024-05-01T00:00:00Z"},
        {"size": 7, "mtime": 1714521600.0},
        {"size": 7, "created": MAY_DAY.replace(tzinfo=None)},
    ],
)
def test_drivers_differ_in_their_words(info):
    stat = remote_stat(info)
    assert (stat.size_bytes, stat.modified_s) == (7, 1714521600.0)
    assert remote_stat({**info, "size": 8}).stamp != stat.stamp


def test_nothing_known():
    assert remote_stat({}).size_bytes == 0
    assert remote_stat({"updated": "yesterday"}).modified_s == 0


# -- the web, behind an explicit allow ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.jpg",
        "HTTPS://example.org/a.jpg",
        "ftp://example.org/a.jpg",
        "github://o:r@/a.jpg",
        "tar://a.jpg::http://127.0.0.1:1/a.tar",
        "http://127.0.0.1:1/a.tar",
        "simplecache::https://example.org/a.jpg",
        "zip://a.jpg::simplecache::http://127.0.0.1:1/",
        "http::whatever",
    ],
)
def test_addresses_are_not_fetched_unless_allowed(url):
    [failure] = find(url)
    assert failure.path == url
    assert "allow_remote=True" in failure.reason
    assert count([url]) == 1


@pytest.mark.parametrize(
    "url", ["s3://b/a.jpg", "gs://b/a.jpg", "memory://a", "tar://a.jpg::/x/a.tar", "tar://a::s3://b/c"]
)
def test_object_stores_need_no_permission(url):
    assert refusal_reason(url, allow_remote=False) is None


def test_protocols_of_a_chain():
    assert protocols("zip://a::SimpleCache::http://x") == ["zip", "simplecache", "http"]


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/a.jpg", "s3"), ("gs://b/a.jpg", "gcs"), ("https://e.org/a.jpg", "http")]
)
def test_a_missing_driver_names_its_extra(url, extra, monkeypatch):
    for module in ("s3fs", "gcsfs", "aiohttp", "fsspec.implementations.http"):
        monkeypatch.setitem(sys.modules, module, None)
    registered = sys.modules["fsspec.registry"]._registry  # what other tests have loaded
    for protocol in set(registered):
        monkeypatch.delitem(registered, protocol)
    [failure] = find(url, allow_remote=True)
    assert f"pip install 'nearsight[{extra}]'" in failure.reason
    assert exists(url)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/a.jpg":
            self.send_response(200)
            self.send_header("Content-Length", str(len(IMAGE)))
            self.end_headers()
            self.wfile.write(IMAGE)
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    pytest.importorskip("aiohttp")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_web_when_allowed(web):
    [one] = find(f"{web}/a.jpg", allow_remote=True)
    assert one.read(Limits()) == IMAGE
    [gone] = find(f"{web}/b.jpg", allow_remote=True)
    with pytest.raises(ImageError, match="does not exist"):
        gone.read(Limits())
