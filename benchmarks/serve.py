"""The service beside the library, and beside a minimal server that embeds each request by itself.

    python -m benchmarks.serve

Thirty-two clients post JPEGs of 640×480 to `/v1/embeddings`, each the next one as soon as it has an answer.
The library embeds the same files in one batch job. The minimal server is FastAPI with one ONNX Runtime
session of the same network and the same preparation of images, which a handler calls for each request in
FastAPI's thread pool: what one writes first. All run on the same cores, by turns, three times; the median
counts.

Beside images per second stands the processor time of each image, which other work on the machine changes
less: there, more threads get a larger share of the cores.

At half of the service's load, requests come at random moments of a fixed rate, and the time to each answer is
measured. Searching 100,000 × 512 vectors goes through HTTP on one connection, which sends a body that is
ready (`http`), and through `nearsight.Client`, whose own time to write and read JSON comes on top (`client`).
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import httpx2
import numpy as np
import psutil

from benchmarks.sample_images import make
from benchmarks.search_memory import Mixture
from nearsight import Client, Collection, Embedder
from nearsight.models.spec import ModelSpec

N_CLIENTS = 32
N_IMAGES = 384
N_RUNS = 3
N_VECTORS, DIM = 100_000, 512
JSON = {"Content-Type": "application/json"}

MINIMAL = """
import sys
import uvicorn
from fastapi import FastAPI, Request
from nearsight.images import decode
from nearsight.models import load_model
app, model = FastAPI(), load_model(device="cpu")
def embed(data):
    prepared = model.prepare(decode(data, min_side_px=model.decode_px).image)
    return model.embed([prepared])[0].tolist()
@app.post("/v1/embeddings")
async def post(request: Request):
    from starlette.concurrency import run_in_threadpool
    vector = await run_in_threadpool(embed, await request.body())
    return {"data": [{"embedding": vector}]}
@app.get("/ready")
def ready(): return {}
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def server(*command: str, port: int):
    process = psutil.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(trust_env=False) as client:
            while process.poll() is None:
                try:
                    if client.get(f"{url}/ready").status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                time.sleep(0.1)
            else:
                words = " ".join(command)
                raise SystemExit(
                    f"{words} ended with {process.returncode} before it was ready; run it to see why"
                )
        yield url, process
    finally:
        with suppress(psutil.NoSuchProcess):  # a benchmark may have killed it
            process.terminate()
        process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


class Connection:
    """A connection that stays open. A library for clients would take a tenth of the cores that are "
    "measured."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def embed(self, image: bytes) -> None:
        """Post an image and read the answer."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: image/jpeg\r\n"
        writer.write(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image)
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        if b" 200 " not in lines[0]:
            raise RuntimeError(lines[0].decode())
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        await reader.readexactly(length)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()


async def closed_loop(url: str, images: list[bytes]) -> float:
    """Return the images per second that the clients get together."""
    queue = iter(images)

    async def client(connection: Connection) -> None:
        for image in queue:
            await connection.embed(image)

    connections = [Connection(url) for _ in range(N_CLIENTS)]
    begun = time.perf_counter()
    await asyncio.gather(*map(client, connections))
    seconds = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    return len(images) / seconds


async def latencies(url: str, images: list[bytes], per_second: float) -> np.ndarray:
    """Return the seconds to each answer, if requests come at random moments of a rate."""
    waits = np.random.default_rng(0).exponential(1 / per_second, len(images))
    idle: list[Connection] = []

    async def one(image: bytes, moment: float) -> float:
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        connection = idle.pop() if idle else Connection(url)
        await connection.embed(image)
        idle.append(connection)
        # From when it should have been sent: a generator that is held up must not hide it.
        return time.perf_counter() - moment

    moments = time.perf_counter() + waits.cumsum()
    seconds = np.array(await asyncio.gather(*map(one, images, moments)))
    for connection in idle:
        connection.close()
    return seconds


def library(embedder: Embedder, images: list[bytes]) -> float:
    """Return the images per second of the library, measured in this process."""
    begun = time.perf_counter()
    embedder.embed(images)
    return len(images) / (time.perf_counter() - begun)


def searches(folder: Path) -> dict[str, float]:
    """Return the times of searches by vector through HTTP and in the library, in milliseconds."""
    source = Mixture(DIM)
    X = source.draw(N_VECTORS)
    spec = ModelSpec(id="random", dim=DIM, weights_sha256="0" * 64)

    class Model:
        """Vectors that no network computed."""

    model = Model()
    model.spec = spec
    collection = Collection.create(folder / "vectors", model=model)
    collection.add_vectors(X, ids=[f"{i:032x}" for i in range(N_VECTORS)], fingerprint=spec.fingerprint)
    queries = source.draw(200)
    collection = Collection.open(folder / "vectors")
    # The service opens what this writes, so that both answer from memory.
    if not collection.load_into_memory():
        raise SystemExit("the vectors are not in memory: pip install 'nearsight[fast]'")
    direct = _times(lambda q: collection.search(vector=q), queries)
    port = free_port()
    words = ("--port", str(port), "--data", str(folder / "data"), "--mount", f"v={folder / 'vectors'}")
    with (
        server("-m", "nearsight", "serve", *words, port=port) as (url, _),
        Client(url) as client,
    ):
        connection = HTTPConnection(url.removeprefix("http://"))
        remote = client.collection("v")
        bodies = {query.tobytes(): json.dumps({"vector": query.tolist()}) for query in queries}

        def ask(query: np.ndarray) -> None:
            connection.request("POST", "/v1/collections/v/search", bodies[query.tobytes()], JSON)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(answer.status)

        # The second search starts to load.
        for query in queries[:2]:
            remote.search(vector=query)
        time.sleep(5)
        through_http = _times(ask, queries)
        through_client = _times(lambda query: remote.search(vector=query), queries)
        connection.close()
    return {
        "library_p50_ms": float(np.median(direct)),
        "http_p50_ms": float(np.median(through_http)),
        "http_p99_ms": float(np.quantile(through_http, 0.99)),
        "client_p50_ms": float(np.median(through_client)),
    }


def _times(ask: Callable[[np.ndarray], object], queries: np.ndarray) -> np.ndarray:
    for query in queries[:20]:
        ask(query)
    times = []
    for query in queries:
        begun = time.perf_counter()
        ask(query)
        times.append(1000 * (time.perf_counter() - begun))
    return np.array(times)


def processor_ms(process: psutil.Process, n_images: int, work: Callable[[], float]) -> tuple[float, float]:
    """Return the images per second that `work` reaches, and the process's milliseconds for each image."""
    before = sum(process.cpu_times()[:4])
    rate = work()
    return rate, 1000 * (sum(process.cpu_times()[:4]) - before) / n_images


def measure(n_images: int, n_runs: int, *, with_search: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder / "images", n_images, (640, 480))
        images = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
        (folder / "minimal.py").write_text(MINIMAL)
        ours, theirs = free_port(), free_port()
        words = ("--port", str(ours), "--data", str(folder / "data"), "--log-format", "text")
        rounds: dict[str, list[tuple[float, float]]] = {"service": [], "minimal": [], "library": []}
        with (
            server("-m", "nearsight", "serve", *words, port=ours) as (url, service),
            server(str(folder / "minimal.py"), str(theirs), port=theirs) as (other, minimal),
        ):
            embedder = Embedder(device="cpu", progress=False)
            embedder.embed(images[:64])
            for each in (url, other):
                asyncio.run(closed_loop(each, images[:64]))
            for _ in range(n_runs):
                for name, process, work in (
                    ("service", service, lambda: asyncio.run(closed_loop(url, images))),
                    ("minimal", minimal, lambda: asyncio.run(closed_loop(other, images))),
                    ("library", psutil.Process(), lambda: library(embedder, images)),
                ):
                    rounds[name].append(processor_ms(process, n_images, work))
                    print(name, *(round(value, 1) for value in rounds[name][-1]), file=sys.stderr)
            rate = {name: median(rate for rate, _ in values) for name, values in rounds.items()}
            cost = {name: median(cost for _, cost in values) for name, values in rounds.items()}
            seconds = asyncio.run(latencies(url, images, rate["service"] / 2))
        return {
            **{f"{name}_per_s": value for name, value in rate.items()},
            **{f"{name}_processor_ms_per_image": value for name, value in cost.items()},
            "service_over_library": rate["service"] / rate["library"],
            "service_over_minimal": rate["service"] / rate["minimal"],
            "service_over_library_by_processor_time": cost["library"] / cost["service"],
            "half_load_p50_ms": 1000 * float(np.median(seconds)),
            "half_load_p99_ms": 1000 * float(np.quantile(seconds, 0.99)),
            "half_load_p99_over_p50": float(np.quantile(seconds, 0.99) / np.median(seconds)),
            **(searches(folder) if with_search else {}),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=N_IMAGES)
    parser.add_argument("--runs", type=int, default=N_RUNS)
    parser.add_argument("--no-search", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.images, options.runs, with_search=not options.no_search)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:>24}  {value:,.2f}")
