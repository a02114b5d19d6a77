"""The grid of thumbnails and the keyboard, in a real browser."""

import pytest

pytestmark = pytest.mark.slow

DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="

SHOW = (
    """async ([n, delay]) => {
  const { Grid } = await import('/components/grid.js');
  const { Selection } = await import('/selection.js');
  const main = document.querySelector('main');
  Object.assign(main.style, { width: '880px', height: '600px' });
  window.selection = new Selection(); window.opened = []; window.asked = [];
  const loaded = new Map();
  window.source = { count: n, get: (i) => loaded.get(i), need: async (first, last) => {
    asked.push([first, last]); await new Promise((done) => setTimeout(done, delay));
    for (let i = first; i <= last; i++) loaded.set(i, { id: `id${i}`, title: `image ${i}`, thumbnail: '"""
    + DOT
    + """' }); } };
  window.grid = new Grid(main, { selection, open: (i) => opened.push(i), size: 160 });
  grid.setSource(source);
  await new Promise((done) => setTimeout(done, delay + 50));
}"""
)
VISIBLE = """() => { const box = document.querySelector('main').getBoundingClientRect();
  return [...document.querySelectorAll('.cell[data-id]')].filter((c) => { const b = c.getBoundingClientRect();
    return b.top >= box.top - 1 && b.bottom <= box.bottom + 1; }).map((c) => Number(c.dataset.id.slice(2))).sort((a, b) => a - b); }"""


def test_only_cells_near_the_window_exist(parts):
    parts.evaluate(SHOW, [1_000_000, 0])
    assert parts.evaluate("() => document.querySelectorAll('.cell').length") < 100
    assert parts.evaluate("() => document.querySelector('.grid-spacer').offsetHeight") < 2**23
    assert parts.evaluate(VISIBLE)[:5] == [0, 1, 2, 3, 4]


def test_the_last_of_a_million_images_is_reached_by_key_and_by_scroll_bar(parts):
    parts.evaluate(SHOW, [1_000_000, 0])
    parts.locator("main").focus()
    parts.keyboard.press("End")
    parts.wait_for_function("() => document.querySelector('[data-id=id999999]')")
    assert parts.evaluate(VISIBLE)[-1] == 999_999
    parts.keyboard.press("Home")
    parts.wait_for_function("() => grid.position === 0")
    assert parts.evaluate(VISIBLE)[0] == 0
    parts.evaluate("() => { const m = document.querySelector('main'); m.scrollTop = m.scrollHeight; }")
    parts.wait_for_function("() => document.querySelector('[data-id=id999999]')")
    assert parts.evaluate(VISIBLE)[-1] == 999_999
    parts.evaluate("() => { const m = document.querySelector('main'); m.scrollTop = m.scrollHeight / 2; }")
    parts.wait_for_function("() => grid.cells.size && Math.min(...grid.cells.keys()) < 700000")
    assert abs(parts.evaluate(VISIBLE)[0] - 500_000) < 5_000


@pytest.mark.parametrize("rows_in_cap", [3.0, 10.0])
def test_small_steps_pass_every_row_whatever_the_cap(parts, rows_in_cap):
    """A walk in steps of at most a screen meets every position, in order, up to the end and back."""
    skipped = parts.evaluate(
        """async (screens) => {
        const { VirtualScroll } = await import('/components/virtual-scroll.js');
        const scroll = new VirtualScroll(60000, 600, 600 * screens + 600);
        const reach = scroll.height - 600, skipped = [];
        let top = 0, position = 0;
        for (const by of [37, 600, -37, -600]) {
          for (let step = 0; step < 3000; step++) {
            const before = position;
            [position, top] = scroll.scrolled(Math.min(Math.max(top + by, 0), reach));
            if (Math.abs(position - before) > 600) skipped.push([by, before, position]);
          }
          const end = by > 0 ? 59400 : 0;
          if (position !== end) skipped.push(['end', by, position]);
        }
        return skipped; }""",
        rows_in_cap,
    )
    assert skipped == []


def test_the_keyboard_moves_selects_and_opens(parts):
    parts.evaluate(SHOW, [50, 0])
    parts.locator("main").focus()
    for key in ["ArrowRight", "Space", "ArrowDown", "Space", "Enter"]:
        parts.keyboard.press(key)
    assert parts.evaluate("() => [...selection.ids]") == ["id1", "id6"]
    assert parts.evaluate("() => opened") == [6]
    assert parts.evaluate("() => document.querySelectorAll('.cell[aria-selected=true]').length") == 2
    parts.keyboard.press("Escape")
    assert parts.evaluate("() => selection.size") == 0


def test_a_range_is_selected_with_shift_also_where_nothing_was_loaded(parts):
    parts.evaluate(SHOW, [5000, 20])
    parts.locator("[data-index='2']").click()
    parts.evaluate("() => grid.selectRange(grid.focused, 4000)")
    parts.wait_for_function("() => selection.size === 3999")


def test_an_older_source_that_answers_late_fills_nothing(parts):
    parts.evaluate(SHOW, [10, 0])
    texts = parts.evaluate(
        f"""async () => {{
        const slow = {{ count: 3, get: (i) => ({{ id: `old${{i}}`, title: 'old', thumbnail: '{DOT}' }}), need: () => new Promise((d) => setTimeout(d, 60)) }};
        let ready = false; const get = slow.get; slow.get = (i) => ready ? get(i) : undefined;
        grid.setSource(slow); ready = true; grid.setSource(source);
        await new Promise((d) => setTimeout(d, 150));
        return [...document.querySelectorAll('.cell span')].map((s) => s.textContent); }}"""
    )
    assert texts
    assert not [text for text in texts if "old" in text]


def test_fields_keep_their_keys_and_the_list_names_them(parts):
    parts.evaluate(SHOW, [50, 0])
    parts.evaluate("() => document.querySelector('main').before(document.createElement('input'))")
    parts.locator("input").focus()
    parts.keyboard.press("ArrowRight")
    parts.keyboard.press("Space")
    assert parts.evaluate("() => [grid.focused, selection.size]") == [0, 0]
    titles = parts.evaluate("async () => (await import('/keys.js')).keyList()")
    assert titles[0][0] == "Images"
    assert [["Enter"], "open the image"] in titles[0][1]


def test_a_view_that_writes_its_address_late_takes_nobody_back(parts) -> None:
    """The page hears of a new address only after what is under way."""
    addresses = parts.evaluate(
        """async () => {
        const { note } = await import('/route.js');
        const found = [];
        for (const here of ['#/album/map', '#/other/images', '#/album', '#/album/images?text=sea']) {
          location.hash = here;
          note({ name: 'album' }, 'images', { text: 'sand' });
          found.push(location.hash);
        }
        // What is there already is no further step.
        const before = history.length;
        note({ name: 'album' }, 'images', { text: 'sand' });
        return history.length === before ? found : "a step";
        }"""
    )
    assert addresses == [
        "#/album/map",
        "#/other/images",
        "#/album/images?text=sand",
        "#/album/images?text=sand",
    ]
