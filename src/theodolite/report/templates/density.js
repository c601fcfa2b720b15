(() => {
  const { survey, mount, say, rows: definitions } = report;
  const PER_PAGE = 12;

  function place(element, sprite, count, index) {
    element.style.backgroundImage = `url("${sprite}")`;
    element.style.backgroundSize = `${100 * count}% 100%`;
    element.style.backgroundPosition = `${count > 1 ? (100 * index) / (count - 1) : 0}% 0`;
  }

  function section(root) {
    const { gallery } = survey[root.dataset.key];
    const pick = root.querySelector(".pick");
    const cursor = root.querySelector(".cursor");
    const slider = root.querySelector("input[type=range]");
    const film = root.querySelector(".film");
    const thumbs = root.querySelector(".thumbs");
    const more = root.querySelector(".more");
    const [tileWidth, tileHeight] = gallery.tile;
    let selected = gallery.start;
    let shown = -1;
    let turn = 0;
    let axis = { left: 0, width: 1, low: 0, high: 1 };

    const position = (value) => ((value - axis.low) / (axis.high - axis.low)) * axis.width;

    function nearest(value, usable) {
      let best = selected;
      let least = Infinity;
      gallery.levels.forEach((level, index) => {
        if (usable(index) && Math.abs(level - value) < least) {
          least = Math.abs(level - value);
          best = index;
        }
      });
      return best;
    }

    function show(index) {
      cursor.style.left = `${position(gallery.levels[index])}px`;
      for (const button of film?.children ?? []) button.classList.toggle("chosen", Number(button.dataset.level) === index);
      if (index !== shown) turn = 0;
      shown = index;
      const { title, rows } = gallery.readouts[index];
      root.querySelector(".readout h3").textContent = title;
      root.querySelector(".readout dl").replaceChildren(...definitions(rows));
      if (thumbs) pictures(index);
    }

    function pictures(index) {
      const sprite = gallery.sprites[index];
      const outputs = gallery.outputs[index];
      const first = turn * PER_PAGE;
      const last = Math.min(first + PER_PAGE, outputs.length);
      thumbs.classList.toggle("wide-tiles", tileWidth > 3 * tileHeight);
      thumbs.replaceChildren(...outputs.slice(first, last).map((output, offset) => {
        const item = document.createElement("figure");
        item.className = "thumb";
        item.style.border = "0";
        const picture = document.createElement("div");
        picture.className = "picture";
        picture.setAttribute("role", "img");
        picture.setAttribute("aria-label", `input ${first + offset + 1} of ${outputs.length}, output ${output}`);
        picture.style.aspectRatio = `${tileWidth} / ${tileHeight}`;
        place(picture, sprite, outputs.length, first + offset);
        item.append(picture, Object.assign(document.createElement("span"), { className: "value", textContent: output }));
        return item;
      }));
      if (!outputs.length) {
        thumbs.replaceChildren(Object.assign(document.createElement("p"), { className: "empty", textContent: "No input of this level was kept." }));
      }
      more.hidden = outputs.length <= PER_PAGE;
      root.querySelector(".which").textContent = outputs.length ? `${first + 1} to ${last} of ${outputs.length}` : "";
    }

    function select(index) {
      selected = index;
      slider.value = String(index);
      const { title, rows } = gallery.readouts[index];
      slider.setAttribute("aria-valuetext", [title, ...rows.map((row) => row.join(": "))].join("; "));
      show(index);
    }

    function at(event) {
      const value = axis.low + ((event.clientX - pick.getBoundingClientRect().left) / axis.width) * (axis.high - axis.low);
      return nearest(value, (index) => gallery.finite[index]);
    }

    pick.addEventListener("pointermove", (event) => event.pointerType !== "touch" && show(at(event)));
    pick.addEventListener("pointerleave", () => show(selected));
    pick.addEventListener("click", (event) => select(at(event)));
    slider.addEventListener("input", () => select(Number(slider.value)));
    more?.addEventListener("click", () => {
      const pages = Math.ceil(gallery.outputs[shown].length / PER_PAGE);
      turn = (turn + 1) % pages;
      pictures(shown);
      say(root.querySelector(".which").textContent);
    });

    function strip() {
      const size = axis.width < 420 ? 36 : 46;
      const wide = size * Math.min(tileWidth / tileHeight, 2);
      const n = Math.floor(axis.width / (wide + 6));
      film.replaceChildren();
      const used = new Set();
      for (let i = 0; i < n; i++) {
        const x = ((i + 0.5) / n) * axis.width;
        const value = axis.low + (x / axis.width) * (axis.high - axis.low);
        const index = nearest(value, (level) => gallery.sprites[level]);
        const away = Math.abs(position(gallery.levels[index]) - x);
        if (used.has(index) || !gallery.sprites[index] || away > wide) continue;
        used.add(index);
        const button = document.createElement("button");
        button.type = "button";
        button.tabIndex = -1;
        button.dataset.level = String(index);
        button.title = gallery.readouts[index].title;
        Object.assign(button.style, { left: `${axis.left + x - wide / 2}px`, width: `${wide}px`, height: `${size}px` });
        place(button, gallery.sprites[index], gallery.outputs[index].length, 0);
        button.addEventListener("click", () => select(index));
        film.append(button);
      }
    }

    function align(layout) {
      const { l, r, t, b } = layout.margin;
      axis = { left: l, width: layout.width - l - r, low: layout.xaxis.range[0], high: layout.xaxis.range[1] };
      Object.assign(pick.style, { left: `${l}px`, top: `${t}px`, width: `${axis.width}px`, height: `${layout.height - t - b}px` });
      const thumb = 18;
      const first = position(gallery.levels[0]);
      const last = position(gallery.levels.at(-1));
      Object.assign(slider.style, { left: `${l + first - thumb / 2}px`, width: `${last - first + thumb}px` });
      if (film) strip();
      select(selected);
    }

    // Pointing at the curve is followed by our own cursor, not by plotly's.
    const patches = { density: (figure) => { figure.layout.hovermode = false; } };
    mount(root, { patches, drawn: { density: align } });
  }

  for (const root of document.querySelectorAll("section.density")) section(root);
})();
