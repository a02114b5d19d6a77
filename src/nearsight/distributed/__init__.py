"""Embedding on many machines: a job of units, which any number of processes work through, each unit once.

A job is a folder that all of its processes see. `plan` divides the inputs into units, once; a `Worker` embeds
units and writes the rows of each as one file; a `Committer` adds those rows to the collection. Every step may
be repeated, by anybody, at any time: the result is that of doing it once.
"""

from nearsight.distributed.committer import CommitReport, Committer
from nearsight.distributed.job_folder import JobFolder
from nearsight.distributed.plan import plan, plan_again
from nearsight.distributed.status import JobStatus, failures, status
from nearsight.distributed.units import JobFacts, Unit
from nearsight.distributed.worker import Worker, WorkReport

__all__ = [
    "CommitReport",
    "Committer",
    "JobFacts",
    "JobFolder",
    "JobStatus",
    "Unit",
    "WorkReport",
    "Worker",
    "failures",
    "plan",
    "plan_again",
    "status",
]
