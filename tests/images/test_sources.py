"""Reading one image: files that are none, files that change, images in memory."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearsight.errors import ImageError, ImageFailure
from nearsight.images import InMemoryImage, Limits, MemorySource, Stat, content_id, decode, find
from nearsight.images.sources import FileSource

from sample_images import encoded, profile, samples, scene, turned

LIMITS = Limits()


def source(path):
    return FileSource(str(path), str(path))


def reason_or_none(path):
    try:
        source(path).read(LIMITS)
    except ImageError as error:
        return error.reason
    return None


def reason(callable_, *args):
    with pytest.raises(ImageError) as caught:
        callable_(*args)
    return caught.value.reason


def test_a_file_is_read_whole(tmp_path):
    content = np.random.default_rng(0).bytes(9 << 20)
    (tmp_path / "a.jpg").write_bytes(content)
    one = source(tmp_path / "a.jpg")
    assert one.read(LIMITS) == content
    info = os.stat(tmp_path / "a.jpg")
    assert one.stat() == Stat(len(content), info.st_mtime_ns, info.st_mtime)


@pytest.mark.parametrize("seconds", [2**33, -(2**33), 2**40])
def test_a_time_that_a_wrong_clock_has_set(tmp_path, seconds):
    file = tmp_path / "a.png"
    file.write_bytes(b"a")
    try:
        os.utime(file, (seconds, seconds))
    except (OSError, OverflowError):
        pytest.skip("this file system has no such times")
    stamp = FileSource(str(file), str(file)).stat().stamp
    assert -(2**63) <= stamp < 2**63
    # It shows that the file changed.
    os.utime(file, (0, 0))
    assert FileSource(str(file), str(file)).stat().stamp != stamp


def test_an_empty_file_is_read_and_refused_by_the_decoder(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert source(tmp_path / "a.jpg").read(LIMITS) == b""
    assert reason(decode, source(tmp_path / "a.jpg")) == "is empty: 0 bytes"


def test_a_file_that_vanished(tmp_path):
    (tmp_path / "a.jpg").write_bytes(samples()["jpeg"])
    [found] = find(tmp_path)
    (tmp_path / "a.jpg").unlink()
    assert reason(found.read, LIMITS) == "vanished before it was read"
    assert reason(found.stat) == "vanished before it was read"
    assert reason(decode, found) == "vanished before it was read"


def test_neither_fifo_nor_device_nor_socket_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        (tmp_path / "device.jpg").symlink_to("/dev/zero")
        (tmp_path / "folder.jpg").mkdir()
        with ThreadPoolExecutor(1) as pool:
            for name, kind in (("fifo", "a FIFO"), ("device", "a device"), ("folder", "a directory")):
                task = pool.submit(reason, source(tmp_path / f"{name}.jpg").read, LIMITS)
                assert task.result(timeout=60) == f"is not a file but {kind}"
            task = pool.submit(reason, source(tmp_path / "socket.jpg").read, LIMITS)
            assert "cannot be read" in task.result(timeout=60)


def test_a_file_too_large_is_not_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(1 << 40)  # a hole: no disk is used
    assert "max_bytes = 268,435,456" in reason(source(tmp_path / "a.jpg").read, LIMITS)


def test_a_file_that_takes_too_long(tmp_path):
    (tmp_path / "a.jpg").write_bytes(bytes(100))
    assert "max_seconds = -1" in reason(source(tmp_path / "a.jpg").read, Limits(max_seconds=-1))


def test_a_file_that_is_still_growing(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(1 << 20))
    stop = threading.Event()

    def grow():
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(bytes(1 << 16))

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        reasons = {reason_or_none(path) for _ in range(200)}
    finally:
        stop.set()
        writer.join()
    assert "changed while it was read; try again when it is complete" in reasons


def test_names_that_no_file_can_have():
    for path in ("a\0b.jpg", "\ud800.jpg"):
        [failure] = find(path)
        assert "is not a possible path" in failure.reason
        assert "is not a possible path" in reason(source(path).read, LIMITS)


@pytest.fixture
def public_folder():
    # pytest's own folders are closed to everybody else.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for folder in Path(name).iterdir():
            folder.chmod(0o755)


def test_a_file_without_permission(public_folder):
    (public_folder / "a.jpg").write_bytes(samples()["jpeg"])
    (public_folder / "closed").mkdir()
    (public_folder / "closed" / "b.jpg").write_bytes(samples()["jpeg"])
    (public_folder / "z.jpg").write_bytes(samples()["jpeg"])
    (public_folder / "a.jpg").chmod(0)
    (public_folder / "closed").chmod(0)
    code = """
import os, sys
from nearsight.errors import ImageFailure, ImageError
from nearsight.images import decode, exists, find
if os.getuid() == 0:  # root may read everything: become nobody
    os.setgid(65534); os.setuid(65534)
for one in find(sys.argv[1]):
    try:
        name = os.path.basename(one.path)
        print(name, one.reason if isinstance(one, ImageFailure) else decode(one).image.size)
    except ImageError as error:
        print(os.path.basename(one.path), error.reason)
print("still there:", exists(os.path.join(sys.argv[1], "closed", "b.jpg")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(public_folder)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "a.jpg cannot be read: permission denied",
        "closed cannot be read: permission denied",
        "z.jpg (64, 48)",
        "still there: True",
    ]


# -- images in memory ------------------------------------------------------------------------------------


def only(inputs):
    [one] = find(inputs)
    return one


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 3), (48, 64, 4)])
def test_arrays_are_images(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if shape[-1] == 4:
        array[..., 3] = 255
    got = np.asarray(decode(only(array)).image)
    expected = np.broadcast_to(array.reshape(48, 64, -1)[..., :3], (48, 64, 3))
    assert np.array_equal(got, expected)


def test_strided_arrays():
    array = np.asarray(scene(64, 48))
    assert np.array_equal(np.asarray(decode(only(array[::-1, ::2])).image), array[::-1, ::2])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 3), bool),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 1, 1, 1, 3), np.uint8),
        np.array("text"),
    ],
)
def test_other_arrays_say_what_an_image_is(array):
    text = reason(decode, only([array]))
    assert "uint8" in text or "is empty: 4×0 pixels" in text


def test_a_stack_of_arrays_is_many_images():
    stack = np.stack([np.full((4, 5, 3), value, np.uint8) for value in (1, 2, 3)])
    assert [np.asarray(decode(one).image).max() for one in find(stack)] == [1, 2, 3]


def test_pil_images_mean_what_their_files_mean(tmp_path):
    for i, data in enumerate(
        (
            turned(6),
            encoded(scene(), "PNG", icc_profile=profile("swapped")),
            samples()["png-alpha"],
            samples()["png-16"],
        )
    ):
        path = tmp_path / f"{i}.bin"
        path.write_bytes(data)
        with Image.open(path) as image:
            in_memory = np.asarray(decode(only(image)).image)
        assert np.array_equal(in_memory, np.asarray(decode(data).image)), i


def test_the_callers_image_is_left_alone():
    image = scene().copy()
    image.info["exif"] = b"damaged"
    before = image.tobytes()
    decode(only(image))
    assert image.tobytes() == before
    assert image.info == {"exif": b"damaged"}


def test_a_lazily_opened_image_with_a_damaged_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(samples()["jpeg"][:700])
    with Image.open(tmp_path / "a.jpg") as image:
        assert "is not a readable image" in reason(decode, only(image))


def test_equal_pixels_have_equal_ids_and_others_do_not():
    array = np.asarray(scene(64, 48))
    ids = [
        content_id(only(x).read(LIMITS))
        for x in (array, Image.fromarray(array), array.reshape(64, 48, 3), array + 1)
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_bytes_are_a_file():
    data = samples()["jpeg"]
    for one in (data, bytearray(data), memoryview(data)):
        found = only([one])
        assert found.read(LIMITS) == data
        assert (found.path, found.key, found.stat().size_bytes) == ("<image 1>", "", len(data))


def test_pixels_cannot_be_smuggled_in_as_bytes():
    packed = only(np.asarray(scene(64, 48))).read(LIMITS)
    assert isinstance(packed, InMemoryImage)
    assert decode(packed).image.size == (64, 48)
    assert "known format" in reason(decode, MemorySource("a", bytes(packed)))
    assert "known format" in reason(decode, MemorySource("a", packed))


def test_limits_hold_in_memory_too():
    text = reason(lambda: decode(only(np.zeros((48, 64), np.uint8)), limits=Limits(max_pixels=64 * 48 - 1)))
    assert "max_pixels" in text


def test_names_and_positions():
    image = np.zeros((2, 2), np.uint8)
    found = list(find([image, ("mine", image), samples()["png"], 7, ("a", "b.jpg")]))
    assert [one.path for one in found] == ["<image 1>", "mine", "<image 3>", "<image 4>", "a"]
    assert found[3] == ImageFailure(
        "<image 4>", "is of type int; give a path, bytes, a PIL image or a uint8 array"
    )
    assert isinstance(found[4], ImageFailure)
    with pytest.raises(TypeError, match="cannot look for images in an object of type int"):
        list(find(7))
