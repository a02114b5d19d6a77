"""Metrics against naive loops and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from nearsight.errors import InvalidParameterError
from nearsight.evaluation.metrics import (
    Task,
    cluster_agreement,
    defect_scores,
    few_shot_accuracy,
    probe_accuracy,
    recalls,
    retrieval,
)


def naive(X, task):
    """One query after the other, by sorting."""
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    rows = []
    for query in task.queries:
        others = [row for row in task.gallery if task.groups[row] != task.groups[query]]
        ranked = sorted(others, key=lambda row: (-(X[query] @ X[row]), list(task.gallery).index(row)))
        hits = [task.y[row] == task.y[query] for row in ranked]
        n_right = sum(hits)
        if not n_right:
            rows.append([np.nan] * 6)
            continue
        precisions = [sum(hits[: at + 1]) / (at + 1) for at in range(min(10, len(hits))) if hits[at]]
        votes: dict[int, float] = {}
        for row in ranked[:10]:
            votes[task.y[row]] = votes.get(task.y[row], 0) + X[query] @ X[row]
        best = max(sorted(votes), key=lambda label: votes[label])
        rows.append(
            [
                float(any(hits[:1])),
                float(any(hits[:5])),
                float(any(hits[:10])),
                sum(precisions) / min(10, n_right),
                sum(hits[:n_right]) / n_right,
                float(best == task.y[query]),
            ]
        )
    return np.array(rows)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 5), st.booleans())
def test_retrieval_agrees_with_naive_loops(seed, n, n_classes, is_split):
    rng = np.random.default_rng(seed)
    X = np.abs(rng.standard_normal((n, 6))) + 0.1
    y, groups = rng.integers(0, n_classes, n), rng.integers(0, max(2, n // 2), n)
    is_query = rng.random(n) < 0.4
    is_query[:2] = [True, False]
    task = Task.split(y, groups, is_query) if is_split else Task.left_out(y, groups)
    result = retrieval(X, task)
    values = np.column_stack(list(result.values.values()))
    expected = naive(X.astype(np.float32), task)
    assert np.allclose(values, expected, atol=1e-6, equal_nan=True)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    found = recalls(unit[task.queries] @ unit[task.gallery].T, task.queries, task, (1, 5))
    assert np.array_equal(np.column_stack(found), expected[:, :2], equal_nan=True)


def test_a_query_never_meets_its_own_group():
    X = np.eye(4)[[0, 0, 0, 1]] + 0.01
    result = retrieval(X, Task.left_out([0, 0, 0, 1], [0, 0, 1, 2]))
    assert result.matches[0, 0] == 2
    assert 1 not in result.matches[0]
    assert np.isnan(result.values["recall@1"][3])


@pytest.mark.parametrize("is_split", [True, False])
def test_a_probe_separates_what_is_separable_and_guesses_noise(is_split):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    separable = np.eye(4)[y] * 3 + rng.standard_normal((200, 4)) * 0.1
    groups = np.arange(200)
    task = Task.split(y, groups, np.arange(200) < 80) if is_split else Task.left_out(y, groups)
    assert probe_accuracy(separable, task).mean() == 1
    assert 0.1 < probe_accuracy(rng.standard_normal((200, 4)), task).mean() < 0.4


def test_a_probe_does_not_profit_from_duplicates_of_a_query():
    rng = np.random.default_rng(1)
    X = np.repeat(rng.standard_normal((60, 60)), 2, axis=0)
    y = np.repeat(rng.integers(0, 4, 60), 2)
    by_group = probe_accuracy(X, Task.left_out(y, np.repeat(np.arange(60), 2))).mean()
    by_row = probe_accuracy(X, Task.left_out(y, np.arange(120))).mean()
    assert by_row > 0.7
    assert by_group < 0.5


def test_few_shots_of_compact_classes_suffice_and_more_help_wide_ones():
    rng = np.random.default_rng(2)
    y = np.arange(300) % 5
    centers = rng.standard_normal((5, 20))
    task = Task.split(y, np.arange(300), np.arange(300) < 100)
    assert few_shot_accuracy(centers[y] + 0.01 * rng.standard_normal((300, 20)), task, 1).mean() == 1
    wide = centers[y] + 1.5 * rng.standard_normal((300, 20))
    assert few_shot_accuracy(wide, task, 1).mean() < few_shot_accuracy(wide, task, 5).mean() - 0.05


def test_few_shot_episodes_leave_out_the_groups_that_were_drawn():
    X, y = np.eye(6)[[0, 0, 1, 1, 2, 2]], np.array([0, 0, 1, 1, 2, 2])
    # All rows of a class are one group: whatever is drawn, no query of the class is fair.
    assert np.isnan(few_shot_accuracy(X, Task.left_out(y, y), 1)).all()
    assert np.isfinite(few_shot_accuracy(X, Task.left_out(y, np.arange(6)), 1)).all()


def test_clusters_of_separate_classes_agree_with_them():
    y = np.repeat(np.arange(3), 20)
    X = np.eye(3)[y] + 0.01 * np.random.default_rng(0).standard_normal((60, 3))
    assert cluster_agreement(X, y) == (pytest.approx(1), pytest.approx(1))


def test_defects_lie_far_from_good_images():
    rng = np.random.default_rng(0)
    good, defect = (
        rng.standard_normal((60, 8)) * 0.1 + np.eye(8)[0],
        rng.standard_normal((30, 8)) * 0.1 + np.eye(8)[1],
    )
    X = np.vstack([good, defect])
    scores = defect_scores(X, np.arange(40), np.arange(40, 90))
    assert roc_auc_score(np.arange(40, 90) >= 60, scores) > 0.99


def test_an_empty_side_is_refused():
    with pytest.raises(InvalidParameterError, match="needs both"):
        Task.split([0, 1], [0, 1], [True, True])
