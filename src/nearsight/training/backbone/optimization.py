"""The loop over epochs: one step a batch, one checkpoint an epoch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nearsight.models.base import TrainableNetwork
from nearsight.parallel import ordered_map
from nearsight.progress import bar
from nearsight.training.backbone.batches import epoch_batches
from nearsight.training.backbone.checkpoint import read_checkpoint, write_checkpoint
from nearsight.training.backbone.network import EfficientNetLite, arrays
from nearsight.training.backbone.validation import EpochResult, Judge, best_epoch, is_done
from nearsight.training.losses import loss, loss_facts

Ints = NDArray[np.integer]
State = dict[str, torch.Tensor]

_N_JUDGED_AT_ONCE = 64


class Source(Protocol):
    """Where a network's inputs come from; it can be pickled."""

    @property
    def n_views(self) -> int:
        """Views of each image in an epoch."""
        ...

    def views(self, rows: Ints, numbers: Ints, epoch: int) -> NDArray[np.floating]:
        """Return network inputs: a view of each row, by its number in this epoch."""
        ...

    def plain(self, rows: Ints) -> NDArray[np.floating]:
        """Return network inputs of the images themselves."""
        ...


@dataclass(frozen=True)
class LearningSchedule:
    """How long and how fast a network is trained.

    Attributes
    ----------
    epochs, batch_size : int
    rate, proxy_rate : float
        Largest learning rate of the network, and of the loss's vectors.
    max_averaging : float
        Share of the old average that a step keeps, at most.
    shares : tuple of float
        Of the way from the pretrained weights to the trained ones; each is judged.
    """

    epochs: int
    batch_size: int = 128
    rate: float = 1e-3
    proxy_rate: float = 1e-2
    warm_up: float = 0.15
    max_gradient: float = 5.0
    max_averaging: float = 0.99
    shares: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class LayerTraining:
    """One training of a network.

    Attributes
    ----------
    trainable : TrainableNetwork
    first_block : int
        Blocks before it stay as they are; the source gives its inputs.
    source : Source
    rows, y : ndarray of shape (n,), int
        Rows of the source to learn from, and the class of each.
    loss : str
        A key of `LOSSES`.
    schedule : LearningSchedule
    file : Path
        The checkpoint.
    judge : Judge or None
        Judges each epoch; without it the last epoch counts.
    stop_after : int or None
        Epochs after which to end, the rates falling as if all were run.
    device : str
    n_threads : int
        Of the processor; another number may change the last bits.
    random_state : int
    progress : bool or None
    """

    trainable: TrainableNetwork
    first_block: int
    source: Source
    rows: Ints
    y: Ints
    loss: str
    schedule: LearningSchedule
    file: Path
    judge: Judge | None = None
    stop_after: int | None = None
    device: str = "cpu"
    n_threads: int = 1
    random_state: int = 0
    progress: bool | None = None

    @property
    def n_epochs(self) -> int:
        """Epochs to run."""
        return self.stop_after or self.schedule.epochs


@dataclass(frozen=True)
class Outcome:
    """A trained network.

    Attributes
    ----------
    state : dict of str to ndarray
        The chosen weights, averaged over steps; the pretrained ones where no epoch was allowed.
    best : EpochResult or None
        The epoch they are of; None without a judge, or if no epoch was allowed.
    epochs : list of EpochResult
    losses : list of float
        Mean loss of each epoch.
    """

    state: dict[str, NDArray[Any]]
    best: EpochResult | None
    epochs: list[EpochResult]
    losses: list[float]


class _Learner(nn.Module):
    """The network and the loss: what processes share gradients of."""

    def __init__(self, network: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.network, self.criterion = network, criterion

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        vectors = self.network(x)
        # In bfloat16, a softmax over many classes loses digits.
        with torch.autocast(vectors.device.type, enabled=False):
            result: torch.Tensor = self.criterion(vectors.float(), y)
        return result


class Trainer:
    """A training that can stop and go on at each epoch.

    Parameters
    ----------
    job : LayerTraining
    rank, n_processes : int
        This process's number, and how many share each batch.
    """

    def __init__(self, job: LayerTraining, rank: int = 0, n_processes: int = 1) -> None:
        torch.set_num_threads(job.n_threads)
        self.job, self.rank, self.n_processes = job, rank, n_processes
        torch.manual_seed(job.random_state)
        self.network = EfficientNetLite(job.trainable, job.first_block)
        self.classes, self.y = np.unique(job.y, return_inverse=True)
        criterion = loss(job.loss, len(self.classes), self.network.dim)
        self.pretrained = _copy(self.network.state_dict())
        self.learner = _Learner(self.network, criterion).to(job.device, memory_format=torch.channels_last)
        rates = [job.schedule.rate, job.schedule.proxy_rate]
        groups = [list(self.network.parameters()), list(criterion.parameters())]
        self.optimizer = torch.optim.AdamW(
            [{"params": part, "lr": rate} for part, rate in zip(groups, rates, strict=True) if part]
        )
        n_steps = -(-len(job.rows) * job.source.n_views // job.schedule.batch_size)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            [rate for part, rate in zip(groups, rates, strict=True) if part],
            total_steps=job.schedule.epochs * n_steps,
            pct_start=job.schedule.warm_up,
        )
        self.average = self._on_device(self.pretrained)
        self.epoch, self.step = 0, 0
        self.results: list[EpochResult] = []
        self.losses: list[float] = []
        self.best: State | None = None
        self.parallel: nn.Module = self.learner
        if n_processes > 1:
            # Vectors of proxies without an image in this process's part have no gradient there.
            self.parallel = DistributedDataParallel(self.learner, find_unused_parameters=False)

    @property
    def is_done(self) -> bool:
        """Whether no further epoch is to be run."""
        return self.epoch >= self.job.n_epochs or (self.job.judge is not None and is_done(self.results))

    def run(self) -> None:
        """Run the epochs that are missing, and write a checkpoint after each."""
        if (state := read_checkpoint(self.job.file)) is not None:
            self._load(state)
        shown = self.job.progress if self.rank == 0 else False
        n_epochs = self.job.n_epochs
        with bar("training the network", n_epochs, unit="epochs", progress=shown) as progress:
            progress.update(self.epoch)
            while not self.is_done:
                self._run_epoch()
                if self.rank == 0:
                    self._judge()
                    write_checkpoint(self.job.file, self._state())
                if self.n_processes > 1:
                    torch.distributed.barrier()
                    if self.rank:
                        self._load(read_checkpoint(self.job.file) or {})
                progress.update()

    def outcome(self) -> Outcome:
        """Return the chosen weights."""
        state = self.average
        if self.job.judge is not None:
            state = self.pretrained if self.best is None else self.best
        best = best_epoch(self.results)
        return Outcome(arrays(state), best, self.results, self.losses)

    def _run_epoch(self) -> None:
        job = self.job
        batches = epoch_batches(
            self.y,
            job.source.n_views,
            job.schedule.batch_size,
            random_state=job.random_state,
            epoch=self.epoch,
            is_grouped=not loss_facts(job.loss).has_proxies,
        )
        # The next batches are read while the network learns from one.
        inputs = ordered_map(self._part, batches, n_threads=1)
        self.losses.append(float(np.mean([self._run_step(x, y) for x, y in inputs])))
        self.epoch += 1

    def _part(self, batch: tuple[Ints, Ints]) -> tuple[NDArray[np.floating], Ints]:
        """Return this process's part of a batch; all parts are of equal size."""
        rows, views = batch
        n_part = len(rows) // self.n_processes
        part = slice(self.rank * n_part, (self.rank + 1) * n_part) if n_part else slice(None)
        return (
            self.job.source.views(self.job.rows[rows[part]], views[part], self.epoch),
            self.y[rows[part]],
        )

    def _run_step(self, x: NDArray[np.floating], y: Ints) -> float:
        device = self.job.device
        inputs = _tensor(x, device)
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=device.startswith("cuda")):
            value = self.parallel(inputs, torch.from_numpy(np.ascontiguousarray(y)).to(device))
        self.optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.job.schedule.max_gradient)
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        kept = min(self.job.schedule.max_averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor, 1 - kept)
        return float(value.item())

    def _judge(self) -> None:
        judge = self.job.judge
        if judge is None:
            return
        network = EfficientNetLite(self.job.trainable, self.job.first_block)
        for share in self.job.schedule.shares:
            state = mixed(self.pretrained, _copy(self.average), share)
            network.load_state_dict(state)
            X = vectors(network, self.job.source, judge.rows, self.job.device)
            self.results.append(judge.result(X, self.epoch, share))
            if best_epoch(self.results) is self.results[-1]:
                self.best = state

    def _on_device(self, state: State) -> State:
        return {name: tensor.to(self.job.device, copy=True) for name, tensor in state.items()}

    def _state(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "average": _copy(self.average),
            "best": self.best,
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "results": [asdict(result) for result in self.results],
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.average, self.best = self._on_device(state["average"]), state["best"]
        self.epoch, self.step, self.losses = state["epoch"], state["step"], list(state["losses"])
        self.results = [EpochResult(**result) for result in state["results"]]


def vectors(network: nn.Module, source: Source, rows: Ints, device: str) -> NDArray[np.float32]:
    """Return the vectors of the images themselves, (n, dim)."""
    network = network.to(device, memory_format=torch.channels_last)
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), _N_JUDGED_AT_ONCE):
            inputs = _tensor(source.plain(rows[start : start + _N_JUDGED_AT_ONCE]), device)
            parts.append(network(inputs).float().cpu().numpy())
    return np.concatenate(parts)


def mixed(start: State, end: State, share: float) -> State:
    """Return weights on the way from `start` to `end`."""
    return {
        name: torch.lerp(tensor, end[name], share) if tensor.is_floating_point() else tensor
        for name, tensor in start.items()
    }


def _copy(state: State) -> State:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _tensor(x: NDArray[np.floating], device: str) -> torch.Tensor:
    inputs = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    return inputs.to(device, memory_format=torch.channels_last)
