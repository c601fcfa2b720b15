(() => {
  const { survey, mount, say, make, rows } = report;
  const NARROW = 560;

  function section(root) {
    const { figures, ...data } = survey[root.dataset.key];
    const place = new Map(data.calls.map((call, k) => [call.image, k]));
    const list = root.querySelector(".calls");
    const shots = root.querySelector(".shots");
    const others = root.querySelector(".others");
    const select = root.querySelector(".which-calls");
    const picture = data.kind === "picture";
    const coloured = picture && data.calls.length > 0 && Boolean(data.coloured);
    const float = make("div", { className: "float", hidden: true });
    root.append(float);
    let filter = data.filters[0].calls;
    let first = 0;
    let chosen = 0;
    let other = null;
    let charts = { redraw: () => {} };

    const perPage = () => (root.clientWidth < NARROW ? 6 : 12);
    const times = (factor) => `×${Number(factor.toPrecision(2)).toLocaleString("en")}`;

    function change(sheet, index, words) {
      return changes.change(sheet, index, data.spread / sheet.factor[index], data.colours, coloured, `change of ${words}, magnified ${times(sheet.factor[index])}`);
    }

    // The pictures of one way across the boundary: input, flip point, change.
    function pictures(k, sheet, index, words) {
      const input = [tiles.picture(data.inputs, k, `input ${words}`), "input"];
      if (sheet === null) return [input];
      return [
        input,
        [changes.flip(data.inputs, k, sheet, index, data.spread, `flip point of ${words}`), "flip point"],
        [change(sheet, index, words), `change ${times(sheet.factor[index])}`],
      ];
    }

    const shot = ([canvas, words]) => make("figure", { className: "shot" }, canvas, make("figcaption", { textContent: words }));

    const farthest = (calls) => Math.max(...calls.map((call) => call.distance ?? call.lower ?? 0), 1e-300);

    function bracket(call, longest) {
      const bar = make("span", { className: "bracket" });
      const solid = make("span", { className: "solid" });
      solid.style.width = `${call.lower === null ? 100 : Math.min(100, (100 * call.lower) / longest)}%`;
      bar.append(solid);
      if (call.distance !== null) {
        const gap = make("span", { className: "gap" });
        Object.assign(gap.style, { left: solid.style.width, width: `${Math.max(0, Math.min(100, (100 * (call.distance - call.lower)) / longest))}%` });
        const tick = make("span", { className: "tick" });
        tick.style.left = `${Math.min(100, (100 * call.distance) / longest)}%`;
        bar.append(gap, tick);
      }
      return bar;
    }

    const named = (call) => `image ${call.image}: ${call.flip}`;
    const spoken = (call) => `${named(call)}, distance ${call.found}, ${call.proven}${call.softmax ? `, softmax ${call.softmax}` : ""}${call.mistake ? `, a mistake: true class ${call.label}` : ""}`;

    function look(k) {
      const call = data.calls[k];
      if (!picture) return changes.bars(call.bars, 4, false);
      const sheet = call.distance === null ? null : data.changes;
      return make("div", { className: "trio" }, ...pictures(k, sheet, k, named(call)).map(shot));
    }

    function words(call) {
      return [
        make("span", { className: "flip", textContent: call.flip }),
        make("span", { className: "mark", textContent: call.mistake ? `mistake: ${call.label}` : "" }),
        make("span", { className: "number", textContent: call.distance === null ? "" : `distance ${call.found}` }),
        make("span", { className: "number proven", textContent: call.proven }),
        make("span", { className: "number odds", textContent: call.softmax && `softmax ${call.softmax}` }),
      ];
    }

    function fill() {
      const shown = filter.slice(first, first + perPage());
      const longest = farthest(shown.map((k) => data.calls[k]));
      list.replaceChildren(...shown.map((k) => {
        const call = data.calls[k];
        const card = make("button", { type: "button", className: "card", tabIndex: -1 });
        card.dataset.call = String(k);
        card.setAttribute("role", "option");
        card.setAttribute("aria-label", spoken(call));
        card.classList.toggle("mistake", call.mistake);
        card.append(look(k), bracket(call, longest), make("span", { className: "words" }, ...words(call)));
        return card;
      }));
      mark();
      const last = first + shown.length;
      root.querySelector(".turns .which").textContent = shown.length ? `${first + 1} to ${last} of ${filter.length.toLocaleString("en")}` : "none";
      root.querySelector(".back").disabled = first === 0;
      root.querySelector(".on").disabled = last >= filter.length;
    }

    function mark() {
      const cards = [...list.children];
      const reachable = cards.find((card) => Number(card.dataset.call) === chosen) ?? cards[0];
      for (const card of cards) {
        const here = Number(card.dataset.call) === chosen;
        card.classList.toggle("chosen", here);
        card.setAttribute("aria-selected", String(here));
        card.tabIndex = card === reachable ? 0 : -1;
      }
    }

    function detail() {
      const call = data.calls[chosen];
      const row = other === null ? null : call.others[other];
      root.querySelector(".call .readout h3").textContent = `Image ${call.image}: ${row ? row.title : call.flip}`;
      root.querySelector(".call dl").replaceChildren(...rows([...(row ? [["distance", row.known]] : call.facts), ...call.about]));
      const scaleWords = root.querySelector(".scale-words");
      const [sheet, index] = row ? [data.others, row.change] : [data.changes, chosen];
      const drawable = row ? row.change !== null : call.distance !== null;
      if (picture) {
        shots.replaceChildren(...pictures(chosen, drawable ? sheet : null, index, named(call)).map(shot));
        const top = drawable ? data.spread / sheet.factor[index] : 0;
        scaleWords.hidden = !drawable || coloured;
        scaleWords.replaceChildren(`−${Number(top.toPrecision(2))}`, make("span", { className: "scale-bar" }), `+${Number(top.toPrecision(2))}`, make("span", { className: "unit", textContent: "in input units" }));
      } else shots.replaceChildren(drawable ? changes.bars(row ? row.bars : call.bars, 10, true) : make("p", { className: "empty", textContent: "No flip point was found." }));
      if (others) fillOthers(call);
    }

    function fillOthers(call) {
      const longest = farthest(call.others);
      others.replaceChildren(...call.others.map((row, k) => {
        const button = make("button", { type: "button", className: "other" });
        button.dataset.other = String(k);
        button.setAttribute("aria-pressed", String(k === other));
        if (picture && row.change !== null) button.append(changes.flip(data.inputs, chosen, data.others, row.change, data.spread, `flip point to ${row.name}`));
        else if (picture && data.others) button.append(make("span", { className: "no-tile" }));
        button.append(make("span", { className: "flip", textContent: row.name }), bracket(row, longest), make("span", { className: "number", textContent: row.found }), make("span", { className: "number proven", textContent: row.proven }));
        return button;
      }));
    }

    function choose(k, { turn = false } = {}) {
      chosen = k;
      other = null;
      if (turn) {
        if (!filter.includes(k)) {
          select.value = "0";
          filter = data.filters[0].calls;
        }
        first = Math.floor(filter.indexOf(k) / perPage()) * perPage();
        fill();
      } else mark();
      detail();
      for (const name of ["trust", "brackets"]) charts.redraw(name);
      say(spoken(data.calls[k]));
    }

    function goTo(k) {
      choose(k, { turn: true });
      root.querySelector(".call").scrollIntoView({ block: "nearest" });
    }

    function page(step) {
      first = Math.max(0, Math.min(first + step * perPage(), Math.floor((filter.length - 1) / perPage()) * perPage()));
      fill();
    }

    list.addEventListener("click", (event) => {
      const card = event.target.closest("[data-call]");
      if (!card) return;
      choose(Number(card.dataset.call));
      if (root.clientWidth < 900) root.querySelector(".call").scrollIntoView({ block: "nearest" });
    });
    list.addEventListener("keydown", (event) => {
      const cards = [...list.children];
      const here = cards.indexOf(document.activeElement);
      const across = Math.max(1, cards.filter((card) => card.offsetTop === cards[0].offsetTop).length);
      const to = { ArrowRight: here + 1, ArrowLeft: here - 1, ArrowDown: here + across, ArrowUp: here - across, Home: 0, End: cards.length - 1 }[event.key];
      if (to === undefined || here < 0) return;
      event.preventDefault();
      if (!cards[to]) {
        const on = to >= cards.length;
        if (on ? first + cards.length >= filter.length : first === 0) return;
        page(on ? 1 : -1);
        const turned = [...list.children];
        focus(turned[on ? 0 : turned.length - 1]);
      } else focus(cards[to]);
    });

    function focus(card) {
      for (const one of list.children) one.tabIndex = one === card ? 0 : -1;
      card.focus();
    }

    others?.addEventListener("click", (event) => {
      const button = event.target.closest("[data-other]");
      if (!button) return;
      const k = Number(button.dataset.other);
      other = other === k ? null : k;
      detail();
      others.querySelector(`[data-other="${k}"]`).focus();
      const row = data.calls[chosen].others[k];
      say(other === null ? "The nearest flip again" : `To ${row.name}: distance ${row.found} ${row.proven}`);
    });
    root.querySelector(".back").addEventListener("click", () => page(-1));
    root.querySelector(".on").addEventListener("click", () => page(1));
    select.append(...data.filters.map((one, k) => make("option", { value: String(k), textContent: one.name })));
    select.addEventListener("change", () => {
      filter = data.filters[Number(select.value)].calls;
      first = 0;
      fill();
      choose(filter[0]);
    });

    const strip = root.querySelector(".suspects");
    strip?.append(...data.suspects.map((k) => {
      const call = data.calls[k];
      const button = make("button", { type: "button", className: "suspect" });
      button.setAttribute("aria-label", spoken(call));
      button.append(...(picture ? [tiles.picture(data.inputs, k, named(call))] : []), make("span", { textContent: `labelled ${call.label}, answer ${call.answer}` }), make("span", { className: "small", textContent: `image ${call.image}: ${call.found}` }));
      button.addEventListener("click", () => goTo(k));
      return button;
    }));

    [...root.querySelectorAll(".directions .picture")].forEach((box, k) => {
      const sheet = data.directions;
      const words = box.nextElementSibling.textContent;
      box.append(sheet.bars ? changes.bars(sheet.bars[k], 6, false) : changes.change(sheet, k, sheet.scale[k] || 1, data.colours, coloured, words));
    });

    function circle(figure) {
      const { image } = data.calls[chosen];
      const here = figure.data.find((trace) => trace.name === "here");
      for (const trace of figure.data) {
        const k = trace.customdata ? trace.customdata.indexOf(image) : -1;
        if (k >= 0 && !trace.name.startsWith("proven")) [here.x, here.y] = [[trace.x[k]], [trace.y[k]]];
      }
    }

    function listen(layout, chart) {
      if (chart.dataset.listening) return;
      chart.dataset.listening = "yes";
      chart.on("plotly_hover", ({ points, event }) => {
        const k = place.get(points[0]?.customdata);
        if (k === undefined) return;
        const call = data.calls[k];
        float.replaceChildren(look(k), make("span", { className: "words" }, make("b", { textContent: `image ${call.image}` }), ...words(call)));
        float.hidden = false;
        const box = root.getBoundingClientRect();
        const left = Math.min(Math.max(event.clientX - box.left + 14, 0), box.width - float.offsetWidth);
        const above = event.clientY - box.top - float.offsetHeight - 14;
        Object.assign(float.style, { left: `${left}px`, top: `${above}px` });
      });
      chart.on("plotly_unhover", () => { float.hidden = true; });
      chart.on("plotly_click", ({ points }) => {
        const k = place.get(points[0]?.customdata);
        float.hidden = true;
        if (k !== undefined) goTo(k);
      });
    }

    let shownEach = perPage();
    new ResizeObserver(() => {
      if (perPage() === shownEach) return;
      shownEach = perPage();
      first = Math.floor(first / shownEach) * shownEach;
      fill();
    }).observe(root);
    fill();
    detail();
    charts = mount(root, { patches: { trust: circle, brackets: circle }, drawn: { trust: listen, brackets: listen } });
  }

  for (const root of document.querySelectorAll("section.boundary")) section(root);
})();
