"""Worker processes: order, bounds, crashes, errors, and an end of the parent by any means."""

import os
import signal
import subprocess
import sys
import time
from itertools import count, islice
from pathlib import Path

import fake_workers as functions
import pytest

from nearsight.parallel import WorkerProcesses, in_order
from nearsight.parallel.worker import WorkerError

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def lost(item, reason):
    return ("lost", item, reason)


def workers(start, n_processes=1, **options):
    return WorkerProcesses(start, n_processes=n_processes, lost=lost, **options)


def batches(items, size=4):
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def test_results_keep_the_order_of_the_items():
    with workers(functions.start_slow_first, n_processes=2, n_threads=2) as pool:
        results = list(in_order(pool.submit, batches(range(80), 2), look_ahead=pool.n_slots))
    assert [item for batch in results for item in batch] == list(range(80))


def test_an_endless_input_is_read_only_so_far_ahead():
    taken = []
    items = ([taken.append(i) or i] for i in count())
    with workers(functions.start_squares) as pool:
        results = in_order(pool.submit, items, look_ahead=3)
        assert [next(results) for _ in range(20)] == [[i * i] for i in range(20)]
        assert len(taken) <= 23


def test_large_arrays_come_through_shared_memory_and_may_be_written():
    sizes = [10, 20_000, 30_000, 200_000]
    with workers(functions.start_arrays, slot_bytes=60_000) as pool:
        for _ in range(5):  # more often than there are slots
            for n, (large, small) in zip(sizes, pool.submit(sizes).result(), strict=True):
                assert (large == n % 251).all()
                assert len(large) == n
                assert small.tolist() == [0, 1, 2]
                large[0] = 0


def test_a_worker_asks_and_the_parent_answers():
    with workers(functions.start_questions, answer=lambda item: item + 1) as pool:
        assert pool.submit([1, 2, 3]).result() == [2, 3, 4]


def test_an_error_of_the_answer_is_the_error_of_the_batch():
    def fail(question):
        raise KeyError(question)

    with (
        workers(functions.start_questions, answer=fail) as pool,
        pytest.raises(RuntimeError, match="KeyError"),
    ):
        pool.submit([1]).result()


def test_an_exception_comes_back_with_its_traceback():
    with workers(functions.start_failing) as pool:
        future = pool.submit([7])
        with pytest.raises(ValueError, match=r"no \[7\]") as caught:
            future.result()
        assert isinstance(caught.value.__cause__, WorkerError)
        assert "fake_workers.py" in str(caught.value.__cause__)


def test_what_cannot_be_pickled_is_an_error_of_its_batch_alone():
    with workers(functions.start_squares) as pool:
        with pytest.raises(Exception, match="pickle"):
            pool.submit([lambda: 0]).result()
        assert pool.submit([3]).result() == [9]


@posix
@pytest.mark.parametrize(
    ("how", "reason"), [("segfault", "SIGSEGV"), ("kill", "killed"), ("exit", "exit code 3")]
)
def test_a_crash_costs_one_item(how, reason):
    items: list = list(range(60))
    items[22] = how
    with workers(functions.start_crashes, n_processes=2, n_threads=2) as pool:
        results = [r for batch in in_order(pool.submit, batches(items), look_ahead=9) for r in batch]
        assert len(pool.pids) == 2
    assert results[:22] + results[23:] == items[:22] + items[23:]
    assert results[22][:2] == ("lost", how)
    assert reason in results[22][2]


def test_an_item_is_lost_only_if_it_ends_two_workers(tmp_path):
    """The first may have ended for another reason, such as want of memory."""
    items = [1, tmp_path / "first", 2]
    with workers(functions.start_crashes) as pool:
        assert pool.submit(items).result() == items


def test_several_crashes_in_one_batch():
    with workers(functions.start_crashes) as pool:
        results = pool.submit(["exit", 1, "exit", 2]).result()
    assert [r if isinstance(r, int) else r[0] for r in results] == ["lost", 1, "lost", 2]


def test_workers_that_cannot_start_say_why():
    with workers(functions.start_never, n_processes=2) as pool:
        with pytest.raises(RuntimeError, match="the model is missing"):
            pool.wait_until_ready()
        with pytest.raises(RuntimeError, match="the model is missing"):
            pool.submit([1]).result()


def test_workers_that_end_while_they_start_are_given_up():
    with workers(functions.start_dies) as pool, pytest.raises(RuntimeError, match="exit code 5"):
        pool.submit([1]).result()


def test_closing_ends_the_processes_and_cancels_what_has_not_begun():
    pool = workers(functions.start_slow_first)
    futures = [pool.submit([i]) for i in range(50)]
    futures[0].result()
    pids = pool.pids
    pool.close()
    assert not any(map(is_alive, pids))
    assert futures[-1].cancelled()


@pytest.mark.slow
@posix
def test_a_worker_that_hangs_with_the_interpreter_lock_is_ended():
    pool = workers(functions.start_hangs)
    pool.wait_until_ready()
    pool.submit([1])
    pids = pool.pids
    pool.close()
    assert not any(map(is_alive, pids))


def test_workers_take_no_more_cores_than_they_have_threads(monkeypatch):
    names = ["LOKY_MAX_CPU_COUNT", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    for name in names:
        monkeypatch.setenv(name, "7")
    with workers(functions.start_environment, n_threads=1) as pool:
        assert pool.submit(names).result() == ["1", "1", "1"]


PARENT = """
import signal
import sys
# Where the tests run in the background, SIGINT is ignored unless somebody asks for it.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {path!r}
import fake_workers as functions
from nearsight.parallel import WorkerProcesses
# Not guarded by __name__: a script of a user is not imported again.
pool = WorkerProcesses(functions.start_pids, n_processes=2, lost=print, slot_bytes=100_000)
pool.wait_until_ready()
try:
    print(*pool.pids, flush=True)
    while True:
        pool.submit([1, 2]).result()
except KeyboardInterrupt:
    pool.close()
    print("closed", flush=True)
"""


@pytest.mark.slow
@posix
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT", "SIGINT to all"])
def test_no_worker_outlives_its_parent(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PARENT.format(path=[str(Path(functions.__file__).parent)]), encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        shared = list(Path("/dev/shm").glob("*")) if Path("/dev/shm").exists() else []
        if how == "SIGINT to all":
            os.killpg(parent.pid, signal.SIGINT)
        else:
            parent.send_signal(getattr(signal, how))
        printed = parent.stdout.read()
        parent.wait()
    assert (printed == "closed\n") == how.startswith("SIGINT")
    deadline = time.monotonic() + 120
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, pids))
    assert not [file for file in shared if "nearsight" in file.name]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended and that nobody has waited for is still listed.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_memory_does_not_grow_with_the_number_of_items():
    import tracemalloc

    with workers(functions.start_arrays, slot_bytes=60_000) as pool:
        pool.submit([20_000]).result()
        tracemalloc.start()
        for _ in in_order(pool.submit, ([20_000] for _ in range(1000)), look_ahead=4):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # How many are done and not taken yet hangs on how busy the machine is; all have 20 MB.
        assert peak < 20 * 20_000


def test_what_libraries_print_and_start_leaves_the_messages_alone(capfd):
    with workers(functions.start_noise) as pool:
        assert [output.strip() for output in pool.submit([1]).result()] == [b"0"]
        assert pool.submit([1, 2]).result()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "printed" in captured.err
