"""Trains a network in one process, or in one for each GPU."""

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from nearsight.training.backbone.optimization import LayerTraining, Outcome, Trainer

# A process that waits for one that died gives up.
_TIMEOUT = timedelta(minutes=30)


def train_network(job: LayerTraining, n_processes: int | None = None) -> Outcome:
    """Run a job, or what an earlier call has left of it.

    Parameters
    ----------
    job : LayerTraining
    n_processes : int, optional
        Processes that share each batch; by default one for each NVIDIA GPU where all layers are trained.

    Notes
    -----
    *Method*: each process computes its part of a batch on its own device, and all take the mean gradient
    (`torch.nn.parallel.DistributedDataParallel`, over nccl on GPUs and gloo elsewhere). A loss that compares
    the images of a batch compares those of its part.
    """
    if n_processes is None:
        is_whole = job.device == "cuda" and job.first_block == 0
        n_processes = max(torch.cuda.device_count(), 1) if is_whole else 1
    if n_processes > 1:
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(_run_part, (job, n_processes, folder), n_processes)
    training = Trainer(job)
    # After several processes only the checkpoint is read.
    training.run()
    return training.outcome()


def _run_part(rank: int, job: LayerTraining, n_processes: int, folder: str) -> None:
    is_gpu = job.device == "cuda"
    if is_gpu:
        torch.cuda.set_device(rank)
        job = replace(job, device=f"cuda:{rank}")
    distributed.init_process_group(
        "nccl" if is_gpu else "gloo",
        init_method=(Path(folder) / "meeting").as_uri(),
        rank=rank,
        world_size=n_processes,
        timeout=_TIMEOUT,
    )
    try:
        Trainer(job, rank, n_processes).run()
    finally:
        distributed.destroy_process_group()
