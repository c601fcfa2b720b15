(() => {
  const { survey, mount, say, make, rows } = report;
  const PER_PAGE = 12;
  const LEAF_MEMBERS = 3;
  const MANY = 60;

  function section(root) {
    const { figures, ...data } = survey[root.dataset.key];
    const tree = basinTree(data);
    const strip = root.querySelector(".leaves");
    const thumbs = root.querySelector(".thumbs");
    const more = root.querySelector(".more");
    const knobs = Object.fromEntries([...root.querySelectorAll("[data-knob]")].map((input) => [input.dataset.knob, input]));
    const selects = [...root.querySelectorAll("select[data-end]")];
    const energies = [Math.min(...data.energy), Math.max(...data.energy)];
    const counts = stops(tree.n);
    let view = tree.shown(tree.n);
    let window_ = [...energies];
    let ends = tree.n > 1 ? [tree.ranked[0], tree.ranked[1]] : [0];
    let active = ends[0];
    let turn = 0;
    let pictured = -1;
    let axis = null;
    let filled = "";

    // Every count up to 30, then ever larger strides: as many basins shown as the slider's place says.
    function stops(n) {
      const found = [];
      for (let count = 1; count < n; count = Math.max(count + 1, count > 30 ? Math.round(count * 1.08) : 0)) found.push(count);
      return [...found, n];
    }

    function written(value) {
      const text = Math.abs(value).toLocaleString("en", { minimumFractionDigits: data.decimals, maximumFractionDigits: data.decimals });
      return value < 0 && Number(text.replaceAll(",", "")) !== 0 ? `−${text}` : text;
    }
    const name = (k) => `basin ${k + 1}${data.label ? ` (“${data.label[k]}”)` : ""}`;
    const emphasised = (k) => data.energy[k] >= window_[0] && data.energy[k] <= window_[1];

    function sizes() {
      const many = view.leaves.length > MANY;
      if (!data.count) return view.leaves.map(() => (many ? 4 : 9));
      const most = Math.max(...view.members.values(), 1);
      return view.leaves.map((k) => Math.max(many ? 3 : 5, (many ? 11 : 30) * Math.sqrt(view.members.get(k) / most)));
    }

    function drawTree(figure, width) {
      for (const trace of figure.data) {
        const [kind, group] = trace.name.split(" ");
        if (kind === "lines") {
          trace.line.width = view.leaves.length > MANY ? 0.6 : 1.8;
          trace.opacity = view.leaves.length > MANY ? 0.6 : 1;
        }
        if (kind === "lines") Object.assign(trace, tree.trunks(view.leaves.filter((k) => data.group[k] === Number(group) && emphasised(k)), view));
        if (kind === "faded") Object.assign(trace, tree.trunks(view.leaves.filter((k) => !emphasised(k)), view));
        if (kind === "bands") Object.assign(trace, tree.bands(view));
        if (kind === "limits") Object.assign(trace, tree.limits(view));
        if (kind === "stubs") Object.assign(trace, tree.stubs(view));
        if (kind === "chosen" && ends.length === 2) Object.assign(trace, tree.route(...ends, view));
        if (kind === "minima") {
          trace.marker.color = view.leaves.map((k) => trace.marker.color[k]);
          trace.marker.opacity = view.leaves.map((k) => (emphasised(k) ? 0.95 : 0.2));
          trace.marker.size = sizes();
          trace.text = view.leaves.map((k) => trace.text[k]);
          trace.x = view.leaves.map((k) => view.place.get(k));
          trace.y = view.leaves.map((k) => data.energy[k]);
          trace.customdata = view.leaves;
        }
        if (kind === "ends") {
          trace.x = ends.map((k) => view.place.get(k));
          trace.y = ends.map((k) => data.energy[k]);
        }
      }
      figure.layout.xaxis.range = [-0.7, view.leaves.length - 0.3];
      figure.layout.margin.b = 8;
      if (width < 560) figure.layout.margin.r = 14;
    }

    function align(layout, chart) {
      const { l, r } = layout.margin;
      const spacing = (layout.width - l - r) / (view.leaves.length + 0.4);
      const laid = [l, spacing, ...view.leaves].join();
      if (laid !== filled) {
        axis = { left: l, spacing };
        fillLeaves();
        filled = laid;
      }
      if (chart.dataset.listening) return;
      chart.dataset.listening = "yes";
      chart.on("plotly_click", ({ points }) => points[0]?.customdata !== undefined && choose(points[0].customdata));
      chart.on("plotly_hover", ({ points }) => points[0]?.customdata !== undefined && read(points[0].customdata));
      chart.on("plotly_unhover", () => read(active));
    }

    function leafPictures(k, size) {
      if (!data.minima || k >= data.minima.n) return [];
      const found = [];
      if (data.members?.sheet && size >= 26) {
        const [start, end] = [data.members.start[k], data.members.start[k + 1]];
        const count = Math.min(LEAF_MEMBERS, end - start);
        for (let i = count; i >= 1; i--) found.push(tiles.picture(data.members.sheet, start + Math.round((i / count) * (end - start - 1)), `member of ${name(k)}`));
      }
      const lowest = tiles.picture(data.minima, k, `lowest of ${name(k)}`);
      lowest.classList.add("lowest");
      return [...found, lowest];
    }

    function fillLeaves() {
      const wide = data.minima ? data.minima.tile[0] / data.minima.tile[1] : 1;
      const size = Math.min(axis.spacing - 6, 64 * Math.max(1, Math.min(wide, 2)));
      const pictured = data.minima && size >= 16;
      strip.classList.toggle("bare", !pictured);
      const most = Math.max(...view.leaves.map((k) => (data.members ? Math.min(LEAF_MEMBERS, data.members.start[k + 1] - data.members.start[k]) : 0)));
      strip.style.minHeight = pictured ? `${(1 + (size >= 26 ? most : 0)) * (size / wide + 3) + 26}px` : "26px";
      strip.replaceChildren(...view.leaves.map((k, x) => {
        const leaf = make("button", { type: "button", title: name(k), tabIndex: k === active ? 0 : -1 });
        leaf.dataset.basin = String(k);
        leaf.setAttribute("role", "option");
        leaf.setAttribute("aria-label", `${name(k)}, energy ${written(data.energy[k])}`);
        Object.assign(leaf.style, { left: `${axis.left + (x + 0.2) * axis.spacing}px`, width: `${axis.spacing}px` });
        if (pictured) leaf.append(...leafPictures(k, size).map((tile) => Object.assign(tile, { style: `${tile.style.cssText};width:${size}px` })));
        if (axis.spacing >= 20) leaf.append(make("span", { textContent: data.label && axis.spacing >= 54 ? `#${k + 1} “${data.label[k]}”` : String(k + 1) }));
        return leaf;
      }));
      markLeaves();
    }

    function markLeaves() {
      for (const leaf of strip.children) {
        const k = Number(leaf.dataset.basin);
        leaf.tabIndex = k === view.into(active) ? 0 : -1;
        leaf.classList.toggle("chosen", ends.includes(k));
        leaf.setAttribute("aria-selected", String(ends.includes(k)));
      }
    }

    function read(k) {
      if (k !== pictured) turn = 0;
      pictured = k;
      root.querySelector(".readout h3").textContent = name(k).replace("b", "B");
      root.querySelector(".readout dl").replaceChildren(...rows(data.readouts[k]));
      const { members } = data;
      const [start, end] = members ? [members.start[k], members.start[k + 1]] : [0, 0];
      const first = start + turn * PER_PAGE;
      const last = Math.min(first + PER_PAGE, end);
      const shown = [];
      if (members?.sheet) for (let i = first; i < last; i++) shown.push(thumb(members.sheet, i, members.energy[i], members.label?.[i], data.label?.[k]));
      else if (data.minima && k < data.minima.n) shown.push(thumb(data.minima, k, written(data.energy[k])));
      thumbs.replaceChildren(...shown);
      more.hidden = !members?.sheet || end - start <= PER_PAGE;
      root.querySelector(".which").textContent = members?.sheet ? (end > start ? `members ${first - start + 1} to ${last - start} of the ${end - start} shown, lowest first` : "No member was kept.") : "";
      root.querySelector(".gallery .caption").textContent = shown.length ? `${data.caption} The number under a picture is its energy.` : "";
    }

    function thumb(sheet, index, energy, label, expected) {
      const words = label !== undefined && label !== expected ? `${energy} “${label}”` : energy;
      const item = make("figure", { className: "thumb" }, tiles.picture(sheet, index, `member, energy ${words}`));
      item.append(make("span", { className: words === energy ? "value" : "value doubt", textContent: words }));
      return item;
    }

    function choose(k) {
      ends = ends.length === 1 && ends[0] !== k ? [ends[0], k] : [k];
      active = k;
      refresh();
      const second = player && tree.n > 1;
      say(ends.length === 2 ? `The way from ${name(ends[0])} to ${name(k)}` : `${name(k)} chosen${second ? "; choose a second one for the way between them" : ""}`);
    }

    function refresh() {
      read(active);
      graph.redraw("tree");
      markLeaves();
      selects.forEach((select, end) => { if (ends[end] !== undefined) select.value = String(ends[end]); });
      if (ends.length === 2) player?.open(...ends);
    }

    function prune() {
      const count = counts[Number(knobs.shown.value)];
      view = tree.shown(count);
      const words = count === tree.n ? `all ${count.toLocaleString("en")}` : `${count.toLocaleString("en")} of ${tree.n.toLocaleString("en")}, at least ${written(view.least)} deep`;
      knobs.shown.labels[0].querySelector("b").textContent = words;
      knobs.shown.setAttribute("aria-valuetext", `${words} basins`);
      const left = [...new Set(ends.map(view.into))];
      if (left.join() !== ends.join()) ends = left;
      active = view.into(active);
    }

    function emphasise() {
      window_ = ["from", "upto"].map((end) => {
        const value = energies[0] + (Number(knobs[end].value) / 100) * (energies[1] - energies[0]);
        knobs[end].labels[0].querySelector("b").textContent = written(value);
        knobs[end].setAttribute("aria-valuetext", `energy ${written(value)}`);
        return value;
      });
      // The ends themselves, without what rounding would leave out.
      if (knobs.from.value === "0") window_[0] = -Infinity;
      if (knobs.upto.value === "100") window_[1] = Infinity;
    }

    if (knobs.shown) {
      knobs.shown.max = String(counts.length - 1);
      knobs.shown.value = knobs.shown.max;
      knobs.shown.addEventListener("input", () => { prune(); refresh(); });
      for (const end of ["from", "upto"]) knobs[end].addEventListener("input", () => { emphasise(); graph.redraw("tree"); });
      prune();
      emphasise();
    }

    strip.addEventListener("click", (event) => {
      const leaf = event.target.closest("[data-basin]");
      if (leaf) choose(Number(leaf.dataset.basin));
    });
    strip.addEventListener("pointerover", (event) => {
      const leaf = event.target.closest("[data-basin]");
      if (leaf && event.pointerType !== "touch") read(Number(leaf.dataset.basin));
    });
    strip.addEventListener("pointerleave", () => read(active));
    strip.addEventListener("keydown", (event) => {
      const leaves = [...strip.children];
      const here = leaves.indexOf(document.activeElement);
      const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: leaves.length - 1 }[event.key];
      if (to === undefined || here < 0 || !leaves[to]) return;
      event.preventDefault();
      leaves[here].tabIndex = -1;
      leaves[to].tabIndex = 0;
      leaves[to].focus();
      read(Number(leaves[to].dataset.basin));
    });
    more.addEventListener("click", () => {
      const shown = data.members.start[pictured + 1] - data.members.start[pictured];
      turn = (turn + 1) % Math.ceil(shown / PER_PAGE);
      read(pictured);
      say(root.querySelector(".which").textContent);
    });
    for (const select of selects) {
      select.append(...data.energy.map((energy, k) => make("option", { value: String(k), textContent: name(k) })));
      select.addEventListener("change", () => {
        const [from, to] = selects.map((one) => Number(one.value));
        if (from === to) return;
        showAtLeast([from, to]);
        ends = [from, to];
        active = Number(select.value);
        refresh();
      });
    }

    // A basin chosen by name may be left out of the graph: show enough to have it in.
    function showAtLeast(wanted) {
      if (!knobs.shown || wanted.every((k) => view.place.has(k))) return;
      const count = Math.max(...wanted.map((k) => tree.ranked.indexOf(k))) + 1;
      knobs.shown.value = String(counts.findIndex((stop) => stop >= count));
      prune();
    }

    let graph = { redraw: () => {}, named: () => undefined };
    const tools = { name, written, barrier: tree.barrier, redraw: (chart) => graph.redraw(chart), named: (chart) => graph.named(chart) };
    const player = root.querySelector(".player") ? pathPlayer(root, data, tools) : null;
    const onMap = (layout, chart) => {
      if (chart.dataset.listening) return;
      chart.dataset.listening = "yes";
      chart.on("plotly_click", ({ points }) => {
        if (points[0]?.customdata === undefined) return;
        showAtLeast([points[0].customdata]);
        choose(points[0].customdata);
      });
    };
    graph = mount(root, {
      patches: { tree: drawTree, ...player?.patches },
      drawn: { tree: align, path: () => player?.resized(), plane: onMap, member_latent: onMap, member_embedding: onMap },
      columns: player ? { path: player.columns } : {},
    });
    refresh();
  }

  for (const root of document.querySelectorAll("section.landscape")) section(root);
})();
