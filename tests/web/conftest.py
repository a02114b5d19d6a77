"""The page's parts in a real browser: they are served as files, under the policy that the server sends."""

import functools
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_jobs import forked_jobs

from nearsight.errors import UnknownModelError

from fake import FakeBackend

WEB = Path(__file__).parents[2] / "src" / "nearsight" / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE = b"""<!doctype html><html lang="en"><title>parts</title>
<link rel="stylesheet" href="/styles/tokens.css"><link rel="stylesheet" href="/styles/grid.css">
<link rel="stylesheet" href="/map/map.css"><main></main></html>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def do_GET(self) -> None:
        # The browser asks for an icon by itself.
        if self.path not in ("/", "/favicon.ico"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def parts_url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(WEB))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser(playwright: Any) -> Iterator[Any]:
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("the page is tested in Debian's chromium, which is not here")
    # Without a graphics card, the processor draws WebGL; what is no WebGL it draws faster by itself.
    arguments = [
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--disable-gpu-compositing",
        "--disable-gpu-rasterization",
    ]
    with playwright.chromium.launch(executable_path=chromium, args=arguments) as browser:
        yield browser


@pytest.fixture
def parts(browser: Any, parts_url: str) -> Iterator[Any]:
    """A page that can import the parts. It fails the test for anything that the console calls an error."""
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    page.set_default_timeout(120_000)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(parts_url)
    yield page
    page.close()
    assert errors == []


class PageService:
    """A service on loopback in a thread of this process, and a client of it."""

    def __init__(self, data: Path, key: str = "") -> None:
        import httpx2
        import uvicorn

        from nearsight.server.app import create_app
        from nearsight.server.main import Listener
        from nearsight.server.model_pool import ModelSource
        from nearsight.server.service import Service
        from nearsight.services.server_settings import ServerSettings

        backend = FakeBackend()
        model = ModelSource("onnx:/fake.onnx", lambda: backend.spec, lambda: backend, _no_texts)
        # What a collection can be moved to.
        other = FakeBackend(1)
        new = ModelSource("onnx:/new.onnx", lambda: other.spec, lambda: other, _no_texts)
        self.root = data.parent / "files"
        settings = ServerSettings(data=str(data), n_threads=2, api_key=key, root=(f"files={self.root}",))
        self.service = Service(settings, {"default": model, "new": new})
        app = create_app(self.service)
        self.key = key
        self._server = Listener(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False)
        )
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=self.url, timeout=300)

    def new_collection(self, name: str) -> None:
        """Make a collection, in the place of that of a test's first try."""
        self.client.delete(f"/v1/collections/{name}")
        self.client.post("/v1/collections", json={"name": name}).raise_for_status()

    def stop(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join()


def _no_texts() -> Any:
    raise UnknownModelError("no text encoder")


@pytest.fixture(scope="session")
def page_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageService]:
    pytest.importorskip("fastapi")
    with forked_jobs():
        service = PageService(tmp_path_factory.mktemp("page") / "data")
        yield service
        service.stop()


@pytest.fixture(scope="session")
def finish() -> Callable[..., None]:
    """Waits until a job is done."""

    def wait(client: Any, job: dict[str, Any]) -> None:
        deadline = time.monotonic() + 900
        while job["state"] not in ("done", "failed", "cancelled") and time.monotonic() < deadline:
            time.sleep(0.2)
            job = client.get(f"/v1/jobs/{job['id']}").json()
        assert job["state"] == "done", job

    return wait


@pytest.fixture(scope="session")
def press_at_once() -> Callable[..., None]:
    """Press keys, one after another, faster than the browser draws: no key may meet what was true before."""
    script = """async (keys) => {
        for (const key of keys) {
            document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
            await new Promise((done) => {
                const { port1, port2 } = new MessageChannel();
                port1.onmessage = done;
                port2.postMessage(0);
            });
        }
    }"""

    def press(page: Any, *keys: str) -> None:
        page.evaluate(script, list(keys))

    return press


@pytest.fixture(scope="session")
def page_service_with_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageService]:
    pytest.importorskip("fastapi")
    service = PageService(tmp_path_factory.mktemp("page") / "locked", key="ns_" + "k" * 40)
    yield service
    service.stop()


@pytest.fixture
def page(browser: Any, page_service: PageService) -> Iterator[Any]:
    """The page in the browser. Errors of the console, reports of the policy and requests elsewhere fail a test.

    What a person asks for and the service refuses is such an error, too: a test adds its status to
    `page.refused`.
    """
    context = browser.new_context(base_url=page_service.url, viewport={"width": 1200, "height": 800})
    # A busy machine may take its time.
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.errors, page.refused = [], []
    page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    elsewhere = []
    page.on(
        "request",
        lambda r: None if r.url.startswith((page_service.url, "blob:", "data:")) else elsewhere.append(r.url),
    )
    go = page.goto
    page.goto = lambda address: go(address if not address.startswith("#") else f"/{address}")
    yield page
    errors, statuses = list(page.errors), [f"status of {status} " for status in page.refused]
    context.close()
    assert [error for error in errors if not any(status in error for status in statuses)] == []
    assert all(any(status in error for error in errors) for status in statuses)
    assert elsewhere == []


class LateAnswers:
    """The answers to what the page reads. While they are held back, they come when a test lets them."""

    # Images and streams of events are shown whenever they come.
    _PATH = re.compile(r"/v1/(?!.*(thumbnail|original|preview|crop|events)\b)")
    # What a person can write and choose in a view, each by what it is called: its value.
    _FIELDS = """(those) => Object.fromEntries([...document.querySelectorAll("main :is(input, textarea, select):enabled")]
        .filter((field) => field.matches(those) && !field.matches("[type=file], .legend *"))
        // What leads elsewhere is no field; the legend of the map is another one with each coloring.
        .filter((field) => !field.options?.[0]?.text.endsWith("…"))
        .map((field) => [field.getAttribute("aria-label") ?? field.labels[0].firstChild.textContent.trim(), field]))"""
    _WRITE = f"""(those) => Object.values(({_FIELDS})(those)).filter((field, at) => {{
        if (field.dataset.written) return false;
        field.dataset.written = "yes";
        if (field.matches("[type=checkbox]")) return field.click(), true;
        field.value = field.matches("select") ? field.options[Math.min(1, field.options.length - 1)].value
            : {{ number: 7, range: 30, date: "2024-05-06" }}[field.type] ?? `written ${{at}}`;
        for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {{ bubbles: true }}));
        return true;
    }}).length"""
    _READ = f"""() => Object.fromEntries(Object.entries(({_FIELDS})("*"))
        .map(([name, field]) => [name, field.matches("[type=checkbox]") ? field.checked : field.value]))"""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.held: list[tuple[Any, Any]] = []
        page.add_init_script(
            """window.asked = 0; window.busy = 0; const ask = fetch, read = Response.prototype.json;
            window.fetch = (...a) => { asked++; return ask(...a).finally(() => asked--); };
            Response.prototype.json = function () { busy++; return read.call(this).finally(() => busy--); };
            // Who types is given a moment before the page asks.
            const soon = new Set(), later = setTimeout, never = clearTimeout;
            window.setTimeout = (call, ms = 0, ...a) => {
                const id = later(() => { if (soon.delete(id)) busy--; call(...a); }, ms);
                if (ms < 1000) { soon.add(id); busy++; }
                return id;
            };
            window.clearTimeout = (id) => { if (soon.delete(id)) busy--; never(id); };"""
        )

    def hold_back(self) -> None:
        self.page.route(self._PATH, self._take)

    def _take(self, route: Any) -> None:
        if route.request.method != "GET":
            route.continue_()
            return
        # What the service says now, whatever it says when the page reads it.
        self.held.append((route, route.fetch()))

    def wait(self) -> None:
        """Wait until the page has drawn, and waits for nothing but what is held back."""
        frames = """() => new Promise((done) =>
            requestAnimationFrame(() => requestAnimationFrame(() => done([window.asked, window.busy]))))"""
        deadline, still = time.monotonic() + 120, 0
        # An answer is drawn before the next question: that takes frames.
        while still < 2:
            n, busy = self.page.evaluate(frames)
            still = still + 1 if n == len(self.held) and not busy else 0
            assert time.monotonic() < deadline, f"{n} answers are waited for, not {self.held}; busy {busy}"

    def let_go(self, at: int = 0) -> str:
        route, response = self.held.pop(at)
        route.fulfill(response=response)
        self.wait()
        return str(route.request.url)

    def let_all_go(self) -> None:
        while self.held:
            self.let_go()
        self.page.unroute(self._PATH)

    def write(self) -> dict[str, Any]:
        """Write into what is there, and return all that is written; a choice may change what can be written."""
        for those in ("select", ":not(select)"):
            # The page has come to rest before, and stays so where all is written already.
            if self.page.evaluate(self._WRITE, those):
                self.wait()
        return dict(self.page.evaluate(self._READ))

    def write_while_they_come(self, at: int) -> list[str]:
        """Let one answer after another come, and write meanwhile: say what has not stayed."""
        lost = []
        self.wait()
        while self.held:
            written = self.write()
            url = self.let_go(at)
            now = self.page.evaluate(self._READ)
            lost += [
                f"{name}: {value!r} became {now.get(name)!r} by {url}"
                for name, value in written.items()
                if now.get(name) != value
            ]
        return lost


@pytest.fixture
def late_answers(page: Any) -> Iterator[LateAnswers]:
    answers = LateAnswers(page)
    yield answers
    answers.let_all_go()
