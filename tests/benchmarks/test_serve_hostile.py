"""The service among hostile requests and under kills: the benchmark, small."""

import pytest

pytest.importorskip("httpx2")
pytest.importorskip("uvicorn")
from benchmarks import serve_hostile

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def test_hostile_requests_leave_no_trace():
    document = serve_hostile.measure(400, 0)
    assert document["good_answers"] == 400 - document["hostile"]
    assert (
        document["wrong_answers"] == document["good_requests_without_an_answer"] == document["crashes"] == 0
    )
    assert document["hostile_with_an_answer_of_success"] == document["hostile_with_a_server_error"] == 0
    assert document["memory_at_the_end_over_warm_up"] <= 1.1


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path):
    document = serve_hostile.kills(tmp_path, 2)
    assert document["images_there"] >= 2
    faults = ("acknowledged_and_missing", "there_twice", "there_in_part", "never_sent_and_there")
    assert not any(document[name] for name in (*faults, "files_without_a_row")), document
