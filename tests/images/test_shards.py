"""Tar shards: plain, compressed, damaged."""

import io
import tarfile

import fsspec
import numpy as np
import pytest

from nearsight.errors import ImageError, ImageFailure
from nearsight.images import Limits, count, covers, decode, exists, find, roots
from nearsight.images.shards import MemberSource

from sample_images import samples

IMAGES = {name: samples()[name] for name in ("jpeg", "png", "webp", "gif")}
MEMBERS = {f"{i:04}.{name}": data for i, (name, data) in enumerate(IMAGES.items())}
KINDS = [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("A.TGZ", "w:gz")]


def write(path, members=None, mode="w", **options):
    with tarfile.open(path, mode, **options) as tar:
        for name, data in (members or {f"{i:04}.{n}": d for i, (n, d) in enumerate(IMAGES.items())}).items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return path


def split(inputs):
    sources, failures = [], []
    for one in find(inputs):
        (failures if isinstance(one, ImageFailure) else sources).append(one)
    return sources, failures


@pytest.mark.parametrize(("name", "mode"), KINDS)
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_images(tmp_path, name, mode, tar_format):
    shard = write(tmp_path / name, mode=mode, format=tar_format)
    sources, failures = split(shard)
    assert failures == []
    assert [s.read(Limits()) for s in sources] == list(IMAGES.values())
    assert [s.path for s in sources] == [f"tar://{name}::{shard}" for name in MEMBERS]
    stat = sources[1].stat()
    assert (stat.size_bytes, stat.stamp, stat.modified_s) == (
        len(IMAGES["png"]),
        shard.stat().st_mtime_ns,
        1.7e9,
    )
    assert decode(sources[0]).image.size == (64, 48)
    assert count(shard) is None


@pytest.mark.parametrize(("name", "mode"), KINDS)
def test_fsspec_opens_the_paths_again_and_so_do_we(tmp_path, name, mode):
    sources, _ = split(write(tmp_path / name, {"d/0 0.jpg": IMAGES["jpeg"], "1.png": IMAGES["png"]}, mode))
    for source in sources:
        if name == name.lower():  # fsspec does not know the extension in capitals
            with fsspec.open(source.key) as file:
                assert file.read() == source.read(Limits())
        [again] = find(source.path)
        assert again.key == source.key
        assert again.read(Limits()) == source.read(Limits())
        assert exists(source.key)
    assert not exists(sources[0].key.replace("0 0", "no"))
    assert not exists(f"tar://0.jpg::{tmp_path}/gone.tar")


def test_other_members_are_skipped(tmp_path):
    shard = write(
        tmp_path / "a.tar",
        {"0.txt": b"x", "0.jpg": IMAGES["jpeg"], "d/._1.jpg": b"x", "0.json": b"{}", "d/.hid.jpg": b"x"},
    )
    with tarfile.open(shard, "a") as tar:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("dir.jpg", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "0.jpg"
            tar.addfile(info)
    sources, failures = split(shard)
    assert [s.path for s in sources] == [f"tar://0.jpg::{shard}"]
    assert failures == []


def test_names_of_every_kind(tmp_path):
    names = ["é.jpg", "new\nline.jpg", "caf\udce9.jpg", "x" * 300 + ".jpg"]
    shard = write(tmp_path / "a.tar", dict.fromkeys(names, IMAGES["jpeg"]))
    sources, failures = split(shard)
    assert [s.path for s in sources] == [f"tar://{name}::{shard}" for name in names]
    assert failures == []


def test_shards_count_when_named_or_matched_but_not_in_a_folder(tmp_path):
    write(tmp_path / "a.tar")
    write(tmp_path / "b.tar.gz", mode="w:gz")
    assert split(tmp_path) == ([], [])
    sources, failures = split(str(tmp_path / "*.tar*"))
    assert len(sources) == 8
    assert failures == []
    for inputs, covered in ((tmp_path, False), (tmp_path / "a.tar", True), (tmp_path / "*.tar", True)):
        assert covers(roots(str(inputs)), sources[0].key) == covered
    assert covers(roots(str(tmp_path / "*.tar*")), sources[-1].key)


@pytest.mark.parametrize(("name", "mode"), KINDS)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.9])
def test_a_cut_shard_keeps_the_members_before_the_cut(tmp_path, name, mode, share):
    rng = np.random.default_rng(0)
    members = {f"{i}.jpg": IMAGES["jpeg"] + rng.bytes(5000) for i in range(20)}
    data = write(tmp_path / name, members, mode).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    sources, failures = split(tmp_path / name)
    [failure] = failures
    assert failure.path == str(tmp_path / name)
    assert "damaged or cut off" in failure.reason
    assert [s.read(Limits()) for s in sources] == list(members.values())[: len(sources)]
    # a compressed stream comes in blocks, so its last few members may be lost with the cut
    assert len(sources) >= int(20 * share) - (8 if "w:gz" in mode else 2)


def test_every_cut_is_told(tmp_path):
    data = write(tmp_path / "a.tar", {"0.jpg": IMAGES["jpeg"], "1.png": IMAGES["png"]}).read_bytes()
    end = 512 * 2 + -(-len(IMAGES["jpeg"]) // 512) * 512 + -(-len(IMAGES["png"]) // 512) * 512
    assert data[end : end + 512] == bytes(512)
    for cut in range(0, end + 1, 128):
        (tmp_path / "b.tar").write_bytes(data[:cut])
        sources, failures = split(tmp_path / "b.tar")
        assert len(failures) == 1, cut
        assert all(decode(s).image.size == (64, 48) for s in sources)
    (tmp_path / "b.tar").write_bytes(data[: end + 512])
    assert len(split(tmp_path / "b.tar")[1]) == 0


@pytest.mark.parametrize(("name", "mode"), KINDS[:2])
def test_a_damaged_header_is_told(tmp_path, name, mode):
    import gzip

    raw = bytearray(write(tmp_path / "x.tar").read_bytes())
    at = raw.index(b"0002.webp")
    raw[at + 100 : at + 140] = b"\xff" * 40
    (tmp_path / name).write_bytes(gzip.compress(bytes(raw)) if "gz" in mode else bytes(raw))
    sources, [failure] = split(tmp_path / name)
    assert [s.read(Limits()) for s in sources] == [IMAGES["jpeg"], IMAGES["png"]]
    assert "damaged header" in failure.reason


@pytest.mark.parametrize("content", [b"", b"not a tar at all", bytes(100), b"\x1f\x8b rubbish"])
@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_what_is_no_shard_is_one_failure(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    sources, failures = split(tmp_path / name)
    assert sources == []
    assert len(failures) == 1


def test_an_empty_shard_is_no_failure(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    assert split(tmp_path / "a.tar") == ([], [])


def test_a_folder_called_like_a_shard_is_walked(tmp_path):
    (tmp_path / "a.tar").mkdir()
    (tmp_path / "a.tar" / "0.jpg").write_bytes(IMAGES["jpeg"])
    sources, failures = split(tmp_path / "a.tar")
    assert [s.path for s in sources] == [str(tmp_path / "a.tar" / "0.jpg")]
    assert failures == []


def test_a_shard_that_changes_or_vanishes(tmp_path):
    shard = write(tmp_path / "a.tar")
    sources, _ = split(shard)
    shard.write_bytes(b"short")
    with pytest.raises(ImageError, match="changed while it was read"):
        sources[2].read(Limits())
    # As large, and at the same places there are other images.
    shard.unlink()
    write(shard)
    with pytest.raises(ImageError, match="changed while it was read"):
        sources[2].read(Limits())
    shard.unlink()
    with pytest.raises(ImageError, match="its shard does not exist"):
        sources[0].read(Limits())
    assert split(shard)[1] == [ImageFailure(str(shard), "does not exist")]


@pytest.mark.parametrize(("name", "mode"), KINDS)
def test_members_too_large(tmp_path, name, mode):
    sources, _ = split(write(tmp_path / name, mode=mode))
    with pytest.raises(ImageError, match="max_bytes"):
        sources[1].read(Limits(max_bytes=1000))


def test_a_large_plain_shard_is_not_held(tmp_path):
    sources, _ = split(write(tmp_path / "a.tar"))
    assert all(isinstance(s, MemberSource) and s.data is None for s in sources)


@pytest.mark.parametrize(("name", "mode"), KINDS)
def test_shards_behind_urls(tmp_path, name, mode):
    data = write(tmp_path / name, mode=mode).read_bytes()
    url = f"memory:///shards/{name}"
    with fsspec.open(url, "wb") as file:
        file.write(data)
    sources, failures = split(url)
    assert failures == []
    assert [s.read(Limits()) for s in sources] == list(IMAGES.values())
    assert sources[0].path == f"tar://0000.jpeg::{url}"
    assert split(url)[0][0].stat() == sources[0].stat()
    for spelling in (url, url.replace(":///", "://")):
        assert [s.key for s in find(spelling)] == [s.key for s in sources]
        assert covers(roots(spelling), sources[0].key)
    [again] = find(sources[1].path)
    assert again.read(Limits()) == IMAGES["png"]
