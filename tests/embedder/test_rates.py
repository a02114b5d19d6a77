"""The rates of earlier runs."""

import os
import time

from nearsight.embedder.rates import Rates, size_class


def test_rates_are_kept_by_size_of_the_images(tmp_path):
    rates = Rates(tmp_path, "f" * 64, 16)
    assert rates.read(300_000) == {}
    rates.write(640 * 480, {"threads": 634.04, "processes": 868.0}, "model")
    rates.write(12e6, {"threads": 197.0}, "model")
    again = Rates(tmp_path, "f" * 64, 16)
    assert again.read(600 * 500) == {"threads": 634.0, "processes": 868.0}
    assert again.read(10e6) == {"threads": 197.0}
    assert again.read(100_000_000) == {}
    assert set(again.read_all()) == {size_class(640 * 480), size_class(12e6)}


def test_other_models_and_other_numbers_of_cores_have_rates_of_their_own(tmp_path):
    Rates(tmp_path, "a" * 64, 16).write(1e6, {"threads": 1.0}, "model")
    assert Rates(tmp_path, "b" * 64, 16).read(1e6) == {}
    assert Rates(tmp_path, "a" * 64, 8).read(1e6) == {}


def test_a_damaged_file_is_measured_again(tmp_path):
    rates = Rates(tmp_path, "a" * 64, 16)
    for content in ("", "[]", '{"images_per_second": {"1 Mpx": 3}}', '{"images_per_second": null}', "\0"):
        rates.file.parent.mkdir(exist_ok=True)
        rates.file.write_text(content, encoding="utf-8")
        assert rates.read(1e6) == {}
    rates.write(1e6, {"threads": 2.0}, "model")
    assert rates.read(1e6) == {"threads": 2.0}


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path, caplog):
    (tmp_path / "rates").write_text("a file", encoding="utf-8")
    Rates(tmp_path, "a" * 64, 16).write(1e6, {"threads": 2.0}, "model")
    assert "measured again" in caplog.text


def test_old_rates_are_measured_again(tmp_path):
    rates = Rates(tmp_path, "a" * 64, 16)
    rates.write(1e6, {"threads": 1.0}, "model")
    old = time.time() - 31 * 24 * 3600
    os.utime(rates.file, (old, old))
    assert rates.read(1e6) == {}
    assert rates.read_all()
