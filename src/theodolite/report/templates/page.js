"use strict";
const report = (() => {
  const survey = JSON.parse(document.getElementById("survey-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const NARROW = 560;
  let printing = false;

  function setPath(target, path, value) {
    const keys = path.split(".");
    const last = keys.pop();
    let place = target;
    for (const key of keys) place = place[key] ??= {};
    place[last] = value;
  }

  // A deep copy each time: plotly writes into what it is given.
  function draw(chart, figure, width, patch) {
    const drawn = JSON.parse(JSON.stringify(dark.matches && !printing ? figure.dark : figure.light));
    if (width < NARROW) for (const [path, value] of Object.entries(figure.narrow)) setPath(drawn.layout, path, value);
    drawn.layout.width = width;
    patch?.(drawn, width);
    const config = { displayModeBar: false, displaylogo: false, responsive: false, doubleClick: false };
    return Plotly.react(chart, drawn.data, drawn.layout, config).then(() => drawn.layout);
  }

  function save(name, blob) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function csv(columns) {
    const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const names = Object.keys(columns);
    const lines = [names.map(quote).join(",")];
    for (let row = 0; row < columns[names[0]].length; row++) {
      lines.push(names.map((name) => quote(String(columns[name][row] ?? ""))).join(","));
    }
    return lines.join("\n") + "\n";
  }

  function say(words) {
    document.getElementById("said").textContent = words;
  }

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function rows(pairs) {
    return pairs.map(([term, words]) => make("div", {}, make("dt", { textContent: term }), make("dd", { textContent: words })));
  }

  // Draws a section's charts and keeps them drawn: at other widths, in the dark, on paper. `patches` name what a
  // script changes in a figure before it is drawn, `drawn` what it does after, `columns` numbers made on the page.
  function mount(root, { patches = {}, drawn = {}, columns = {} } = {}) {
    const { figures } = survey[root.dataset.key];
    const charts = [...root.querySelectorAll(".chart")];
    const named = (name) => charts.find((chart) => chart.dataset.figure === name);
    let widths = "";

    function redraw(name) {
      const chart = named(name);
      const width = chart?.parentElement.clientWidth;
      // A folded chart has no width yet: it is drawn when it is unfolded.
      if (!width) return Promise.resolve();
      return draw(chart, figures[name], width, patches[name]).then((layout) => drawn[name]?.(layout, chart));
    }

    function render(force) {
      const now = charts.map((chart) => chart.parentElement.clientWidth).join();
      if (!force && now === widths) return;
      widths = now;
      for (const chart of charts) redraw(chart.dataset.figure);
    }

    for (const row of root.querySelectorAll(".buttons")) {
      const name = row.dataset.for;
      row.addEventListener("click", (event) => {
        const kind = event.target.dataset?.save;
        if (!kind) return;
        const file = `${root.dataset.key}-${name}`;
        if (kind === "csv") save(`${file}.csv`, new Blob([csv(columns[name]?.() ?? figures[name].columns)], { type: "text/csv" }));
        else {
          const chart = named(name);
          const { width, height } = chart.layout;
          Plotly.downloadImage(chart, { format: kind, filename: file, width, height, scale: kind === "png" ? 2 : 1 });
        }
      });
    }
    new ResizeObserver(() => render(false)).observe(root);
    dark.addEventListener("change", () => render(true));
    addEventListener("beforeprint", () => { printing = true; render(true); });
    addEventListener("afterprint", () => { printing = false; render(true); });
    render(true);
    return { redraw, named };
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
        say("Copied");
      } catch {
        // A page opened from disk may have no clipboard: leave the words selected, ready for Ctrl+C.
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
        say("Selected: press Control and C");
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
  for (const root of document.querySelectorAll("section[data-plain]")) mount(root);
  return { survey, mount, say, make, rows };
})();
