"""Models by name, built in and plugged in."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from nearsight.errors import MissingExtraError, UnknownModelError, WeightsError
from nearsight.models import DEFAULT_MODEL, Backend, find_model, list_models, load_model

from fake import FakeBackend

BUILT_IN = [DEFAULT_MODEL, "efficientnet-lite0+lite2", "efficientnet-lite2", "sift-vlad"]

PLUGIN = """
from pathlib import Path
from nearsight.errors import WeightsError
from nearsight.models import ModelEntry, ModelSpec
from fake import FakeBackend

def entry(id):
    spec = ModelSpec(id=id, dim=64, weights_sha256="", source=id)
    return ModelEntry(spec, lambda cache_dir: FakeBackend(), lambda: True)

def good(): return entry("good")
def misnamed(): return entry("another")
def nothing(): return None
def failing(): raise OSError("no license found")
def damaged(rest): raise WeightsError(f"{rest} is damaged")
def hub(rest): return entry("hub:" + rest)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that installs a package with the given entry points."""

    def install(models: dict[str, str], schemes: dict[str, str] | None = None) -> None:
        info = tmp_path / "plugged-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
        lines = ["[nearsight.models]", *(f"{name} = {value}" for name, value in models.items())]
        lines += [
            "[nearsight.model_schemes]",
            *(f"{name} = {value}" for name, value in (schemes or {}).items()),
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (tmp_path / "plugged.py").write_text(PLUGIN)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    return install


def ids() -> list[str]:
    return [entry.spec.id for entry in list_models()]


def test_the_default_is_there() -> None:
    assert DEFAULT_MODEL in ids()
    assert find_model(DEFAULT_MODEL).available()


def test_loading_by_name(cache_dir: Path, lite0: Backend) -> None:
    assert load_model(cache_dir=cache_dir).spec == find_model(DEFAULT_MODEL).spec


def test_the_default_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearsight.models.cache.user_cache_path", lambda *_, **__: tmp_path)
    load_model()
    assert len(list((tmp_path / "models").iterdir())) == 1


def test_a_plugin(install) -> None:
    install({"good": "plugged:good"})
    assert ids() == sorted([*BUILT_IN, "good"])
    assert isinstance(load_model("good"), FakeBackend)


def test_a_plugin_that_is_installed_meanwhile(install, tmp_path: Path) -> None:
    install({"good": "plugged:good"})
    assert "good" in ids()
    shutil.rmtree(tmp_path / "plugged-1.0.dist-info")
    assert ids() == BUILT_IN
    install({"good": "plugged:good"})
    assert "good" in ids()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bad", "plugged:failing", "no license found"),
        ("bad", "plugged:nothing", "returns NoneType, not ModelEntry"),
        ("bad", "plugged:misnamed", "id 'another'"),
        ("bad", "plugged:missing", "AttributeError"),
        ("bad", "not_there:entry", "ModuleNotFoundError"),
    ],
)
def test_a_broken_plugin_is_left_out(install, name: str, value: str, message: str) -> None:
    install({name: value, "good": "plugged:good"})
    with pytest.warns(RuntimeWarning, match=f"'bad'.*does not work.*{message}"):
        assert ids() == sorted([*BUILT_IN, "good"])
    with pytest.raises(UnknownModelError, match=message):
        find_model("bad")
    assert find_model("good").spec.id == "good"


def test_unknown_names() -> None:
    with pytest.raises(
        UnknownModelError,
        match=f"'efficientnet_lite0'. Did you mean {DEFAULT_MODEL} or efficientnet-lite2 or .*[?] nearsight",
    ):
        find_model("efficientnet_lite0")
    with pytest.raises(
        KeyError,
        match=r"no model 'zzz'\. nearsight models and nearsight\.list_models\(\) list them\.$",
    ):
        load_model("zzz")
    # Part of a name is enough to be understood.
    with pytest.raises(UnknownModelError, match="Did you mean clip-vit-base-patch32 or clip-vit-large"):
        find_model("CLIP")


def test_schemes(install) -> None:
    install({}, {"shelf": "plugged:hub"})
    assert find_model("shelf:openai/clip:v1").spec.id == "hub:openai/clip:v1"
    assert ids() == BUILT_IN
    with pytest.raises(UnknownModelError, match="Did you mean shelf:…[?]"):
        find_model("shelf")
    with pytest.raises(UnknownModelError, match="no model 'nowhere:x'"):
        find_model("nowhere:x")


def test_a_failing_scheme(install) -> None:
    install({}, {"shelf": "plugged:nothing"})
    with pytest.raises(UnknownModelError, match="'shelf' .*TypeError"):
        find_model("shelf:a/b")


def test_a_scheme_says_itself_what_is_wrong(install) -> None:
    install({}, {"shelf": "plugged:damaged"})
    with pytest.raises(WeightsError, match="^a/b is damaged$"):
        find_model("shelf:a/b")


def test_torch_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearsight\[torch\]'"):
        find_model("torch:my_nets:make")
