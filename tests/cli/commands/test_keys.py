def test_keys_are_added_listed_and_revoked(nearsight, tmp_path):
    data = ["--data", tmp_path / "data"]
    added = nearsight.json("keys", "add", "shop", "--scope", "embed", *data)
    assert added["scopes"] == ["embed"]
    assert added["key"].startswith(added["prefix"])
    listed = nearsight.json("keys", "list", *data)["keys"]
    assert listed == [{name: value for name, value in added.items() if name != "key"}]
    assert nearsight("keys", "add", "page", *data).stdout.startswith("ns_")
    assert nearsight.json("keys", "revoke", "shop", *data)["revoked"]["name"] == "shop"
    assert [key["name"] for key in nearsight.json("keys", "list", *data)["keys"]] == ["page"]
    assert "there are: page" in nearsight("keys", "revoke", "shop", *data, code=2).stderr


def test_the_directory_may_be_in_the_environment(nearsight, tmp_path):
    nearsight.env["NEARSIGHT_DATA"] = str(tmp_path / "elsewhere")
    nearsight.env["NEARSIGHT_PORT"] = "not of interest here"
    nearsight("keys", "add", "page")
    assert (tmp_path / "elsewhere" / "keys.json").exists()
