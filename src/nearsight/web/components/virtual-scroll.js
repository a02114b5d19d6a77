// Scrolling through more rows than a browser can lay out: elements may not be taller than about 16.7 million pixels.
// The scrolled element stays below a cap. Small steps move the rows pixel by pixel; a jump of the scroll bar moves to the
// same share of all rows. (The way of SlickGrid's virtual paging.)

const CAP_PX = 4_000_000;

export class VirtualScroll {
  /** @param {number} total  height of all rows @param {number} visible  height of the window, in pixels */
  constructor(total, visible, cap = CAP_PX) {
    this.total = total;
    this.visible = visible;
    this.height = Math.min(total, cap);
    // How far the rows are shifted against the scrolled element.
    this.offset = 0;
    this.last = 0;
  }

  get isPaged() {
    return this.total > this.height;
  }

  /** The position among all rows at a scroll position, which may be corrected: returns [position, scrollTop]. */
  scrolled(scrollTop) {
    if (!this.isPaged) return [scrollTop, scrollTop];
    const reach = this.height - this.visible;
    if (Math.abs(scrollTop - this.last) > this.visible) {
      const share = Math.min(Math.max(scrollTop / reach, 0), 1);
      return this.moved(share * (this.total - this.visible), scrollTop);
    }
    // At an end the browser cuts a step short. Rows that are left are one screen away at most then.
    const cut = scrollTop >= reach ? this.visible : scrollTop <= 0 ? -this.visible : scrollTop - this.last;
    const position = Math.min(Math.max(this.last + this.offset + cut, 0), this.total - this.visible);
    // Small steps drift away from the share that the scroll bar shows. Near an end they would be stopped too early.
    const nearEnd = scrollTop < this.visible * 2 || scrollTop > reach - this.visible * 2;
    return this.moved(position, nearEnd ? this.scrollTopOf(position) : scrollTop);
  }

  /** The scroll position that shows a position among all rows. */
  scrollTopOf(position) {
    if (!this.isPaged) return position;
    return Math.round((position / (this.total - this.visible)) * (this.height - this.visible));
  }

  moved(position, scrollTop) {
    this.offset = position - scrollTop;
    this.last = scrollTop;
    return [position, scrollTop];
  }
}
