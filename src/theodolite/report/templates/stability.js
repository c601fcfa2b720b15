(() => {
  const { survey, mount } = report;

  function section(root) {
    const { figures, ...data } = survey[root.dataset.key];
    const times = (factor) => ` ×${Number(factor.toPrecision(2)).toLocaleString("en")}`;
    for (const line of root.querySelectorAll("[data-pair]")) {
      const row = data.pairs[Number(line.dataset.pair)];
      const named = `${row.label}, image ${row.image}`;
      if (data.inputs) line.querySelector(".start").append(tiles.picture(data.inputs, row.place, `input ${named}`));
      for (const box of line.querySelectorAll(".shots")) {
        const cell = row.cells[Number(box.dataset.cell)];
        const words = `example of ${named} made for ${cell.network}`;
        if (!data.inputs) {
          box.append(changes.bars(cell.bars, cell.bars.length, false));
          continue;
        }
        const factor = data.changes.factor[cell.change];
        box.append(
          changes.flip(data.inputs, row.place, data.changes, cell.change, data.spread, words),
          changes.change(data.changes, cell.change, data.spread / factor, data.colours, data.coloured, `change of the ${words}, magnified${times(factor)}`),
        );
        box.nextElementSibling.querySelector(".times").textContent = `,${times(factor)}`;
      }
    }
    mount(root);
  }

  for (const root of document.querySelectorAll("section.stability")) section(root);
})();
