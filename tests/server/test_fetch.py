"""URLs: nothing that only this machine can reach is reached for a client."""

import pytest

from nearsight.server import fetch as fetch_module
from nearsight.server.errors import Problem
from nearsight.server.fetch import UrlFetcher, is_public
from nearsight.server.metrics import Metrics

from coroutines import run_coroutine

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *(
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.8",
            "192.0.0.9",
            "192.88.99.1",
            "224.0.0.1",
            "255.255.255.255",
        ),
        *("240.0.0.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "fec0::1"),
        *(
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
        ),
        "::ffff:169.254.169.254",
    ],
)
def test_an_address_that_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_an_address_that_is_public(address):
    assert is_public(address)


async def site(scope, receive, send):
    """A site with an image, redirects, an endless file and a slow one."""
    if scope["type"] != "http":
        return
    path, query = scope["path"], scope["query_string"]
    if path == "/redirect":
        headers = [(b"location", query)]
        await send({"type": "http.response.start", "status": 302, "headers": headers})
        await send({"type": "http.response.body"})
        return
    await send({"type": "http.response.start", "status": 404 if path == "/none" else 200, "headers": []})
    if path == "/slow":  # until the client hangs up
        while (await receive())["type"] != "http.disconnect":
            pass
    if path == "/endless":
        for _ in range(400):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
    if path == "/large":
        await send({"type": "http.response.body", "body": b"x" * 83_000, "more_body": True})
    host = dict(scope["headers"])[b"host"]
    await send({"type": "http.response.body", "body": b"image of " + host})


@pytest.fixture(scope="module")
def port(on_loopback):
    with on_loopback(site) as url:
        yield int(url.rsplit(":", 1)[1])


class Names:
    """A resolver that remembers what it was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    async def __call__(self, host, port):
        self.asked.append(host)
        return self.answers.get(host.partition(".")[0], [host])


def fetch(url, *, names=None, allowed=True, allows=("127.0.0.1",), ports=(80, 443), **options):
    fetcher = UrlFetcher(
        allowed=allowed,
        max_bytes=100_000,
        max_total_bytes=150_000,
        metrics=Metrics(),
        resolve=names or Names(),
        allows=lambda address: address in allows,
        ports=ports,
        **options,
    )
    return run_coroutine(fetcher.fetch_all([url] if isinstance(url, str) else url))


def test_urls_are_off_by_default():
    with pytest.raises(Problem, match="--allow-urls"):
        fetch("http://example.org/a.jpg", allowed=False)


def test_an_image_is_fetched_from_the_address_that_was_checked(port):
    names = Names(images=["127.0.0.1"])
    assert fetch(f"http://images.example:{port}/a.jpg", names=names, ports=(port,)) == [
        f"image of images.example:{port}".encode()
    ]
    # A name that answers otherwise the second time is never asked a second time.
    assert names.asked == ["images.example"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "gopher://127.0.0.1/",
        "http://",
        "http://user:password@127.0.0.1/",
        "http://127.0.0.1:22/",
        "http://[::1",
        "http://10.0.0.1/a.jpg",
        "http://both.example/a.jpg",
        "http://127.0.0.1:99999/",
    ],
)
def test_what_is_not_allowed_is_refused_in_the_same_words(url):
    names = Names(both=["127.0.0.1", "10.0.0.1"])
    with pytest.raises(Problem, match="public address") as refused:
        fetch(url, names=names)
    assert refused.value.status == 400
    assert refused.value.members["errors"][0]["index"] == 0


@pytest.mark.parametrize(
    "target",
    ["http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "//10.0.0.1/"],
)
def test_redirects_are_checked_like_the_first_url(port, target):
    with pytest.raises(Problem, match="public address"):
        fetch(f"http://127.0.0.1:{port}/redirect?{target}", ports=(port, 80))


def test_redirects_are_followed_a_few_times(port):
    home = f"http://127.0.0.1:{port}"
    assert fetch(f"{home}/redirect?/a.jpg", ports=(port,))[0].startswith(b"image")
    with pytest.raises(Problem, match="redirects more than"):
        fetch(f"{home}/redirect?/redirect?/redirect?/redirect?/redirect?/a", ports=(port,))


def test_size_status_and_refused_connections(port):
    home = f"http://127.0.0.1:{port}"
    with pytest.raises(Problem, match="more than 0.09"):
        fetch(f"{home}/endless", ports=(port,))
    # One is 83 kB: two are more than all images of a request may have.
    with pytest.raises(Problem, match="0.14.* MB together"):
        fetch([f"{home}/large", f"{home}/large"], ports=(port,))
    assert len(fetch(f"{home}/large", ports=(port,))[0]) > 80_000
    with pytest.raises(Problem, match="answers 404"):
        fetch([f"{home}/a", f"{home}/none"], ports=(port,))
    with pytest.raises(Problem, match="cannot be fetched"):
        fetch("http://127.0.0.1:1/", ports=(1,))


def test_a_server_that_is_slow_is_given_up(port, monkeypatch):
    monkeypatch.setattr(fetch_module, "_TIMEOUT_S", 0.2)
    with pytest.raises(Problem, match="URL 0: it took more than 0.2 s") as refused:
        fetch(f"http://127.0.0.1:{port}/slow", ports=(port,))
    assert refused.value.status == 400


def test_a_proxy_of_the_environment_is_not_asked(port, on_loopback, monkeypatch):
    """It would connect to addresses that nobody has checked."""
    asked = []

    async def proxy(scope, receive, send):
        if scope["type"] == "http":
            asked.append(scope["path"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"by the proxy"})

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with on_loopback(proxy) as url:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, url)
        [data] = fetch(f"http://127.0.0.1:{port}/a.jpg", ports=(port,))
    assert data.startswith(b"image of ")
    assert not asked


def test_a_real_resolver_reads_numbers_as_addresses():
    fetcher = UrlFetcher(allowed=True, max_bytes=1, max_total_bytes=1, metrics=Metrics())
    for url in ("http://127.0.0.1/", "http://2130706433/", "http://localhost/", "http://[::1]/", "http://0/"):
        with pytest.raises(Problem, match="public address"):
            run_coroutine(fetcher.fetch_all([url]))
