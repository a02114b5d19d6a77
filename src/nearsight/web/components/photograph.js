// An image in full; until its file is there, or where it cannot be shown, its thumbnail.

import { html, useEffect, useState } from "../ui.js";

export function Photograph({ collection, id, broken, ...props }) {
  const [state, setState] = useState();
  useEffect(() => {
    const original = new Image();
    original.onload = () => setState("whole");
    original.onerror = () => setState("broken");
    original.src = collection.original(id);
    return () => { original.onload = original.onerror = null; original.src = ""; };
  }, []);
  return html`<img alt="" ...${props} src=${state === "whole" ? collection.original(id) : collection.thumbnail(id)} />
    ${state === "broken" && broken}`;
}
