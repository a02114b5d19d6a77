"""Work spread over threads or processes, in order and in bounded memory."""

from nearsight.parallel.processes import WorkerProcesses, can_start_processes
from nearsight.parallel.threads import in_order, ordered_map
from nearsight.parallel.worker import Ask
from nearsight.parallel.worker_pool import WorkerPool

__all__ = ["Ask", "WorkerPool", "WorkerProcesses", "can_start_processes", "in_order", "ordered_map"]
