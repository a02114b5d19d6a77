"""The rule that spreads the work over processes and threads."""

from dataclasses import dataclass

#: Up to here, threads lose next to nothing, and processes would take time to start.
MAX_CORES_OF_THREADS = 4
# Threads that keep this share of the cores busy need no processes.
_BUSY_SHARE = 0.85
# Seconds for which an image holds the interpreter lock, and what else of its seconds does: 1 to 1.5 ms with
# small images on a machine with 16 cores; see docs/figures.md for the parts.
_LOCK_SECONDS, _LOCK_SHARE = 0.0012, 0.03
# Of threads in one process that hold the lock for this share of the time together, one waits now and then.
_MAX_LOCKED_SHARE = 0.3
# A worker process without its model: interpreter, numpy, Pillow and ONNX Runtime.
_PROCESS_BYTES = 160 << 20
# Weights are read, and laid out once more for the processor.
_COPIES_OF_MODEL = 2
# The rest is for images, and for other programs.
_SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How many workers there are.

    Attributes
    ----------
    n_processes : int
        Worker processes; 0 if threads of this process do the work.
    n_threads : int
        Threads in each worker process, or in this process.
    """

    n_processes: int
    n_threads: int

    @classmethod
    def parse(cls, text: str) -> "Plan | None":
        """Return the plan that `str` wrote; None if it is none."""
        numbers = [int(word) for word in text.split() if word.isdigit()]
        plan = cls(*(numbers if len(numbers) == 2 else [0, *numbers])) if 0 < len(numbers) < 3 else None
        return plan if str(plan) == text else None

    def fits(self, model_bytes: int, memory_bytes: int) -> bool:
        """Whether the memory holds the model of each process."""
        bytes_of_process = _PROCESS_BYTES + _COPIES_OF_MODEL * model_bytes
        return self.n_processes * bytes_of_process <= _SHARE_OF_MEMORY * memory_bytes

    def __str__(self) -> str:
        """Return the plan for people, such as ``8 processes x 2 threads``."""
        if not self.n_processes:
            return f"{self.n_threads} threads" if self.n_threads > 1 else "1 thread"
        processes = "1 process" if self.n_processes == 1 else f"{self.n_processes} processes"
        return f"{processes} x {self.n_threads} thread{'s' if self.n_threads > 1 else ''}"


def choose_plan(
    n_cores: int,
    *,
    seconds_per_image: float,
    busy_share: float,
    model_bytes: int,
    memory_bytes: int,
) -> Plan:
    """Return how to spread decoding and inference over the cores of a processor.

    *Method.* Threads share one interpreter lock. Each image holds it for about 1.2 ms and 3 % of its time; so
    the lock limits fast models and small images, and many cores. Threads stay where they keep the cores busy.
    Otherwise each process gets as many threads as its lock can serve (1, 2, 4 or 8), and more of them if the
    memory does not hold so many models.

    Parameters
    ----------
    n_cores : int
        Cores that may be used, at least 1.
    seconds_per_image : float
        Seconds of one core that an image takes, decoding and inference; measured.
    busy_share : float
        Share of the cores that as many threads as cores have kept busy, 0..1; measured.
    model_bytes : int
        Size of the weights.
    memory_bytes : int
        Free memory.

    Examples
    --------
    >>> facts = {"model_bytes": 14_000_000, "memory_bytes": 64 << 30}
    >>> str(choose_plan(16, seconds_per_image=0.015, busy_share=0.7, **facts))
    '8 processes x 2 threads'
    >>> str(choose_plan(2, seconds_per_image=0.015, busy_share=0.7, **facts))
    '2 threads'
    """
    threads = Plan(0, n_cores)
    if n_cores <= MAX_CORES_OF_THREADS or busy_share >= _BUSY_SHARE:
        return threads
    locked_share = _LOCK_SECONDS / max(seconds_per_image, _LOCK_SECONDS) + _LOCK_SHARE
    n_threads = 1
    while 2 * n_threads * locked_share <= _MAX_LOCKED_SHARE and n_threads < 8:
        n_threads *= 2
    while n_threads < n_cores:
        plan = Plan(-(-n_cores // n_threads), n_threads)
        if plan.fits(model_bytes, memory_bytes):
            return plan
        n_threads *= 2
    return threads
