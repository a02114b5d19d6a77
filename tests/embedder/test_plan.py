"""The rule of threads and processes, in a table."""

import pytest

from nearsight.embedder.plan import Plan, choose_plan

LITE, VIT_B, VIT_L = 14 << 20, 350 << 20, 1200 << 20
GIB = 1 << 30


@pytest.mark.parametrize(
    ("n_cores", "seconds", "busy", "model", "memory", "plan"),
    [
        # Up to four cores threads do as well, and nothing has to start.
        (1, 0.015, 0.5, LITE, 64 * GIB, "1 thread"),
        (2, 0.015, 0.5, LITE, 64 * GIB, "2 threads"),
        (4, 0.015, 0.5, LITE, 64 * GIB, "4 threads"),
        # The lock limits a fast model on small images.
        (8, 0.015, 0.8, LITE, 64 * GIB, "4 processes x 2 threads"),
        (16, 0.015, 0.74, LITE, 64 * GIB, "8 processes x 2 threads"),
        (64, 0.015, 0.2, LITE, 256 * GIB, "32 processes x 2 threads"),
        # A faster model still needs a lock for each thread.
        (16, 0.004, 0.4, LITE, 64 * GIB, "16 processes x 1 thread"),
        # 12 megapixels.
        (16, 0.065, 0.7, LITE, 64 * GIB, "4 processes x 4 threads"),
        # Threads that keep the cores busy stay.
        (16, 0.015, 0.9, LITE, 64 * GIB, "16 threads"),
        (16, 1.0, 0.99, VIT_L, 64 * GIB, "16 threads"),
        # A large model is in memory once for each process.
        (16, 0.05, 0.8, VIT_B, 64 * GIB, "4 processes x 4 threads"),
        (16, 0.05, 0.8, VIT_B, 6 * GIB, "2 processes x 8 threads"),
        (16, 0.4, 0.8, VIT_L, 12 * GIB, "2 processes x 8 threads"),
        (16, 0.4, 0.8, VIT_L, 8 * GIB, "16 threads"),
        (16, 0.015, 0.7, LITE, 1 * GIB, "2 processes x 8 threads"),
        # Cores that no power of two divides: all of them are used.
        (6, 0.015, 0.7, LITE, 64 * GIB, "3 processes x 2 threads"),
        (7, 0.015, 0.7, LITE, 64 * GIB, "4 processes x 2 threads"),
        # A clock too coarse to measure anything.
        (16, 0.0, 0.0, LITE, 64 * GIB, "16 processes x 1 thread"),
    ],
)
def test_the_rule(n_cores, seconds, busy, model, memory, plan):
    chosen = choose_plan(
        n_cores, seconds_per_image=seconds, busy_share=busy, model_bytes=model, memory_bytes=memory
    )
    assert str(chosen) == plan


@pytest.mark.parametrize("plan", [Plan(0, 1), Plan(0, 16), Plan(1, 1), Plan(1, 4), Plan(8, 2), Plan(16, 1)])
def test_a_plan_is_read_from_its_text(plan):
    assert Plan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    "text", ["", "threads", "8 x 2", "8 processes x 2 threads more", "-3 threads", "1 2 3"]
)
def test_other_text_is_no_plan(text):
    assert Plan.parse(text) is None
