// The grid as a component; an image that is opened is shown large.

import { html, useEffect, useRef, useState } from "../ui.js";
import { Grid } from "./grid.js";
import { Viewer } from "./viewer.js";

export function GridView({ source, selection, size, more }) {
  const element = useRef();
  const grid = useRef();
  const [opened, open] = useState();
  useEffect(() => {
    grid.current = new Grid(element.current, { selection, open, size });
    return () => grid.current.destroy();
  }, [size]);
  useEffect(() => { grid.current.setSource(source); }, [source, size]);
  return html`<div ref=${element} class="grid-view" aria-label="Images" />
    ${opened != null && source && html`<${Viewer} ...${{ source, selection, more }} index=${opened} close=${() => open()} />`}`;
}
