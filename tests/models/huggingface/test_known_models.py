import re
from dataclasses import fields

from nearsight.models.huggingface.known_models import KNOWN_MODELS, hub_name, keeps_first_commit
from nearsight.models.registry import list_models


def test_every_fact_is_plausible():
    for model in KNOWN_MODELS:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.repository)
        assert re.fullmatch(r"|[0-9a-f]{40}", model.revision)
        assert all(getattr(model, field.name) != "" for field in fields(model) if field.name != "revision")
        assert 0 < model.dim <= 4096
        # Its kind, the figure, and who published it.
        assert re.fullmatch(r"ImageNet\S* \S+ \d\d\.\d %( at \d+ px)? \(.+\)", model.accuracy)


def test_a_short_name_is_unique_and_no_other_models():
    names = [model.name for model in KNOWN_MODELS]
    assert len(set(names)) == len(names)
    assert not set(names) & {entry.spec.id for entry in list_models()}


def test_only_short_names_without_a_commit_keep_the_first():
    pinned = next(model for model in KNOWN_MODELS if model.revision)
    free = next(model for model in KNOWN_MODELS if not model.revision)
    assert hub_name(pinned.name) == f"hub:{pinned.repository}@{pinned.revision}"
    assert hub_name(f"{free.name}#fp16") == f"hub:{free.repository}#fp16"
    assert not keeps_first_commit(pinned.repository)
    assert keeps_first_commit(free.repository)
    assert not keeps_first_commit("someone/else")
