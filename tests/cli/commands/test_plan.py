import re

import pytest

COMMAND = ("plan", "--gpus", "1", "--size", "2Mpx")


def test_amounts_have_units_of_their_size(nearsight):
    shown = nearsight(*COMMAND, "--images", "2B", "--machines", "2", "--price", "1.5").stdout
    lines = dict(re.split(r" {2,}", line)[:2] for line in shown.splitlines())
    assert lines["vectors"] == "10 TB"
    assert lines["embedding"].endswith(" days")
    assert lines["machine hours"].endswith(" machine hours")
    assert float(lines["cost"].replace(",", "")) == pytest.approx(
        1.5 * float(lines["machine hours"].split()[0].replace(",", "")), rel=0.01
    )
    few = nearsight(*COMMAND, "--images", "5").stdout
    assert "e-0" not in few
    assert "26 kB" in few


def test_the_document_keeps_its_units(nearsight):
    lines = {line["name"]: line for line in nearsight.json(*COMMAND, "--images", "1M")["lines"]}
    assert (lines["vectors"]["value"], lines["vectors"]["unit"]) == (5.12, "GB")
    assert lines["embedding"]["unit"] == "hours"
    assert all(line["basis"] in ("measured", "scaled", "published") for line in lines.values())


@pytest.mark.parametrize("images", ["-3", "0", "many", "1T"])
def test_a_number_of_images_that_is_none(nearsight, images):
    result = nearsight("plan", "--images", images, code=2)
    assert f"{images!r} is not a number of images; write 200M, 50k or 1000000" in result.stderr
