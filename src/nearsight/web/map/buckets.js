// A grid of buckets over the points of a plane: the nearest point of a place, and the points inside a polygon.
// Points are sorted by bucket once (a counting sort), so that a question touches a few buckets instead of all points.

const POINTS_PER_BUCKET = 8;

export class Buckets {
  /** @param {Float32Array} x @param {Float32Array} y  of equal length */
  constructor(x, y) {
    this.x = x;
    this.y = y;
    this.side = Math.max(1, Math.ceil(Math.sqrt(x.length / POINTS_PER_BUCKET)));
    // A plane without extent still has buckets of some size, around its points.
    const divided = ([low, high]) => (high > low ? [low, (high - low) / this.side] : [low - this.side / 2, 1]);
    [this.left, this.width] = divided(range(x));
    [this.bottom, this.height] = divided(range(y));
    this.sort();
  }

  sort() {
    const { x, y, side } = this;
    const bucketOf = new Uint32Array(x.length);
    this.starts = new Uint32Array(side * side + 1);
    for (let point = 0; point < x.length; point++) {
      const bucket = this.row(y[point]) * side + this.column(x[point]);
      bucketOf[point] = bucket;
      this.starts[bucket + 1]++;
    }
    for (let bucket = 0; bucket < side * side; bucket++) this.starts[bucket + 1] += this.starts[bucket];
    const next = this.starts.slice();
    this.points = new Uint32Array(x.length);
    for (let point = 0; point < x.length; point++) this.points[next[bucketOf[point]]++] = point;
  }

  column(x) {
    return clamp(Math.floor((x - this.left) / this.width), 0, this.side - 1);
  }

  row(y) {
    return clamp(Math.floor((y - this.bottom) / this.height), 0, this.side - 1);
  }

  /** The point nearest to (x, y) within a distance, or -1. */
  nearest(x, y, distance) {
    let best = -1;
    let least = distance * distance;
    for (let row = this.row(y - distance); row <= this.row(y + distance); row++) {
      for (let column = this.column(x - distance); column <= this.column(x + distance); column++) {
        const bucket = row * this.side + column;
        for (let at = this.starts[bucket]; at < this.starts[bucket + 1]; at++) {
          const point = this.points[at];
          const dx = this.x[point] - x;
          const dy = this.y[point] - y;
          const squared = dx * dx + dy * dy;
          if (squared <= least) {
            least = squared;
            best = point;
          }
        }
      }
    }
    return best;
  }

  /** The points inside a closed polygon [[x, y], ...], by the even-odd rule, in no order. */
  inside(polygon) {
    const found = [];
    if (polygon.length < 3) return found;
    const xs = polygon.map((corner) => corner[0]);
    const ys = polygon.map((corner) => corner[1]);
    const [firstRow, lastRow] = [this.row(Math.min(...ys)), this.row(Math.max(...ys))];
    const [firstColumn, lastColumn] = [this.column(Math.min(...xs)), this.column(Math.max(...xs))];
    for (let row = firstRow; row <= lastRow; row++) {
      const crossed = this.crossedColumns(row, polygon);
      for (let column = firstColumn; column <= lastColumn; column++) {
        const bucket = row * this.side + column;
        const [start, end] = [this.starts[bucket], this.starts[bucket + 1]];
        if (start === end) continue;
        if (crossed[column]) {
          for (let at = start; at < end; at++) {
            const point = this.points[at];
            if (contains(polygon, this.x[point], this.y[point])) found.push(point);
          }
        } else if (contains(polygon, this.x[this.points[start]], this.y[this.points[start]])) {
          // No edge crosses the bucket, so that its points are all inside or all outside.
          for (let at = start; at < end; at++) found.push(this.points[at]);
        }
      }
    }
    return found;
  }

  /** Which buckets of a row an edge of the polygon may cross. Buckets at the rim hold what lies beyond it, too. */
  crossedColumns(row, polygon) {
    const crossed = new Uint8Array(this.side);
    // The slack takes up rounding: a bucket too many costs little.
    const low = row === 0 ? -Infinity : this.bottom + (row - 1e-3) * this.height;
    const high = row === this.side - 1 ? Infinity : this.bottom + (row + 1 + 1e-3) * this.height;
    for (let corner = 0; corner < polygon.length; corner++) {
      let [x0, y0] = polygon[corner];
      let [x1, y1] = polygon[(corner + 1) % polygon.length];
      if (y0 > y1) [x0, y0, x1, y1] = [x1, y1, x0, y0];
      if (y1 < low || y0 > high) continue;
      // Where the edge enters and leaves the row.
      const slope = y1 > y0 ? (x1 - x0) / (y1 - y0) : 0;
      const enters = y1 > y0 ? x0 + (Math.max(low, y0) - y0) * slope : x0;
      const leaves = y1 > y0 ? x0 + (Math.min(high, y1) - y0) * slope : x1;
      const slack = this.width * 1e-3;
      const first = this.column(Math.min(enters, leaves) - slack);
      const last = this.column(Math.max(enters, leaves) + slack);
      crossed.fill(1, first, last + 1);
    }
    return crossed;
  }
}

/** Whether a polygon contains a place, by the even-odd rule. */
export function contains(polygon, x, y) {
  let odd = false;
  for (let corner = 0, before = polygon.length - 1; corner < polygon.length; before = corner++) {
    const [x0, y0] = polygon[corner];
    const [x1, y1] = polygon[before];
    if (y0 > y !== y1 > y && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) odd = !odd;
  }
  return odd;
}

function range(values) {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return values.length ? [least, most] : [0, 0];
}

function clamp(value, least, most) {
  // NaN, from a point without a place, falls into the first bucket.
  return value > least ? Math.min(value, most) : least;
}
