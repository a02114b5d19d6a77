from nearsight.services.jobs import JobTable


def test_jobs_are_listed_shown_cancelled_and_resumed(nearsight, tmp_path):
    table = JobTable(tmp_path / "data")
    job, _ = table.add("index", {"shown": {"folder": "archive/2024"}})
    data = ["--data", tmp_path / "data"]
    assert [each["id"] for each in nearsight.json("job", "list", *data)["jobs"]] == [job.id]
    assert "archive/2024" in nearsight("job", "list", *data).stdout
    assert nearsight.json("job", "list", "--state", "done", *data)["jobs"] == []
    assert nearsight.json("job", "show", job.id, *data)["state"] == "queued"
    assert nearsight.json("job", "cancel", job.id, *data)["state"] == "cancelled"
    assert nearsight.json("job", "follow", job.id, *data, code=1)["state"] == "cancelled"
    assert nearsight.json("job", "resume", job.id, *data)["state"] == "queued"
    table.finish(job.id, "done", result={"added": 1})
    assert nearsight.json("job", "follow", job.id, *data)["result"] == {"added": 1}
    assert "there is no job" in nearsight("job", "show", "none", *data, code=2).stderr
