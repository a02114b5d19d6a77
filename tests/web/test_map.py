"""The map in a real browser: its spatial index against naive loops, and its gestures."""

import pytest

pytestmark = pytest.mark.slow

# Points and polygons from a generator with a seed, so that a failure can be repeated.
RANDOM = """
const random = ((state) => () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 4294967296))(SEED);
const cloud = (n) => {
  const x = new Float32Array(n), y = new Float32Array(n);
  for (let i = 0; i < n; i++) { const c = Math.floor(random() * 5); x[i] = c * 2 + random(); y[i] = (c % 2) * 3 + random() * random(); }
  return [x, y];
};
"""


@pytest.mark.parametrize("seed", range(3))
def test_the_lasso_and_the_nearest_point_agree_with_naive_loops(parts, seed):
    wrong = parts.evaluate(
        "async () => { const { Buckets, contains } = await import('/map/buckets.js');"
        + RANDOM.replace("SEED", str(seed))
        + """
        const wrong = [];
        for (const n of [0, 1, 7, 400, 3000]) {
          const [x, y] = cloud(n);
          const buckets = new Buckets(x, y);
          for (let draw = 0; draw < 40; draw++) {
            const corners = 3 + Math.floor(random() * 9);
            // Concave and self-crossing ones, too, and some that reach beyond the points.
            const polygon = Array.from({ length: corners }, () => [random() * 14 - 2, random() * 8 - 2]);
            const naive = Array.from(x.keys()).filter((i) => contains(polygon, x[i], y[i]));
            const found = buckets.inside(polygon).sort((a, b) => a - b);
            if (JSON.stringify(naive) !== JSON.stringify(found)) wrong.push(["lasso", n, polygon]);
            const [px, py, reach] = [random() * 12, random() * 5, random()];
            let best = -1, least = reach * reach;
            for (let i = 0; i < n; i++) {
              const d = (x[i] - px) ** 2 + (y[i] - py) ** 2;
              if (d <= least) { least = d; best = i; }
            }
            const nearest = buckets.nearest(px, py, reach);
            const distance = (i) => (i < 0 ? Infinity : (x[i] - px) ** 2 + (y[i] - py) ** 2);
            if (distance(best) !== distance(nearest)) wrong.push(["nearest", n, px, py, reach]);
          }
        }
        return wrong; }"""
    )
    assert wrong == []


@pytest.mark.parametrize("same", ["x", "y", "both"])
def test_points_on_one_line_or_at_one_place_are_selected(parts, same):
    found = parts.evaluate(
        """async (same) => { const { Buckets } = await import('/map/buckets.js');
        const x = new Float32Array(50).map((_, i) => (same === 'y' ? i : 3)), y = new Float32Array(50).map((_, i) => (same === 'x' ? i : 3));
        const buckets = new Buckets(x, y), middle = (from, width) => from + width * buckets.side / 2;
        return [buckets.inside([[-1, -1], [60, -1], [60, 60], [-1, 60]]).length, middle(buckets.left, buckets.width), middle(buckets.bottom, buckets.height)]; }""",
        same,
    )
    # They lie in the middle of the plane.
    assert found == [50, 24.5 if same == "y" else 3, 24.5 if same == "x" else 3]


SHOW = """async ([n]) => {
  const { MapView } = await import('/map/map-view.js');
  const { Selection } = await import('/selection.js');
  const main = document.querySelector('main');
  Object.assign(main.style, { width: '800px', height: '600px' });
  window.selection = new Selection();
  window.said = []; window.hovered = []; window.opened = [];
  window.map = new MapView(main, { selection, announce: (t) => said.push(t), hover: (p) => hovered.push(p), open: (p) => opened.push(p) });
  const side = Math.ceil(Math.sqrt(n));
  const x = new Float32Array(n).map((_, i) => i % side), y = new Float32Array(n).map((_, i) => Math.floor(i / side));
  await new Promise((done) => requestAnimationFrame(done));
  map.setPoints(x, y, Array.from(x.keys(), (i) => `id${i}`));
  map.setCategories(new Uint16Array(n).map((_, i) => i % 7));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def drag(page, *corners):
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=5)
    page.mouse.up()


def selected(page) -> set[int]:
    return {int(name[2:]) for name in page.evaluate("() => [...selection.ids]")}


def place(page, point: int) -> list[float]:
    return page.evaluate("(p) => map.toPx(map.x[p], map.y[p])", point)


def test_the_lasso_selects_shift_adds_and_alt_subtracts(parts):
    parts.evaluate(SHOW, [100])
    (left, bottom), (right, top) = place(parts, 0), place(parts, 99)
    middle = (left + right) / 2
    drag(parts, (left - 9, top - 9), (middle, top - 9), (middle, bottom + 9), (left - 9, bottom + 9))
    assert selected(parts) == {i for i in range(100) if i % 10 < 5}
    parts.keyboard.down("Shift")
    drag(parts, (middle, top - 9), (right + 9, top - 9), (right + 9, bottom + 9), (middle, bottom + 9))
    parts.keyboard.up("Shift")
    assert selected(parts) == set(range(100))
    level = (place(parts, 45)[1] + place(parts, 55)[1]) / 2
    parts.keyboard.down("Alt")
    drag(parts, (left - 9, level), (right + 9, level), (right + 9, bottom + 9), (left - 9, bottom + 9))
    parts.keyboard.up("Alt")
    assert selected(parts) == set(range(50, 100))
    assert parts.evaluate("() => said.at(-1)") == "50 images selected"


def test_a_finger_moves_two_zoom_and_a_tap_selects(parts):
    parts.evaluate(SHOW, [100])
    session = parts.context.new_cdp_session(parts)

    def touch(kind, *fingers):
        points = [{"x": left, "y": top, "id": at} for at, (left, top) in enumerate(fingers)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for point in (42, 43):
        left, top = place(parts, point)
        touch("touchStart", (left + 6, top + 6))
        touch("touchEnd")
    assert selected(parts) == {42, 43}
    assert parts.evaluate("() => hovered.at(-1)") == 43
    # Both fingers stay on what they touch.
    touched = parts.evaluate("() => [...map.toData(300, 300), ...map.toData(400, 300)]")
    touch("touchStart", (300, 300))
    touch("touchStart", (300, 300), (400, 300))
    touch("touchMove", (250, 320), (400, 300))
    touch("touchMove", (200, 340), (400, 340))
    touch("touchEnd")
    now = parts.evaluate("() => [...map.toData(200, 340), ...map.toData(400, 340)]")
    assert now == pytest.approx(touched, abs=1e-2)
    # One finger goes on, and nothing was selected on the way.
    corner = parts.evaluate("() => map.toData(100, 100)")
    touch("touchStart", (300, 300))
    touch("touchMove", (330, 340))
    touch("touchEnd")
    assert parts.evaluate("() => map.toData(130, 140)") == pytest.approx(corner, abs=1e-2)
    assert selected(parts) == {42, 43}
    # Where it is asked to, one finger draws the lasso, and adds. Two still move the map, and a tap still selects one.
    parts.evaluate("() => { map.fit(); map.drawNow(); map.fingerDraws = true; }")
    (left, bottom), (right, top) = place(parts, 0), place(parts, 24)
    corners = [(left - 9, top - 9), (right + 9, top - 9), (right + 9, bottom + 9), (left - 9, bottom + 9)]
    touch("touchStart", corners[0])
    for corner in corners[1:]:
        touch("touchMove", corner)
    touch("touchEnd")
    inside = {row * 10 + column for row in range(3) for column in range(5)}
    assert selected(parts) == inside | {42, 43}
    touch("touchStart", place(parts, 99))
    touch("touchEnd")
    touch("touchStart", (300, 300))
    touch("touchStart", (300, 300), (400, 300))
    touch("touchMove", (100, 100), (400, 500))
    touch("touchEnd")
    assert selected(parts) == inside | {42, 43, 99}


def test_the_keyboard_selects_with_a_rectangle(parts):
    parts.evaluate(SHOW, [100])
    parts.locator(".map-overlay").focus()
    parts.keyboard.press("r")
    parts.keyboard.press("Enter")
    expected = parts.evaluate(
        """() => Array.from(map.x.keys()).filter((i) => { const [l, t] = map.toPx(map.x[i], map.y[i]);
             return Math.abs(l - 400) < 60 && Math.abs(t - 300) < 60; })"""
    )
    assert expected
    assert selected(parts) == set(expected)
    parts.keyboard.press("Escape")
    assert selected(parts) == set()


def test_a_point_under_the_mouse_is_told_and_opened_and_colors_reach_the_screen(parts):
    parts.evaluate(SHOW, [100])
    left, top = place(parts, 42)
    parts.mouse.move(left + 3, top - 3)
    assert parts.evaluate("() => hovered.at(-1)") == 42
    parts.mouse.dblclick(left, top)
    assert parts.evaluate("() => opened") == [42]
    # The pixel of point 0 has the color of its category.
    color = parts.evaluate(
        """() => { selection.clear(); map.drawNow(); const gl = map.layer.gl, p = new Uint8Array(4); const [l, t] = map.toPx(map.x[0], map.y[0]);
        gl.readPixels(Math.round(l), map.canvas.height - Math.round(t), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, p); return [...p]; }"""
    )
    assert color[2] > color[1] > color[0]
    assert color[3] > 150


def test_zoom_keeps_the_place_under_the_mouse(parts):
    parts.evaluate(SHOW, [100])
    before = parts.evaluate("() => map.toData(200, 150)")
    parts.mouse.move(200, 150)
    parts.mouse.wheel(0, -600)
    parts.wait_for_function("() => map.zoom > 1.5")
    assert parts.evaluate("() => map.toData(200, 150)") == pytest.approx(before, abs=1e-3)


def test_the_view_stays_where_images_only_leave_and_shows_a_new_map_whole(parts):
    parts.evaluate(SHOW, [100])
    parts.evaluate("() => map.zoomAt(4, 200, 150)")
    before = parts.evaluate("() => map.toData(200, 150)")
    parts.evaluate("() => map.setPoints(map.x.slice(0, 60), map.y.slice(0, 60), map.ids.slice(0, 60))")
    assert parts.evaluate("() => map.zoom") == 4
    assert parts.evaluate("() => map.toData(200, 150)") == before
    parts.evaluate("() => map.setPoints(map.y.slice(), map.x.slice(), map.ids)")
    assert parts.evaluate("() => map.zoom") == 1


def test_names_do_not_lie_on_each_other(parts):
    parts.evaluate(SHOW, [100])
    visible = parts.evaluate(
        """() => { map.setLabels([{text: 'shoes', x: 4, y: 4, size: 9}, {text: 'boots', x: 4.1, y: 4, size: 5}, {text: 'hats', x: 8, y: 8, size: 3}]);
        map.drawNow(); return [...document.querySelectorAll('.map-names span')].map((s) => [s.textContent, s.style.visibility]); }"""
    )
    assert visible == [["shoes", "visible"], ["boots", "hidden"], ["hats", "visible"]]


def test_two_hundred_thousand_points_answer_within_a_moment(parts):
    parts.evaluate(SHOW, [200_000])
    n = parts.evaluate(
        """() => { map.select([[100, 60], [700, 100], [650, 540], [120, 500], [300, 300]], 'replace'); return selection.size; }"""
    )
    naive = parts.evaluate(
        """async () => { const { contains } = await import('/map/buckets.js');
        const polygon = [[100, 60], [700, 100], [650, 540], [120, 500], [300, 300]].map(([l, t]) => map.toData(l, t));
        let n = 0; for (let i = 0; i < 200000; i++) n += contains(polygon, map.x[i], map.y[i]); return n; }"""
    )
    assert n == naive
    assert n > 50_000


def test_without_webgl_the_processor_draws_a_sample_and_says_so(parts):
    parts.evaluate(
        """() => { const real = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) { return kind === 'webgl2' ? null : real.call(this, kind, ...rest); }; }"""
    )
    parts.evaluate(SHOW, [100])
    assert "no WebGL2" in parts.evaluate("() => said[0]")
    painted = parts.evaluate(
        """() => { map.drawNow(); const c = map.canvas; const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }"""
    )
    assert painted > 100


def test_the_line_of_the_lasso_goes_with_the_gesture(parts):
    parts.evaluate(SHOW, [100])
    outline = "() => document.querySelector('.map-overlay polygon').getAttribute('points')"
    parts.mouse.move(200, 100)
    parts.mouse.down()
    parts.mouse.move(600, 100, steps=3)
    parts.mouse.move(600, 500, steps=3)
    parts.wait_for_function(f"() => ({outline})().split(' ').length > 4")
    parts.mouse.up()
    parts.wait_for_function(f"() => ({outline})() === ''")
