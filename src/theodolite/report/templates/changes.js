// Signed changes and flip points on canvases, from grey tiles: value = (grey - 128) / 127 x the scale of the tile.
const changes = (() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Set();
  let printing = false;

  function pixels(sheet, index) {
    const [width, height] = sheet.tile;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    const [row, column] = [Math.floor(index / sheet.columns), index % sheet.columns];
    context.drawImage(sheet.image, column * width, row * height, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }

  function blank(sheet, words) {
    const [width, height] = sheet.tile;
    const canvas = report.make("canvas", { className: "tile", width, height });
    canvas.style.aspectRatio = `${width} / ${height}`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", words);
    return canvas;
  }

  // The input with its change added: the flip point.
  function flip(inputs, place, sheet, index, spread, words) {
    const canvas = blank(inputs, words);
    Promise.all([tiles.load(inputs), tiles.load(sheet)]).then(() => {
      const image = pixels(inputs, place);
      const change = pixels(sheet, index).data;
      const step = ((sheet.scale[index] / spread) * 255) / 127;
      for (let i = 0; i < change.length; i++) if (i % 4 < 3) image.data[i] += (change[i] - 128) * step;
      canvas.getContext("2d").putImageData(image, 0, 0);
    });
    return canvas;
  }

  const parts = (colour) => [1, 3, 5].map((i) => Number.parseInt(colour.slice(i, i + 2), 16));

  function paint(canvas) {
    const { sheet, index, top, colours } = canvas.change;
    const image = pixels(sheet, index);
    const { data } = image;
    const [same, less, more] = (dark.matches && !printing ? colours.dark : colours.light).map(parts);
    const step = sheet.scale[index] / top / 127;
    for (let i = 0; i < data.length; i += 4) {
      const values = [0, 1, 2].map((k) => Math.max(-1, Math.min(1, (data[i + k] - 128) * step)));
      const grey = data[i] === data[i + 1] && data[i] === data[i + 2];
      for (let k = 0; k < 3; k++) {
        const end = values[0] < 0 ? less : more;
        data[i + k] = canvas.change.coloured && !(grey && values[0] === 0)
          ? 128 + 127 * values[k]
          : canvas.change.coloured ? 128 : same[k] + (end[k] - same[k]) * Math.abs(values[0]);
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // `top` is the change, in input units, drawn in full colour.
  function change(sheet, index, top, colours, coloured, words) {
    const canvas = blank(sheet, words);
    canvas.change = { sheet, index, top, colours, coloured };
    tiles.load(sheet).then(() => { paint(canvas); drawn.add(new WeakRef(canvas)); });
    return canvas;
  }

  function again() {
    for (const kept of drawn) {
      const canvas = kept.deref();
      if (canvas?.isConnected) paint(canvas);
      else drawn.delete(kept);
    }
  }
  dark.addEventListener("change", again);
  addEventListener("beforeprint", () => { printing = true; again(); });
  addEventListener("afterprint", () => { printing = false; again(); });

  // The largest changes of a list of features, a bar each: rows of [feature, change, in words, before and after].
  function bars(rows, most, full) {
    const top = Math.max(...rows.map((row) => Math.abs(row[1])), 0);
    const shown = rows.slice(0, most).map(([feature, value, words, around]) => {
      const bar = report.make("span", { className: value < 0 ? "bar less" : "bar more" });
      bar.style.width = `${(50 * Math.abs(value)) / top}%`;
      return report.make("li", {},
        report.make("span", { className: "feature", textContent: `feature ${feature}` }),
        report.make("span", { className: "track" }, bar),
        report.make("span", { className: "value", textContent: words }),
        ...(full && around ? [report.make("span", { className: "around", textContent: around })] : []));
    });
    return report.make("ul", { className: full ? "change-bars full" : "change-bars" }, ...shown);
  }

  return { flip, change, bars };
})();
