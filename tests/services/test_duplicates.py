"""`services.duplicates`: which files can be deleted."""

import shutil

import pytest

import nearsight
from nearsight.services.duplicates import redundant_files

from sample_images import texture


@pytest.mark.slow
def test_a_file_is_redundant_only_beside_the_file_to_keep(tmp_path, cache):
    texture(240, 180, 0).save(tmp_path / "large.png")
    texture(240, 180, 0).resize((160, 120)).save(tmp_path / "small.png")
    texture(240, 180, 1).save(tmp_path / "one.png")
    shutil.copy(tmp_path / "one.png", tmp_path / "two.png")
    collection = nearsight.Collection.create(tmp_path / "collection", cache_dir=cache)
    collection.add([tmp_path / name for name in ("large.png", "small.png", "one.png", "two.png")])
    duplicates = collection.find_duplicates()
    redundant = redundant_files(duplicates)
    assert set(redundant.paths) == {str(tmp_path / "small.png"), str(tmp_path / "two.png")}
    assert (redundant.n_remote, redundant.n_without_kept) == (0, 0)
    (tmp_path / "large.png").write_bytes(b"another file")
    redundant = redundant_files(duplicates)
    assert redundant.paths == [str(tmp_path / "two.png")]
    assert redundant.n_without_kept == 1
