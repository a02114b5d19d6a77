"""The service keeps to its own description: whatever the description allows is answered as it says."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="needs the dependency group clients")
from schemathesis.specs.openapi import checks  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]

# No key is needed here; bytes that are no image are allowed by the description, and refused; HEAD and TRACE.
EXCLUDED = [checks.ignored_auth, checks.positive_data_acceptance, checks.unsupported_method]


def test_every_route_answers_as_it_is_described(address):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 40
    for operation in operations:
        # A stream ends when its job does.
        if not operation.label.endswith("/events"):
            check(operation)


def check(operation):
    @settings(
        max_examples=5,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def run(case):
        case.call_and_validate(excluded_checks=EXCLUDED)

    run()
