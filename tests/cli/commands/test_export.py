import numpy as np
import pyarrow.parquet as pq


def test_export(indexed, photos, tmp_path, strange):
    report = indexed.json("export", tmp_path / "all.parquet")
    assert report == {"exported": 6, "file": str(tmp_path / "all.parquet")}
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 6
    assert indexed.json("export", tmp_path / "some.npz", "--where", "width = 200")["exported"] == 1
    with np.load(tmp_path / "some.npz") as saved:
        assert saved["paths"].tolist() == [str(photos / strange)]


def test_export_knows_two_formats(indexed, tmp_path):
    error = indexed.json("export", tmp_path / "all.txt", code=2)["error"]
    assert "must end in .parquet or .npz or .csv" in error["message"]
