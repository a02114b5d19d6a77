"""A file is judged once it is whole, whatever the rhythm in which it is written."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.services.whole_files import PATIENCE_S, WholeFiles

NAMES = ("a.png", "b.jpg")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def write(path, text, at):
    path.write_text(text)
    os.utime(path, (at, at))


def polled(files):
    return {source.path.rsplit("/", 1)[-1]: (source, stamp) for source, stamp in files.poll()}


# What happens within one second: nothing, or something is written to one of the files.
EVENTS = st.lists(st.sampled_from([None, *NAMES]), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, settle_s=st.integers(0, 4))
def test_a_file_comes_once_and_only_after_it_rested(tmp_path_factory, events, settle_s):
    folder, clock = tmp_path_factory.mktemp("watched"), Clock()
    files = WholeFiles(str(folder), settle_s=settle_s, clock=clock)
    lengths, written, returned = dict.fromkeys(NAMES, 0), {}, {}
    for event in [*events, *[None] * (settle_s + 2)]:
        if event is not None:
            lengths[event] += 1
            write(folder / event, "x" * lengths[event], 1_000 + clock.now)
            written[event] = clock.now
        for name, (source, stamp) in polled(files).items():
            assert clock.now - written[name] >= settle_s
            assert returned.get(name) != stamp, "twice"
            assert stamp.size_bytes == lengths[name]
            returned[name] = stamp
            files.accept(source, stamp)
        clock.now += 1
    assert {name: stamp.size_bytes for name, stamp in returned.items()} == {
        name: lengths[name] for name in written
    }


def test_empty_hidden_and_other_files_never_come(tmp_path):
    clock = Clock()
    files = WholeFiles(str(tmp_path), settle_s=1, clock=clock)
    for name, text in (("empty.png", ""), (".upload.png", "x"), ("a.png.part", "x"), ("notes.txt", "x")):
        write(tmp_path / name, text, 1_000)
    for _ in range(5):
        assert polled(files) == {}
        clock.now += 1
    assert files.n_waiting == 1
    # A program that renames at the end: the whole file comes.
    (tmp_path / "a.png.part").rename(tmp_path / "a.png")
    polled(files)
    clock.now += 1
    assert list(polled(files)) == ["a.png"]


def test_what_cannot_be_read_gets_time_and_comes_back_when_it_changes(tmp_path):
    clock = Clock()
    files = WholeFiles(str(tmp_path), settle_s=1, clock=clock)
    write(tmp_path / "a.png", "half", 1_000)
    polled(files)
    clock.now += 1
    [(source, _)] = polled(files).values()
    assert files.refuse(source)
    clock.now += PATIENCE_S - 2
    assert polled(files) == {}
    clock.now += 2
    [(source, _)] = polled(files).values()
    assert not files.refuse(source)
    clock.now += 2 * PATIENCE_S
    assert polled(files) == {}
    write(tmp_path / "a.png", "half and half", 2_000)
    polled(files)
    clock.now += 1
    assert list(polled(files)) == ["a.png"]


def test_files_of_an_earlier_watch_do_not_come_again(tmp_path):
    write(tmp_path / "a.png", "x", 1_000)
    first = WholeFiles(str(tmp_path), settle_s=0)
    [(source, stamp)] = polled(first).values()
    assert polled(WholeFiles(str(tmp_path), settle_s=0, known={source.path: stamp})) == {}
