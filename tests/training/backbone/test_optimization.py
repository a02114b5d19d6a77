"""A training of layers that is killed, goes on, and is shared by processes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nearsight.errors import StorageError  # noqa: E402
from nearsight.models.registry import find_model  # noqa: E402
from nearsight.training.backbone.batches import epoch_batches  # noqa: E402
from nearsight.training.backbone.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from nearsight.training.backbone.network import EfficientNetLite  # noqa: E402
from nearsight.training.backbone.optimization import (  # noqa: E402
    LayerTraining,
    LearningSchedule,
    vectors,
)
from nearsight.training.backbone.processes import train_network  # noqa: E402
from nearsight.training.backbone.sources import StoredMaps  # noqa: E402
from nearsight.training.backbone.validation import Judge  # noqa: E402
from nearsight.training.split import Draw  # noqa: E402

N_EPOCHS = 3
Y = np.repeat(np.arange(5), 8)


def maps_of_classes(rng):
    """Return feature maps, those of a class alike, and their classes."""
    return rng.normal(size=(5, 1, 192, 7, 7))[Y] + 0.3 * rng.normal(size=(40, 2, 192, 7, 7)), Y


def maps_of_hard_classes(rng):
    """Return feature maps that differ least by class, most by something that says nothing of it."""
    y = np.repeat(np.arange(5), 24)
    of_class = 0.7 * rng.normal(size=(5, 1, 192, 1, 1))[y]
    of_light = 3 * rng.normal(size=(120, 1, 1, 1, 1)) * rng.normal(size=(192, 1, 1))
    return of_class + of_light + 0.3 * rng.normal(size=(120, 2, 192, 2, 2)), y


def layer_training(folder, loss="softmax", batch_size=16, *, rate=1e-4, maps=maps_of_classes, n_judged=2):
    """Return a training on random feature maps; two classes are held out."""
    values, y = maps(np.random.default_rng(0))
    file = folder / "maps.npy"
    if not file.exists():
        np.save(file, values.astype(np.float16))
    trainable = find_model("efficientnet-lite0").trainable
    source, first_block = StoredMaps(file, 2), len(trainable.blocks) - 1
    rows, n_of_class = np.arange(len(y)), len(y) // 5
    is_judged = (rows % n_of_class >= n_of_class - n_judged) & (y < 3)
    fit = rows[(y < 3) & ~is_judged]
    frozen = vectors(EfficientNetLite(trainable, first_block), source, rows, "cpu")
    return LayerTraining(
        trainable,
        first_block,
        source,
        fit,
        y[fit],
        loss,
        LearningSchedule(N_EPOCHS, batch_size, rate=rate, proxy_rate=10 * rate, shares=(1.0, 0.5)),
        folder / "choice.pt",
        judge=Judge(Draw(fit, rows[is_judged], rows[y >= 3], fit), y, rows, frozen),
        progress=False,
    )


def started(folder):
    """Run this file in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, str(folder)])


def changed(file):
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.exists() else None


def require_equal(first, second):
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            require_equal(first[name], second[name])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            require_equal(*pair)
    else:
        assert first == second


@pytest.mark.slow
def test_a_training_that_is_killed_after_each_epoch_ends_bit_equal(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert started(whole).wait(timeout=300) == 0
    n_kills = 0
    while True:
        before = changed(killed / "choice.pt")
        process = started(killed)
        while process.poll() is None and changed(killed / "choice.pt") == before:
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        if process.wait(timeout=60) == 0:
            break
        n_kills += 1
    assert n_kills >= N_EPOCHS - 1
    expected = read_checkpoint(whole / "choice.pt")
    assert expected["epoch"] == N_EPOCHS
    require_equal(read_checkpoint(killed / "choice.pt"), expected)
    # Only the checkpoint is there, no half of one that a kill left in its place.
    assert read_checkpoint(killed / "missing.pt") is None


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    outcomes = []
    for n_processes in (1, 2):
        folder = tmp_path / str(n_processes)
        folder.mkdir()
        training = layer_training(folder)
        outcomes.append(train_network(replace(training, judge=None, stop_after=1), n_processes))
    one, two = (outcome.state for outcome in outcomes)
    start = find_model("efficientnet-lite0").trainable.state()
    name = "_conv_head.weight"
    moved = np.abs(one[name] - start[name]).mean()
    assert moved > 1e-6
    # Sums of another order differ in their last bits, of which the optimizer makes a little more.
    assert np.abs(one[name] - two[name]).mean() < 0.02 * moved


def test_classes_come_closer_and_held_out_ones_are_judged(tmp_path, monkeypatch):
    # Half a hundred images of held-out classes prove nothing.
    monkeypatch.setattr("nearsight.training.backbone.validation.MAX_LOSS", 1.0)
    training = layer_training(tmp_path, batch_size=8, rate=1e-3, maps=maps_of_hard_classes, n_judged=12)
    judge = training.judge
    before = judge.result(judge.frozen[judge.rows], 0, 1.0).seen
    # The light hides the classes from the pretrained network.
    assert before < 0.8
    outcome = train_network(training)
    assert outcome.losses[-1] < 0.9 * outcome.losses[0]
    assert outcome.epochs[-2].seen > before + 0.05
    assert [(r.epoch, r.share) for r in outcome.epochs] == [
        (epoch, share) for epoch in range(1, N_EPOCHS + 1) for share in (1.0, 0.5)
    ]
    assert all(result.unseen is not None for result in outcome.epochs)
    assert outcome.best in outcome.epochs
    # What is done is not done again.
    again = train_network(training)
    assert all(np.array_equal(again.state[name], outcome.state[name]) for name in again.state)


def test_epochs_that_cost_held_out_classes_leave_the_pretrained_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("nearsight.training.backbone.validation.MAX_LOSS", -2.0)
    training = replace(layer_training(tmp_path, "supcon"), stop_after=1)
    outcome = train_network(training)
    assert outcome.best is None
    start = training.trainable.state()
    assert all(np.array_equal(value, start[name]) for name, value in outcome.state.items())


def test_a_damaged_checkpoint_is_named(tmp_path):
    write_checkpoint(tmp_path / "a.pt", {"x": torch.ones(2)})
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match=f"delete {tmp_path} to start anew"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("is_grouped", [False, True])
def test_an_epoch_has_each_view_once_in_an_order_of_its_own(is_grouped):
    def items(epoch):
        batches = epoch_batches(Y, 3, 16, random_state=1, epoch=epoch, is_grouped=is_grouped)
        return [list(zip(rows.tolist(), views.tolist(), strict=True)) for rows, views in batches]

    first = items(0)
    assert sorted(item for batch in first for item in batch) == [
        (row, view) for row in range(40) for view in range(3)
    ]
    assert first == items(0) != items(1)
    if is_grouped:
        for batch in first[:-1]:
            assert min(np.unique(Y[[row for row, _ in batch]], return_counts=True)[1]) >= 4


if __name__ == "__main__":
    train_network(layer_training(Path(sys.argv[1])))
