"""Names of a model's forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.cli import options
from nearsight.errors import UnknownModelError
from nearsight.models.model_name import PRECISIONS, ModelVariant, split_model_name

FORMS = st.builds(
    ModelVariant,
    layer=st.sampled_from(["", "block9.add", "/encoder/layers.3/Add_output_0"]),
    pooling=st.sampled_from(["", "mean", "cls", "patches"]),
    precision=st.sampled_from(["", *PRECISIONS, "int8=0123abcd"]),
    device=st.sampled_from(["", "cpu", "cuda"]),
    layers=st.booleans(),
    centered=st.booleans(),
)
BASES = st.sampled_from(
    ["efficientnet-lite0", "dir:/a b/#1", "hub:org/repo@main#quantized", "onnx:/x,y.onnx"]
)


@given(BASES, FORMS)
def test_a_name_is_read_back(base, form):
    assert split_model_name(form.applied_to(base)) == (base, form)


@given(BASES, FORMS, FORMS)
def test_the_later_wish_counts_and_the_name_is_one(base, first, second):
    name = second.applied_to(first.applied_to(base))
    _, both = split_model_name(name)
    assert both.layer == (second.layer or first.layer)
    assert ModelVariant().applied_to(name) == name


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize("base", ["dir:/clip", "hub:org/repo@main"])
def test_a_folders_own_file_is_not_what_is_made_here(base, precision):
    assert split_model_name(f"{base}#{precision}") == (f"{base}#{precision}", ModelVariant())
    assert ModelVariant(precision=precision).applied_to(base) == f"{base}#{precision}=builtin"


@given(st.text(max_size=30))
def test_any_text_is_a_name(text):
    try:
        base, form = split_model_name(text)
    except UnknownModelError:
        return
    assert form or base == text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a#bf16,bf16", "precision twice"),
        ("a#layer=b,layer=c", "layer twice"),
        ("a#cuda,coreml", "device twice"),
        ("a#layers,layers", "layers twice"),
        ("a#pooling=max", "mean or cls or"),
    ],
)
def test_contradictions(name, message):
    with pytest.raises(UnknownModelError, match=message):
        split_model_name(name)


def test_the_command_line_knows_every_precision():
    [option] = [o for o in _params(options.model(lambda **_: None)) if o.name == "precision"]
    assert option.type.choices == ("float32", *PRECISIONS)


def _params(command):
    return command.__click_params__
