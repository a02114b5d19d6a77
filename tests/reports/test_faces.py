import io
import re
from datetime import datetime, timezone
from pathlib import Path

from PIL import Image

from nearsight.faces import BankedFace, FaceGroup
from nearsight.reports.faces import MAX_FACES, shown_faces, write_groups


def jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def face(number, *, person="", group="", quality=0.5):
    return BankedFace(
        f"{number:016x}",
        person,
        group,
        f"/album/{number}.jpg",
        f"{number:032x}",
        (0, 0, 9, 9),
        0.9,
        quality,
        "",
        datetime.now(timezone.utc),
    )


def test_groups_without_a_name_come_first_with_the_command_that_names_them(tmp_path):
    groups = [
        FaceGroup("", "Ada <b>", [face(1, person="Ada <b>"), face(2)]),
        FaceGroup("g7", "", [face(3, group="g7"), face(4, group="g7")]),
        FaceGroup("g9", "", [face(5, group="g9")]),
    ]
    crops = {each.id: jpeg() for each in shown_faces(groups)}
    write_groups(tmp_path / "faces.html", groups, crops, bank=Path("/my bank"))
    html = (tmp_path / "faces.html").read_text(encoding="utf-8")
    assert "nearsight faces name --bank &#39;/my bank&#39; g7 &#34;NAME&#34;" in html
    assert "g9 &#34;NAME" not in html
    headings = re.findall(r"<h2>(.*?)</h2>", html.split("<script>")[0])
    assert headings == ["Group g7", "Ada &lt;b&gt;", "In no group"]
    assert html.count("<img ") == 5
    assert "1 face matched, 1 enrolled" in html


def test_a_face_that_only_matches_comes_before_enrolled_ones_and_the_best_images_are_shown():
    enrolled = [face(i, person="ann", quality=0.9) for i in range(MAX_FACES)]
    matched = [face(100 + i, quality=i / 10) for i in range(3)]
    shown = shown_faces([FaceGroup("", "ann", enrolled + matched)])
    assert len(shown) == MAX_FACES
    assert [each.id for each in shown[:3]] == [each.id for each in matched[::-1]]


def test_without_groups_the_page_says_so(tmp_path):
    write_groups(tmp_path / "faces.html", [], {}, bank=Path("bank"))
    assert "No groups of faces to name" in (tmp_path / "faces.html").read_text(encoding="utf-8")
