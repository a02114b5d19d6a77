"""The service among hostile requests, and killed while it adds images.

    python -m benchmarks.serve_hostile

Ten thousand requests, a third of them hostile: garbage, truncated and oversized images, small files of
many pixels, wrong types, huge counts, broken forms and broken HTTP, bodies that come slowly or never end, and
clients that hang up. Every good answer is compared with the vector of the library; memory is read after the
first tenth, or the first 200, which meet every kind, and at the end.

Then the service is killed (SIGKILL) 50 times at random moments while four clients add images. After each
new start, what was acknowledged must be there once. What was not must be there whole (listed, with thumbnail,
original and vector) or not at all. Files on disk without a row, which a start removes, are counted, too.
"""

import argparse
import asyncio
import io
import json
import random
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import numpy as np
import psutil
from PIL import Image

from benchmarks.serve import free_port, server
from nearsight import Embedder
from nearsight.images import content_id

N_REQUESTS, N_KILLS = 10_000, 50
N_CLIENTS, N_UPLOADERS = 16, 4
READ_TIMEOUT_S = 2
CLOCK_STEP_S, REMOVAL_S = 3, 60
# What a busy service answers to a good request: too slow, too many, not now. The client asks again.
TOLD_TO_COME_AGAIN, MOST_TRIES = (408, 429, 503), 300


def jpeg(seed: int, size: tuple[int, int] = (320, 240)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def png(width: int, height: int, content: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, chunk in ((b"IHDR", header), *extra, (b"IDAT", zlib.compress(content)), (b"IEND", b"")):
        data += struct.pack(">I", len(chunk)) + kind + chunk + struct.pack(">I", zlib.crc32(kind + chunk))
    return data


def http(
    body: bytes,
    kind: str = "image/jpeg",
    *,
    path: str = "/v1/embeddings",
    method: str = "POST",
    extra: str = "",
) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n{extra}"
    return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def hostile() -> dict[str, bytes]:
    """Return requests by kind; each but `ANSWERED` must be refused."""
    good, text = jpeg(0), zlib.compress(bytes(30_000_000))
    frames = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff"
    frames += b"!\xf9\x04\0\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0" * 20_000
    loop = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\0\x01\x03\0\x01\0\0\0\x01\0\0\0" + b"\x08\0\0\0"
    images = {
        "garbage": b"\xff\xd8\xff" + random.Random(0).randbytes(5000),
        "truncated JPEG": good[: len(good) // 2],
        "gigapixel PNG": png(32768, 32768, bytes(3_000_000)),
        "text bomb in a PNG": png(50_000, 50_000, b"", (b"zTXt", b"a\0\0" + text)),
        ANSWERED: frames + b";",
        "TIFF that refers to itself": loop,
        "zeros": bytes(200_000),
        "nothing": b"",
        "HTML": b"<svg onload=alert(1)>" * 50,
    }
    documents = {
        "tokens": {"input": [[1, 2]] * 500},
        "wrong types": {"input": {"a": []}, "model": ["x"], "dimensions": -1},
        "huge count": {"input": ["x"] * 20_000},
        "images that are none": {"input": ["data:image/png;base64," + "A" * 5000] * 32},
        "huge dimensions": {"input": "data:image/png;base64,AAAA", "dimensions": 10**30},
        "model by path": {"model": "onnx:/etc/passwd", "input": "x"},
        "inner address": {"input": "http://169.254.169.254/", "modality": "image"},
    }
    form = "multipart/form-data; boundary=x"
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n'
    return {
        **{name: http(data) for name, data in images.items()},
        **{name: http(json.dumps(data).encode(), "application/json") for name, data in documents.items()},
        "deep JSON": http(b"[" * 50_000, "application/json"),
        "form of many files": http(part * 200 + b"--x--\r\n", form),
        "broken form": http(b"--x\r\n" * 500, form),
        "form without a boundary": http(b"x", "multipart/form-data"),
        "other page": http(good, extra="Sec-Fetch-Site: cross-site\r\n"),
        "other method": http(b"", method="PROPFIND"),
        "path out of the service": http(b"", path="/static/x/../../../../etc/passwd", method="GET"),
        "header without end": http(good, extra="X-A: " + "a" * 200_000 + "\r\n"),
        "broken HTTP": b"\x16\x03\x01" + random.Random(1).randbytes(200) + b"\r\n\r\n",
        "body larger than allowed": http(b"").replace(b"Length: 0", b"Length: 99999999999"),
    }


#: Its first frame is an image like any other.
ANSWERED = "GIF of many frames"
#: Sends only a part of a good request, then waits, or hangs up, or hangs up after all of it.
BEHAVIORS = ("slow body", "hang-up inside the body", "hang-up before the answer")


async def send(port: int, request: bytes, behavior: str = "") -> tuple[int, bytes]:
    """Send bytes on a connection of their own; return the status of the answer, 0 if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request[:-50] if behavior in BEHAVIORS[:2] else request)
        await writer.drain()
        if behavior in BEHAVIORS[1:]:
            await asyncio.sleep(0.01)
            return 0, b""
        answer = await asyncio.wait_for(reader.read(), 300)
    except ConnectionError:  # refused before all was sent
        return 0, b""
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 else 0), body


async def requests(port: int, n: int, process: psutil.Process) -> dict[str, object]:
    good = [jpeg(seed) for seed in range(16)]
    expected = Embedder(progress=False, device="cpu").embed(good).vectors
    bad = [*hostile().items(), *((name, http(good[0])) for name in BEHAVIORS)]
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    good_answers: Counter[int] = Counter()
    n_wrong, memory, done = 0, [process.memory_info().rss], 0
    after_warm_up = 0
    turns = iter(range(n))

    async def client() -> None:
        nonlocal n_wrong, done, after_warm_up
        for i in turns:
            if i % 3:
                k = i % len(good)
                status, body = await send(port, http(good[k]))
                statuses["good"][status] += 1
                for _ in range(MOST_TRIES):
                    if status not in TOLD_TO_COME_AGAIN:
                        break
                    await asyncio.sleep(1)
                    status, body = await send(port, http(good[k]))
                good_answers[status] += 1
                if status == 200:
                    vector = json.loads(body)["data"][0]["embedding"]
                    n_wrong += bool(np.dot(vector, expected[k]) < 0.99999)
            else:
                name, request = bad[i // 3 % len(bad)]
                status, _ = await send(port, request, name)
                statuses[name][status] += 1
            done += 1
            if done % 50 == 0:
                memory.append(process.memory_info().rss)
            if done % 1000 == 0:
                print(f"{done} requests, {memory[-1] / 2**20:.0f} MB", file=sys.stderr, flush=True)
            if done == max(200, n // 10):
                after_warm_up = process.memory_info().rss
                memory.clear()

    await asyncio.gather(*(client() for _ in range(N_CLIENTS)))
    await asyncio.sleep(1)
    at_end = process.memory_info().rss
    refused = {name: sorted(codes) for name, codes in statuses.items() if name != "good"}
    return {
        "requests": n,
        "hostile": sum(sum(codes.values()) for name, codes in statuses.items() if name != "good"),
        "kinds_of_hostile": len(bad),
        "good_answers": good_answers[200],
        "told_to_come_again": sum(statuses["good"][status] for status in TOLD_TO_COME_AGAIN),
        "wrong_answers": n_wrong,
        "good_requests_without_an_answer": sum(good_answers.values()) - good_answers[200],
        "their_statuses": ", ".join(str(code) for code in sorted(good_answers) if code != 200),
        "hostile_with_an_answer_of_success": sum(
            200 in codes and name != ANSWERED for name, codes in refused.items()
        ),
        "hostile_with_a_server_error": sum(any(c >= 500 for c in codes) for codes in refused.values()),
        "crashes": int(not process.is_running()),
        "memory_after_warm_up_mb": after_warm_up / 2**20,
        "memory_at_the_end_mb": at_end / 2**20,
        "memory_at_most_mb": max([*memory, at_end]) / 2**20,
        "memory_at_the_end_over_warm_up": at_end / (after_warm_up or at_end),
    }


def kills(folder: Path, n: int) -> dict[str, object]:
    rng = random.Random(0)
    acknowledged: set[str] = set()
    sent: set[str] = set()
    seeds = iter(range(1_000_000, 2_000_000))
    missing = torn = twice = 0
    for turn in range(n + 1):
        if turn == n:
            # A start leaves files alone that are younger than a step of the clock.
            time.sleep(CLOCK_STEP_S)
        port = free_port()
        words = ("-m", "nearsight", "serve", "--port", str(port), "--data", str(folder / "data"))
        with server(*words, port=port) as (url, process), httpx2.Client(base_url=url, timeout=300) as client:
            client.post("/v1/collections", json={"name": "photos"})
            found = Counter(listed(client))
            missing += len(acknowledged - set(found))
            twice += sum(count > 1 for count in found.values())
            # Of all at the end; of those that nobody acknowledged each time.
            for id in found if turn == n else set(found) - acknowledged:
                torn += not is_whole(client, id)
            acknowledged |= set(found)
            if turn == n:
                n_unlisted = files_without_a_row(folder, acknowledged)
                break
            n_before, n_answers = len(acknowledged), rng.randrange(2 * N_UPLOADERS)
            with ThreadPoolExecutor(N_UPLOADERS) as pool:
                uploads = [pool.submit(upload, url, seeds, sent, acknowledged) for _ in range(N_UPLOADERS)]
                # After some answers, so that a slow machine gets as far as a fast one; then at any moment.
                while len(acknowledged) < n_before + n_answers:
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.3))
                process.kill()
                for each in uploads:
                    each.result()
            process.wait()
        print(
            f"kill {turn + 1}: {len(acknowledged)} acknowledged of {len(sent)}", file=sys.stderr, flush=True
        )
    return {
        "kills": n,
        "images_sent": len(sent),
        "images_there": len(acknowledged),
        "acknowledged_and_missing": missing,
        "there_twice": twice,
        "there_in_part": torn,
        "never_sent_and_there": len(acknowledged - sent),
        "files_without_a_row": n_unlisted,
    }


def files_without_a_row(folder: Path, acknowledged: set[str]) -> int:
    """Count uploaded files that belong to no image, once the service has had time to remove them."""
    deadline = time.monotonic() + REMOVAL_S
    while True:
        n_unlisted = 0
        for path in (folder / "data" / "uploads").rglob("*"):
            with suppress(FileNotFoundError):  # removed meanwhile
                n_unlisted += path.is_file() and content_id(path.read_bytes()) not in acknowledged
        if not n_unlisted or time.monotonic() > deadline:
            return n_unlisted
        time.sleep(0.1)


def upload(url: str, seeds: Iterator[int], sent: set[str], acknowledged: set[str]) -> None:
    """Add images until the service is gone."""
    with httpx2.Client(base_url=url, timeout=300, trust_env=False) as client:
        while True:
            images = [jpeg(next(seeds), (160, 120)) for _ in range(2)]
            sent.update(map(content_id, images))
            try:
                answer = client.post(
                    "/v1/collections/photos/items", files=[("image", ("a.jpg", data)) for data in images]
                )
            except httpx2.TransportError:
                return
            acknowledged.update(item["id"] for item in answer.raise_for_status().json()["items"])


def listed(client: httpx2.Client) -> Iterator[str]:
    cursor = None
    while True:
        params = {"limit": 1000} if cursor is None else {"limit": 1000, "cursor": cursor}
        page = client.get("/v1/collections/photos/items", params=params).raise_for_status().json()
        yield from (item["id"] for item in page["items"])
        cursor = page.get("next")
        if not cursor:
            return


def is_whole(client: httpx2.Client, id: str) -> bool:
    item = f"/v1/collections/photos/items/{id}"
    parts = [client.get(f"{item}/{part}").status_code for part in ("thumbnail", "original", "vector")]
    search = client.post("/v1/collections/photos/search", json={"id": id, "k": 1}).status_code
    return {*parts, search} == {200}


def measure(n_requests: int, n_kills: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as place:
        folder, port = Path(place), free_port()
        words = ("--port", str(port), "--data", str(folder / "hostile"), "--allow-urls")
        words += ("--read-timeout-s", str(READ_TIMEOUT_S))
        document: dict[str, object] = {}
        if n_requests:
            with server("-m", "nearsight", "serve", *words, port=port) as (_, process):
                document = asyncio.run(requests(port, n_requests, process))
        return {**document, **(kills(folder, n_kills) if n_kills else {})}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=N_REQUESTS)
    parser.add_argument("--kills", type=int, default=N_KILLS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.requests, options.kills)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:>40}  {value}")
