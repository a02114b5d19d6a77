// The grid as a component.

import { html, useEffect, useRef } from "../ui.js";
import { Grid } from "./grid.js";

export function GridView({ source, selection, open, size }) {
  const element = useRef();
  const grid = useRef();
  const opens = useRef(open);
  opens.current = open;
  useEffect(() => {
    grid.current = new Grid(element.current, { selection, open: (index) => opens.current(index), size });
    return () => grid.current.destroy();
  }, [size]);
  useEffect(() => { if (source) grid.current.setSource(source); }, [source, size]);
  return html`<div ref=${element} class="grid-view" aria-label="Images"></div>`;
}
