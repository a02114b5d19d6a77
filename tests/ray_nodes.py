"""A Ray cluster of three nodes on loopback, and what the fake model of its actors reads and writes."""

import json
import os
import signal
import warnings
from pathlib import Path

import psutil
from unit_job_checks import DEADLINE_S

N_NODES = 3
_NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


class Scene:
    """What the fake model of all actors reads and writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        (self.folder / "log").write_text("")
        self.put()

    def put(self, *, seconds: float = 0.0, is_blind: bool = False, together: int = 0) -> None:
        """Say what an image takes, whether actors see the claims of others, and how many begin together."""
        temporary = self.folder / "facts.new"
        facts = {"seconds": seconds, "is_blind": is_blind, "together": together}
        temporary.write_text(json.dumps(facts))
        temporary.replace(self.folder / "facts.json")

    @property
    def log(self) -> list[tuple[int, int]]:
        """Process and thread of each image that was embedded."""
        lines = (self.folder / "log").read_text().splitlines()
        return [(int(process), int(thread)) for process, thread in map(str.split, lines)]

    def pids(self) -> set[int]:
        """Return the processes that have embedded."""
        return {pid for pid, _ in self.log}


class Nodes:
    """Three raylets on loopback, each a node with one core."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ray.cluster_utils import Cluster

            # `wait` gives the head half a minute; `wait_for_nodes` looks at all of them.
            head = {"include_dashboard": False, "num_cpus": 0, "wait": False}
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
            self._nodes = []
        self.address = self._cluster.address
        self.fill()

    def fill(self) -> None:
        """Start the nodes that are missing."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while len(self._nodes) < N_NODES:
                self._nodes.append(self._cluster.add_node(wait=False, **_NODE))
            self._cluster.wait_for_nodes(DEADLINE_S)

    def kill_one_of(self, pids: set[int]) -> int:
        """Kill the raylet of one of some processes; return the process."""
        for node in self._nodes:
            [raylet] = [info.process for info in node.all_processes["raylet"]]
            children = {process.pid for process in psutil.Process(raylet.pid).children(recursive=True)}
            if found := children & pids:
                os.kill(raylet.pid, signal.SIGKILL)
                self._nodes.remove(node)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._cluster.remove_node(node, allow_graceful=False)
                return found.pop()
        raise AssertionError(f"no node has one of the processes {pids}")

    def stop(self) -> None:
        """End all of it."""
        self._cluster.shutdown()
