"""Work spread over threads or processes, in order and in bounded memory."""

from nearsight.parallel.processes import WorkerProcesses
from nearsight.parallel.threads import in_order, ordered_map
from nearsight.parallel.worker import Ask

__all__ = ["Ask", "WorkerProcesses", "in_order", "ordered_map"]
