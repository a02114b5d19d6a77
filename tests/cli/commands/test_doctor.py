from importlib import metadata

import pytest


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
        "gpu decoding",
        "text",
        "faces",
        "formats",
        "cache",
        "model",
        "workers",
        "collection",
    }
    by_name = {check["name"]: check for check in checks}
    assert "fail" not in {check["status"] for check in checks}
    assert metadata.version("lancedb") in by_name["packages"]["detail"]
    assert "CPUExecutionProvider" in by_name["onnxruntime"]["detail"]
    assert "HEIC" in by_name["formats"]["detail"]
    assert "1280 dimensions" in by_name["model"]["detail"]
    assert "none at" in by_name["collection"]["detail"]
    assert not nearsight.collection.exists()


def test_doctor_counts_the_collection(indexed):
    [check] = [c for c in indexed.json("doctor")["checks"] if c["name"] == "collection"]
    assert "6 images embedded by efficientnet-lite0" in check["detail"]


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
