"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const n = data.ids.length;
  const at = (id) => document.getElementById(id);
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, accent, page] = ["--ink", "--soft", "--accent", "--page"].map((v) => style.getPropertyValue(v).trim());
  // Colors that people with any color vision tell apart (Okabe and Ito), then the same, lighter.
  const hues = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b3a100", "#7a52a1",
    "#7fb8d8", "#f2cf80", "#7fceb9", "#e5bcd3", "#eaae7f", "#3f6f8f", "#8a6000", "#00604a"];
  const symbols = ["circle", "diamond", "square", "triangle-up"];
  const gray = "#b5b2a9";
  const webgl = (() => {
    try { return !!document.createElement("canvas").getContext("webgl"); } catch { return false; }
  })();
  const kind = webgl ? "scattergl" : "scatter";
  const size = n < 300 ? 11 : n < 3000 ? 8 : n < 20000 ? 5 : 3;
  document.documentElement.dataset.renderer = kind;

  const trace = (rows, name, color, symbol = "circle") => ({
    type: kind, mode: "markers", name, showlegend: name !== "",
    x: rows.map((i) => data.x[i]), y: rows.map((i) => data.y[i]), customdata: rows,
    hoverinfo: "none", marker: { size, symbol, opacity: 0.85, color: color, line: { width: 0 } },
    selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.12 } },
  });
  const all = [...Array(n).keys()];

  // Clusters are numbered 0, 1, ... without a gap, and -1 is none: names, whose size means nothing.
  function isNumbered(numbers) {
    const known = new Set(numbers), most = Math.max(...known);
    known.delete(-1);
    return known.size > 0 && known.size === most + 1 && [...known].every((v) => Number.isInteger(v) && v >= 0);
  }

  function traces(key) {
    const values = data.keys[key];
    if (!values) return [trace(all, "", hues[0])];
    const numbers = values.filter((v) => typeof v === "number");
    if (!isNumbered(numbers) && new Set(numbers).size > 12) {
      const rows = all.filter((i) => typeof values[i] === "number");
      const one = trace(rows, "", rows.map((i) => values[i]));
      Object.assign(one.marker, { colorscale: "Viridis", showscale: true, colorbar: { title: { text: key } } });
      const rest = all.filter((i) => typeof values[i] !== "number");
      return rest.length ? [trace(rest, "without", gray), one] : [one];
    }
    const groups = new Map();
    all.forEach((i) => {
      const value = values[i] === null ? "without" : String(values[i]);
      groups.has(value) ? groups.get(value).push(i) : groups.set(value, [i]);
    });
    const isCluster = isNumbered(numbers);
    const aside = isCluster ? ["-1", "without"] : ["without"];
    const order = [...groups.keys()].filter((v) => !aside.includes(v))
      .sort((a, b) => (isCluster ? a - b : groups.get(b).length - groups.get(a).length));
    const shown = order.slice(0, hues.length * (isCluster ? symbols.length : 1));
    const labels = isCluster && data.keys[key + "_label"];
    const name = (v) => (labels && labels[groups.get(v)[0]] ? `${v} ${labels[groups.get(v)[0]]}` : v);
    const made = shown.map((v, c) =>
      trace(groups.get(v), name(v), hues[c % hues.length], symbols[Math.floor(c / hues.length)]));
    const under = [["others", order.slice(shown.length).flatMap((v) => groups.get(v))],
      ["in no cluster", (isCluster && groups.get("-1")) || []], ["without", groups.get("without") || []]];
    // What belongs nowhere lies beneath, and comes last in the legend.
    const rest = under.filter(([, rows]) => rows.length)
      .map(([what, rows]) => Object.assign(trace(rows, what, gray), { legendrank: 2000 }));
    return [...rest, ...made];
  }

  // The name of each cluster in the middle of its images: medians, since a few may lie far away.
  const mostNames = 40;
  function names(key) {
    const values = data.keys[key], labels = data.keys[key + "_label"];
    if (!values || !labels) return [];
    const groups = new Map();
    all.forEach((i) => {
      if (labels[i] === null || labels[i] === undefined) return;
      groups.has(labels[i]) ? groups.get(labels[i]).push(i) : groups.set(labels[i], [i]);
    });
    const median = (numbers) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
    return [...groups].sort((a, b) => b[1].length - a[1].length).slice(0, mostNames).map(([text, rows]) => ({
      text: text.replace(/[&<]/g, (c) => (c === "&" ? "&amp;" : "&lt;")), showarrow: false,
      x: median(rows.map((i) => data.x[i])), y: median(rows.map((i) => data.y[i])),
      font: { size: 13, color: ink }, bgcolor: page, opacity: 0.85, borderpad: 2, captureevents: false,
    }));
  }

  const layout = (key) => ({
    annotations: names(key), margin: { l: 12, r: 12, t: 12, b: 12 }, dragmode: "lasso", hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink },
    xaxis: { visible: false }, yaxis: { visible: false },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: accent },
    legend: { bgcolor: "rgba(0,0,0,0)", itemsizing: "constant", y: 0.95 },
  });
  const plot = at("plot");
  const config = { responsive: true, displaylogo: false, displayModeBar: true, scrollZoom: true,
    modeBarButtons: [["lasso2d", "select2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  function draw() {
    const key = at("color").value;
    Plotly.react(plot, traces(key), layout(key), config);
    find();
  }

  // What each image is found by: its name, path and id, and its metadata.
  const texts = all.map((i) => [data.names[i], data.paths[i], data.ids[i],
    ...Object.values(data.keys).map((values) => values[i])].filter((v) => v !== null && v !== undefined)
    .join("\n").toLowerCase());

  function find() {
    const words = at("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = words.length ? all.filter((i) => words.every((word) => texts[i].includes(word))) : [];
    const found = new Set(rows);
    const selected = plot.data.map((one) => !words.length ? null
      : one.customdata.flatMap((i, place) => (found.has(i) ? [place] : [])));
    Plotly.restyle(plot, { selectedpoints: selected });
    at("found").textContent = words.length ? `${rows.length.toLocaleString("en")} found` : "";
    pick(rows);
    if (rows.length) look(rows[0]);
  }

  function look(i) {
    at("look").replaceChildren();
    if (data.images[i]) {
      const image = new Image();
      image.src = "data:image/jpeg;base64," + data.images[i];
      image.alt = data.names[i];
      at("look").append(image);
    } else {
      at("look").textContent = "no thumbnail on this page";
    }
    at("name").textContent = data.names[i];
    at("id").textContent = data.names[i] === data.paths[i] ? data.ids[i] : data.paths[i];
    at("facts").replaceChildren(...Object.keys(data.keys).filter((k) => data.keys[k][i] !== null).flatMap((k) => {
      const term = document.createElement("dt"), value = document.createElement("dd");
      term.textContent = k;
      value.textContent = String(data.keys[k][i]);
      return [term, value];
    }));
  }

  function pick(rows) {
    at("count").textContent = rows.length ? `${rows.length.toLocaleString("en")} selected` : "Nothing selected";
    at("ids").value = rows.map((i) => data.ids[i]).join("\n");
    at("copy").disabled = !rows.length;
    at("copy").textContent = "Copy the ids";
    at("picked").replaceChildren(...rows.filter((i) => data.images[i]).slice(0, 60).map((i) => {
      const image = new Image();
      image.src = "data:image/jpeg;base64," + data.images[i];
      image.alt = data.names[i];
      image.title = data.names[i];
      return image;
    }));
  }

  draw();
  plot.on("plotly_hover", (event) => look(event.points[0].customdata));
  plot.on("plotly_selected", (event) => pick(event ? event.points.map((p) => p.customdata) : []));
  plot.on("plotly_deselect", () => pick([]));
  at("find").addEventListener("input", find);
  at("color").addEventListener("change", draw);
  at("copy").addEventListener("click", async () => {
    at("ids").select();
    try { await navigator.clipboard.writeText(at("ids").value); } catch { document.execCommand("copy"); }
    at("copy").textContent = "Copied";
  });
})();
