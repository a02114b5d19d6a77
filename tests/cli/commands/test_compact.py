def test_compact(nearsight, photos):
    nearsight("index", photos)
    report = nearsight.json("compact")
    assert report.keys() == {"images", "size_bytes", "freed_bytes", "seconds"}
    assert report["images"] == 6
    assert "6 images in" in nearsight("compact").stdout
