"""The tool that computes impostor quantiles, on a bank of squares."""

import json
import sys

import face_impostor_quantiles as tool
import numpy as np
import pytest
from fake_faces import ColorRecognizer, SquareDetector, photograph

from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles
from nearsight.estimators.neighbors import unit_length
from nearsight.faces import FaceReader
from nearsight.faces.impostor_quantiles import models_digest

PERSONS = ("ann", "bob", "cy")


def test_each_face_is_compared_with_the_mean_of_each_other_person() -> None:
    rng = np.random.default_rng(0)
    X, y = unit_length(rng.normal(size=(9, 8))), np.repeat(["a", "b", "c"], [4, 4, 1])
    similarities = tool.impostor_similarities(X, y, 2, 3, np.random.default_rng(1))
    # Persons a and b have two images; each is compared with the two others.
    assert len(similarities) == 3 * 2 * 2
    rng, expected = np.random.default_rng(1), []
    for _ in range(3):
        rows = [rng.permutation(np.flatnonzero(y == person)) for person in "abc"]
        for asked in range(3):
            for enrolled in (0, 1):
                if asked != enrolled:
                    mean = X[rows[enrolled][:2]].sum(0)
                    expected.append(X[rows[asked][0]] @ mean / np.linalg.norm(mean))
    np.testing.assert_allclose(similarities, expected)


def test_a_folder_of_persons_becomes_a_table(tmp_path, monkeypatch, capsys) -> None:
    for person in PERSONS:
        (tmp_path / "in" / person).mkdir(parents=True)
        for seed in range(6):
            photograph((person, 40 + seed, 40, 80), seed=seed).save(tmp_path / "in" / person / f"{seed}.png")
    (tmp_path / "in" / "ann" / "broken.png").write_bytes(b"no image")
    reader = FaceReader(SquareDetector(), ColorRecognizer(), progress=False)
    monkeypatch.setattr(tool, "FaceReader", lambda: reader)
    out = tmp_path / "table.json"
    words = ["tool", str(tmp_path / "in"), "--source", "squares", "--license", "MIT", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    tool.main()
    facts = json.loads(out.read_text(encoding="utf-8"))
    assert (facts["source"], facts["models"]) == ("squares", models_digest(reader.fingerprint))
    table = ImpostorQuantiles(facts["n_enrolled"], facts["rates"], facts["similarities"], facts["n_pairs"])
    assert table.n_pairs.tolist() == [6, 18, 18, 18]
    assert "1 enrolled: 6 comparisons" in capsys.readouterr().out
    assert table.threshold(0.1, [1]).value == pytest.approx(table.at_rate(0.1, 1), abs=1e-6)
