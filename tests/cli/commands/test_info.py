def test_info(indexed):
    facts = indexed.json("info")
    assert (facts["images"], facts["model"], facts["dim"]) == (6, "efficientnet-lite0", 1280)
    assert facts["decode"] == "draft"
    assert facts["metadata"].keys() == {"year"}
    text = indexed("info").stdout
    assert "efficientnet-lite0" in text
    assert "year (" in text
