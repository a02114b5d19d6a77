"""What cards of models tell, well written or not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models.layouts import write_layout

from nearsight import load_model
from nearsight.models import find_model
from nearsight.models.huggingface import model_card
from nearsight.models.huggingface.model_card import is_non_commercial, read_card

CARD = """---
license: other
license_name: apple-amlr
license_link: https://example.org/terms
library_name: transformers
datasets:
- imagenet-1k
- laion/laion2B-en
model-index:
- name: tiny
  results:
  - task: {type: image-classification}
    dataset: {name: ImageNet-1k, type: imagenet-1k}
    metrics:
    - {type: accuracy, value: 81.2, name: Top 1 Accuracy}
    - {type: accuracy, value: 95.6}
---
# A model
license: mit
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(model_card, "_warned", set())


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_card(tmp_path, ending):
    path = tmp_path / "README.md"
    path.write_bytes(CARD.replace("\n", ending).encode())
    assert read_card(path) == {
        "license": "apple-amlr https://example.org/terms",
        "training_data": "imagenet-1k, laion/laion2B-en",
        "accuracy": "Top 1 Accuracy 81.2 on ImageNet-1k (published); "
        "accuracy 95.6 on ImageNet-1k (published)",
    }


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", {}),
        ("# No head\nlicense: mit\n", {}),
        ("---\nlicense: mit\n", {}),
        ("---\nlicense: mit\n---\n", {"license": "mit"}),
        ("\ufeff---\nlicense: [mit, cc-by-nc-4.0]\n---", {"license": "mit, cc-by-nc-4.0"}),
        ("---\nlicense: other\n---\n", {"license": "other"}),
        ("---\ndatasets: coco\n---\n", {"training_data": "coco"}),
        ("---\n- a list\n---\n", {}),
        ("---\nlicense: {a: b}\ndatasets: 3\nmodel-index: text\n---\n", {"training_data": "3"}),
        ("---\nmodel-index:\n- results:\n  - metrics:\n    - value: 1\n---\n", {"accuracy": "1 (published)"}),
    ],
)
def test_odd_cards(tmp_path, text, facts):
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    assert read_card(path) == facts


def test_a_card_that_is_no_yaml_is_logged(tmp_path, caplog):
    path = tmp_path / "README.md"
    path.write_text("---\nlicense: [\n---\n")
    assert read_card(path) == {}
    assert "license of its model is unknown" in caplog.text
    # What makes objects is no data.
    path.write_text("---\nlicense: !!python/object/apply:os.getcwd []\n---\n")
    assert read_card(path) == {}
    assert read_card(tmp_path / "none") == {}
    assert read_card(tmp_path) == {}


@given(st.text(alphabet="-:[]{}|>&*!\n\r ab1'\"#", max_size=60))
def test_no_card_stops_a_model(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("card") / "README.md"
    path.write_text(f"---\n{text}\n---\n", encoding="utf-8")
    assert all(isinstance(value, str) and value for value in read_card(path).values())


@pytest.mark.parametrize(
    ("license", "forbids"),
    [
        ("cc-by-nc-sa-4.0", True),
        ("CC-BY-NC-4.0", True),
        ("fair-noncommercial-research-license", True),
        ("apple-amlr", True),
        ("non-commercial", True),
        ("Apache-2.0", False),
        ("mit", False),
        ("ncsa", False),
        ("cc-by-4.0", False),
        ("unknown", False),
    ],
)
def test_what_forbids_commercial_use(license, forbids):
    assert is_non_commercial(license) == forbids


def test_a_folder_tells_its_terms_once_it_is_used(tmp_path):
    folder = write_layout(tmp_path)
    plain = find_model(f"dir:{folder}").spec
    (folder / "README.md").write_text(CARD)
    spec = find_model(f"dir:{folder}").spec
    assert spec.training_data == "imagenet-1k, laion/laion2B-en"
    # For people only: no vector depends on it.
    assert spec.fingerprint == plain.fingerprint
    with pytest.warns(UserWarning, match="NOT FOR COMMERCIAL USE: the license of dir:.* is apple-amlr"):
        load_model(f"dir:{folder}")
    load_model(f"dir:{folder}")


def test_the_list_marks_it(tmp_path, monkeypatch, capsys):
    from click.testing import CliRunner

    from nearsight.cli.main import cli
    from nearsight.models.huggingface import hub

    folder = write_layout(tmp_path)
    (folder / "README.md").write_text(CARD)
    monkeypatch.setattr(hub, "fetched_models", lambda: [find_model(f"dir:{folder}")])
    shown = CliRunner().invoke(cli, ["models"]).stdout
    [line] = [line for line in shown.splitlines() if line.startswith("dir:")]
    assert "NON-COMMERCIAL" in line
    models = json.loads(CliRunner().invoke(cli, ["models", "--json"]).stdout)["models"]
    [model] = [model for model in models if model["model"].startswith("dir:")]
    assert model["license"].startswith("apple-amlr")
    assert model["available"]
