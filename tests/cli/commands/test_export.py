import os
import shutil

import numpy as np
import pyarrow.parquet as pq


def test_export(indexed, photos, tmp_path, strange):
    report = indexed.json("export", tmp_path / "all.parquet")
    assert report == {"exported": 6, "file": str(tmp_path / "all.parquet")}
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 6
    assert indexed.json("export", tmp_path / "some.npz", "--where", "width = 200")["exported"] == 1
    with np.load(tmp_path / "some.npz") as saved:
        assert saved["paths"].tolist() == [str(photos / strange)]


def test_paths_and_metadata_as_csv_can_be_read_back(nearsight, photos, tmp_path, strange):
    # What a spreadsheet would take for a formula is marked as text; numbers stay numbers.
    nearsight.with_images(photos, "--meta", "year=2024")
    nearsight("tag", "note==1+1", "minus=-3", "--where", "width > 0")
    assert nearsight.json("export", tmp_path / "all.csv")["exported"] == 6
    lines = (tmp_path / "all.csv").read_bytes().splitlines()
    assert lines[0] == b"path,year,note,minus"
    assert os.fsencode(photos / "3.png") + b",2024,'=1+1,-3" in lines
    shutil.rmtree(nearsight.collection)
    nearsight("index", photos, "--metadata", tmp_path / "all.csv")
    assert {item["path"]: item["metadata"] for item in nearsight.json("ls")["items"]} == {
        str(path): {"year": 2024, "minus": -3, "note": "=1+1"} for path in photos.iterdir()
    }


def test_export_knows_its_formats(indexed, tmp_path):
    error = indexed.json("export", tmp_path / "all.txt", code=2)["error"]
    assert "must end in .parquet or .npz or .csv" in error["message"]
