import numpy as np
import pytest
from fake_faces import ColorRecognizer, SquareDetector

from nearsight.faces import FaceReader
from nearsight.faces.impostor_quantiles import _read, impostor_quantiles, models_digest
from nearsight.faces.models import is_available
from nearsight.models import Fingerprint


def test_the_file_holds_figures_with_their_origin_and_is_in_order(monkeypatch):
    facts = _read()
    assert "Labeled Faces in the Wild" in facts["source"]
    assert "no face" in facts["license"]
    monkeypatch.setattr("nearsight.faces.impostor_quantiles.models_digest", lambda _: facts["models"])
    table = impostor_quantiles(None)
    assert table.n_enrolled.tolist() == [1, 2, 3, 5]
    # A mean of more images is nearer to everybody.
    at_1_percent = [table.at_rate(0.01, n) for n in range(1, 12)]
    assert at_1_percent == sorted(at_1_percent)
    assert at_1_percent[0] == pytest.approx(0.9142)


def test_another_decoder_has_the_same_statistics_and_other_models_have_none():
    reader = FaceReader(SquareDetector(), ColorRecognizer())
    own = reader.fingerprint
    newer = Fingerprint(own.model, own.weights_sha256, own.preprocessing, {"version": 99}, own.output)
    assert models_digest(newer) == models_digest(own)
    assert impostor_quantiles(own) is None
    plain = Fingerprint(
        own.model, own.weights_sha256, {**own.preprocessing, "mirrored": False}, own.decoder, own.output
    )
    assert models_digest(plain) != models_digest(own)


@pytest.mark.slow
def test_the_shipped_quantiles_are_of_the_built_in_models(tmp_path_factory):
    if not is_available():
        pytest.skip("needs the face models")
    own = FaceReader(cache_dir=tmp_path_factory.getbasetemp() / "models")
    table = impostor_quantiles(own.fingerprint)
    assert table is not None, "the models or the way to them changed: the quantiles are of other vectors"
    assert np.all(table.n_pairs > 200_000)
