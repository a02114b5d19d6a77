"""Models by hub name, from a hub on loopback: what is fetched, what is kept, what works offline."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import onnx
import preloaded
import pytest
from models.layouts import write_layout, write_text_tower

from nearsight.errors import MissingExtraError, UnknownModelError
from nearsight.models import find_model

REPO = "someone/tiny-clip"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# A process of its own: huggingface_hub reads its settings when it is imported.
CODE = """
import sys
from PIL import Image
from nearsight.errors import NearsightError
from nearsight.models import load_model
for name in sys.argv[1].split():
    try:
        model = load_model(name)
    except NearsightError as error:
        print(type(error).__name__, error)
    else:
        shape = model.embed([model.prepare(Image.new("RGB", (20, 20), "red"))]).shape
        print(model.spec.id, shape, model.spec.fingerprint.digest)
"""

NOTES_CODE = """
import sys, warnings
from nearsight.models import load_model
with warnings.catch_warnings(record=True) as notes:
    warnings.simplefilter("always")
    load_model(sys.argv[1], device="cpu")
print(*(note.message for note in notes))
"""

SHORT_NAME_CODE = f"""
from nearsight.models.huggingface import known_models
tiny = known_models.KnownModel(name="tiny", repository="{REPO}", dim=6, license="MIT", accuracy="")
known_models.KNOWN_MODELS = (tiny,)
known_models._BY_NAME = {{"tiny": tiny}}
{CODE}"""

LIST_CODE = """
from nearsight.models.huggingface.hub import fetched_models
print([(entry.spec.id, entry.spec.license, entry.available()) for entry in fetched_models()])
"""

TEXT_CODE = """
import sys
from nearsight.errors import NearsightError
from nearsight.models import load_text_encoder
try:
    print(load_text_encoder(sys.argv[1]).embed(["a cat"]).shape)
except NearsightError as error:
    print(type(error).__name__, error)
"""


class Hub:
    """Serves one repository, and remembers which files were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                headers, data = hub.respond(self.path, fetched=body)
                self.send_response(200 if data is not None else 404)
                for key, value in {**headers, "Content-Length": str(len(data or b""))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if body and data:
                    self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    def respond(self, path: str, *, fetched: bool) -> tuple[dict[str, str], bytes | None]:
        path = path.split("?")[0]
        if path.startswith(f"/api/models/{REPO}"):
            if "/tree/" in path:
                rows = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in self.files.items()
                ]
                return {"Content-Type": "application/json"}, json.dumps(rows).encode()
            info = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return {"Content-Type": "application/json"}, json.dumps(info).encode()
        name = path.removeprefix(f"/{REPO}/resolve/{COMMIT}/")
        if name in self.files:
            if fetched:
                self.fetched.append(name)
            data = self.files[name]
            return {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, data
        return {"X-Error-Code": "RepoNotFound"}, None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    folder = write_layout(tmp_path / "published")
    write_layout(folder, file="onnx/vision_model_quantized.onnx")
    # A file of the same content would not be fetched again.
    model = onnx.load(folder / "onnx" / "vision_model_quantized.onnx")
    model.doc_string = "as good as the full one"
    onnx.save(model, folder / "onnx" / "vision_model_quantized.onnx")
    for name in ("onnx/text_model.onnx", "model.safetensors", "README.md", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "README.md").write_text("# A tiny model")
    hub = Hub(folder)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def load(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that loads a name in a process with a cache of its own."""

    def load(name: str, code: str = CODE, **settings: str) -> str:
        environment = {
            "HF_HOME": str(tmp_path / "home"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server.server_port}",
            "NO_PROXY": "127.0.0.1",
            **settings,
        }
        with monkeypatch.context() as patch:
            for key in [key for key in os.environ if key.startswith("HF_")]:
                patch.delenv(key)
            for key, value in environment.items():
                patch.setenv(key, value)
            done = preloaded.run(f"import warnings; warnings.simplefilter('ignore')\n{code}", name)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return load


@pytest.mark.slow
def test_only_what_is_needed_is_fetched_once_and_then_works_offline(hub: Hub, load) -> None:
    first = load(f"hub:{REPO}")
    assert first.startswith(f"hub:{REPO}@{COMMIT} (1, 6) ")
    needed = {
        "README.md",
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "onnx/vision_model.onnx",
    }
    assert set(hub.fetched) == needed
    assert load(f"hub:{REPO}", HF_HUB_OFFLINE="1") == first
    # The id names the commit, and asks nobody.
    assert load(f"hub:{REPO}@{COMMIT}", HF_ENDPOINT="http://127.0.0.1:9") == first
    assert len(hub.fetched) == len(needed)
    message = load(f"hub:{REPO}#quantized", HF_HUB_OFFLINE="1")
    assert message.startswith(f"WeightsError hub:{REPO} is not completely on this machine")
    told = load(f"hub:{REPO}#quantized hub:{REPO}#fp16").splitlines()
    assert told[0].startswith(f"hub:{REPO}@{COMMIT}#quantized (1, 6) ")
    assert f"UnknownModelError hub:{REPO} has no onnx/vision_model_fp16.onnx" in told[1]


@pytest.mark.slow
def test_a_short_name_keeps_the_commit_of_its_first_download(hub: Hub, load) -> None:
    first = load("tiny", SHORT_NAME_CODE)
    assert first.startswith(f"hub:{REPO}@{COMMIT} (1, 6) ")
    hub.fetched.clear()
    # Without the hub, and without saying so.
    assert load("tiny", SHORT_NAME_CODE, HF_ENDPOINT="http://127.0.0.1:9") == first
    again, quantized = load("tiny tiny#quantized", SHORT_NAME_CODE).splitlines()
    assert again == first
    assert quantized.startswith(f"hub:{REPO}@{COMMIT}#quantized (1, 6) ")
    assert hub.fetched == ["onnx/vision_model_quantized.onnx"]


@pytest.mark.slow
def test_a_quantized_file_is_compared_where_the_full_one_was_fetched_too(hub: Hub, load) -> None:
    name = f"hub:{REPO}#quantized"
    told = load(name, code=NOTES_CODE)
    assert (
        "not compared with the model in full precision, which is not on this machine; download the full model"
        in told
    )
    assert told.endswith(f"nearsight models hub:{REPO}@{COMMIT}")
    assert load(name, code=NOTES_CODE) == ""
    # Another model, as far as its vectors show.
    hub.files["onnx/vision_model.onnx"] = (
        write_layout(hub.folder, seed=1).joinpath("onnx", "vision_model.onnx").read_bytes()
    )
    _, refused = load(f"hub:{REPO} {name}").split("\n", 1)
    assert refused.startswith(f"ParityError {name.replace('#', f'@{COMMIT}#')} differs too much")
    assert f"Use hub:{REPO}@{COMMIT} in full precision" in refused


@pytest.mark.slow
def test_a_download_that_was_cut_short_is_completed(hub: Hub, load, tmp_path: Path) -> None:
    path = tmp_path / "published" / "onnx" / "vision_model.onnx"
    location = "vision_model.onnx_data"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=100)
    hub.files |= {f"onnx/{name}": (path.parent / name).read_bytes() for name in (path.name, location)}
    name = f"hub:{REPO}@{COMMIT}"
    whole = load(name)
    assert f"onnx/{location}" in hub.fetched
    (data,) = (tmp_path / "home").rglob(location)
    data.unlink()
    assert load(name) == whole
    assert data.is_file()


@pytest.mark.slow
def test_the_text_tower_is_fetched_when_there_is_a_text(hub: Hub, load, tmp_path: Path) -> None:
    write_text_tower(tmp_path / "published")
    for name in ("onnx/text_model.onnx", "tokenizer.json", "config.json"):
        hub.files[name] = (tmp_path / "published" / name).read_bytes()
    load(f"hub:{REPO}")
    assert "onnx/text_model.onnx" not in hub.fetched
    message = load(f"hub:{REPO}", TEXT_CODE, HF_HUB_OFFLINE="1")
    assert "the text encoder of hub:someone/tiny-clip is not on this machine" in message
    assert load(f"hub:{REPO}", TEXT_CODE) == "(1, 6)"
    assert load(f"hub:{REPO}", TEXT_CODE, HF_HUB_OFFLINE="1") == "(1, 6)"


def test_a_repository_without_one_says_so(hub: Hub, load) -> None:
    del hub.files["onnx/text_model.onnx"]
    assert load(f"hub:{REPO}", TEXT_CODE).startswith(f"UnknownModelError hub:{REPO} has no text encoder")


def test_a_copy_of_the_folder_is_the_same_model(hub: Hub, load, tmp_path: Path) -> None:
    copy = find_model(f"dir:{tmp_path / 'published'}").spec
    assert load(f"hub:{REPO}").endswith(copy.fingerprint.digest)


@pytest.mark.slow
def test_what_has_been_fetched_is_listed(hub: Hub, load, tmp_path: Path) -> None:
    assert load("", LIST_CODE) == "[]"
    hub.files["README.md"] = b"---\nlicense: mit\n---\n"
    load(f"hub:{REPO} hub:{REPO}#quantized")
    name = f"hub:{REPO}@{COMMIT}"
    listed = [(name, "mit", True), (f"{name}#quantized", "mit", True)]
    assert load("", LIST_CODE, HF_ENDPOINT="http://127.0.0.1:9") == str(listed)
    # What was cut short is left out.
    next((tmp_path / "home").rglob("config.json")).unlink()
    assert load("", LIST_CODE) == "[]"


def test_an_unknown_repository(load) -> None:
    message = load("hub:someone/else")
    assert message.startswith("WeightsError hub:someone/else is not completely on this machine")
    assert "use dir:PATH" in message


@pytest.mark.parametrize("name", ["hub:clip", "hub:", "hub:a/b/c", "hub:a/b@", "hub:a b/c"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UnknownModelError, match="give hub:ORG/REPO"):
        find_model(name)


def test_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearsight\[hub\]'"):
        find_model("hub:a/b")
