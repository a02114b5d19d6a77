"""Progress of long jobs."""

import sys

import pytest

from nearsight import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_short_job_writes_nothing_to_a_pipe(capsys):
    assert list(progress.track(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_pipe_gets_a_line_every_ten_seconds(clock, capsys):
    with progress.bar("embedding", 2000) as bar:
        for _ in range(25):
            clock[0] += 1
            bar.update(40)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "embedding: 400 of 2,000 images, 40.0/s, 00:40 left",
        "embedding: 800 of 2,000 images, 40.0/s, 00:30 left",
    ]


def test_without_a_total_no_time_left_is_claimed(clock, capsys):
    with progress.bar("walking", unit="files") as bar:
        clock[0] += 10
        bar.update(5)
    assert capsys.readouterr().err == "walking: 5 files, 0.5/s\n"


def test_failures_are_counted_where_all_is_shown(clock, capsys):
    with progress.bar("embedding", 100) as bar:
        clock[0] += 10
        bar.update(50, 2)
    assert capsys.readouterr().err == "embedding: 50 of 100 images, 5.0/s, 00:10 left, 2 failed\n"
    with progress.bar("embedding", 100, progress=True) as bar:
        bar.update(50, 1)
        # What a process that died had done is taken back.
        bar.update(-50, -1)
        bar.update(100, 3)
    assert "3 failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "is_terminal", "shown"), [(True, False, True), (None, True, True), (False, True, False)]
)
def test_who_gets_a_bar(wanted, is_terminal, shown, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    list(progress.track(range(3), "counting", unit="blocks", progress=wanted))
    assert ("counting: 100%" in capsys.readouterr().err) is shown


def test_steps_are_numbered_and_a_bar_inside_a_bar_is_no_step(capsys):
    with progress.steps(3):
        for _ in progress.track(range(2), "reading", progress=True):
            list(progress.track(range(2), "part", progress=True))
        with progress.steps(9):
            list(progress.track(range(2), "comparing", progress=True))
        list(progress.track(range(2), "grouping", progress=True))
        list(progress.track(range(2), "one too many", progress=True))
    list(progress.track(range(2), "alone", progress=True))
    text = capsys.readouterr().err
    for heading in (
        "step 1 of 3: reading",
        "step 2 of 3: comparing",
        "step 3 of 3: grouping",
        "\rone too many",
        "\ralone",
    ):
        assert heading in text
    assert "\rpart" in text or "part:" in text
    assert ": part" not in text


def test_the_number_of_steps_is_corrected_once_it_is_known(capsys):
    progress.steps_left(3)  # Without a block, nothing is counted.
    with progress.steps(9):
        with progress.bar("embedding images", progress=True):
            pass
        with progress.steps(4):
            progress.steps_left(1)
            with progress.bar("choosing settings", progress=True):
                pass
    told = capsys.readouterr().err
    assert "step 1 of 9: embedding images" in told
    assert "step 2 of 2: choosing settings" in told


def test_an_error_closes_its_step(capsys):
    with progress.steps(2):
        with pytest.raises(ValueError, match="half way"), progress.bar("failing", 2, progress=True):
            raise ValueError("half way")
        list(progress.track(range(2), "going on", progress=True))
    assert "step 2 of 2: going on" in capsys.readouterr().err
