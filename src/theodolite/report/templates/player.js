// The path between two basins: joined from stored ones, shown step by step, played.
const pathPlayer = (root, data, { name, written, barrier, redraw, named }) => {
  const { make } = report;
  const TICK = 80;
  const LONGEST = 8000;
  const MOST_PICTURES = 14;
  const canvas = root.querySelector(".screen canvas");
  const strip = root.querySelector(".strip");
  const slider = root.querySelector(".step");
  const button = root.querySelector(".play");
  const now = root.querySelector(".now");
  let film = [];
  let ends = [0, 0];
  let at = 0;
  let timer = 0;

  const neighbours = data.energy.map(() => []);
  data.paths.forEach((path, index) => path.ends.forEach((end, side) => neighbours[end].push([path.ends[1 - side], index])));

  function pieces(from, to) {
    const before = new Map([[from, null]]);
    const queue = [from];
    for (const place of queue) {
      for (const [next, path] of neighbours[place]) {
        if (before.has(next)) continue;
        before.set(next, [place, path]);
        queue.push(next);
      }
    }
    const found = [];
    for (let place = to; before.get(place); place = before.get(place)[0]) found.unshift(before.get(place)[1]);
    return before.has(to) ? found : null;
  }

  function joined(from, to) {
    const found = [];
    let place = from;
    let steps = 0;
    for (const index of pieces(from, to) ?? []) {
      const { ends: [first, second], step, energy, frame } = data.paths[index];
      const forward = first === place;
      const last = step.at(-1);
      const part = step.map((number, i) => ({ step: steps + (forward ? number : last - number), energy: energy[i], frame: frame[i] }));
      if (!forward) part.reverse();
      part[0].minimum = place;
      place = forward ? second : first;
      part.at(-1).minimum = place;
      if (found.length) found.pop();
      found.push(...part);
      steps += last;
    }
    return found;
  }

  const patches = {
    path(figure, width) {
      const trace = Object.fromEntries(figure.data.map((one) => [one.name, one]));
      const span = [film[0]?.step ?? 0, film.at(-1)?.step ?? 1];
      const { lower, upper, exact, proven } = barrier(...ends);
      trace.energy.x = film.map(({ step }) => step);
      trace.energy.y = film.map(({ energy }) => energy);
      if (upper !== null) {
        trace.barrier.x = span;
        trace.barrier.y = [upper, upper];
        if (proven && !exact) {
          trace.interval.x = [span[0], span[1], span[1], span[0], span[0]];
          trace.interval.y = [lower, lower, upper, upper, lower];
        }
      }
      const stops = film.filter(({ minimum }) => minimum !== undefined);
      const roomy = stops.length <= width / 45;
      trace.minima.x = stops.map(({ step }) => step);
      trace.minima.y = stops.map(({ energy }) => energy);
      trace.minima.text = stops.map(({ minimum }, i) => (roomy || !i || i === stops.length - 1 ? String(minimum + 1) : ""));
      const values = [...trace.energy.y, ...(upper === null ? [] : [upper])];
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const pad = (high - low || 1) * 0.08;
      figure.layout.yaxis.range = [low - 2.4 * pad, high + pad];
      figure.layout.xaxis.range = [span[0] - 0.02 * (span[1] - span[0]), span[1] + 0.02 * (span[1] - span[0])];
      place(trace.here);
    },
    plane(figure) {
      const trace = Object.fromEntries(figure.data.map((one) => [one.name, one]));
      const points = film.map(spot);
      trace.path.x = points.map(([x]) => x);
      trace.path.y = points.map(([, y]) => y);
      if (film[at]) [trace.here.x, trace.here.y] = spot(film[at]).map((value) => [value]);
    },
  };

  function spot({ frame, energy }) {
    const point = data.points[frame];
    return point.length > 1 ? point : [point[0], energy];
  }

  function place(here) {
    here.x = film[at] ? [film[at].step] : [];
    here.y = film[at] ? [film[at].energy] : [];
  }

  function mark(chart, [x, y]) {
    const index = chart?.data?.findIndex((trace) => trace.name === "here") ?? -1;
    if (index >= 0) Plotly.restyle(chart, { x: [[x]], y: [[y]] }, [index]);
  }

  function show(index) {
    at = index;
    const step = film[at];
    if (!step) return;
    slider.value = String(at);
    const words = `step ${step.step} of ${film.at(-1).step}, energy ${written(step.energy)}`;
    now.textContent = words;
    slider.setAttribute("aria-valuetext", words);
    mark(named("path"), [step.step, step.energy]);
    if (data.points) mark(named("plane"), spot(step));
    if (canvas && data.frames) {
      canvas.setAttribute("aria-label", `input at ${words}`);
      if (data.kind === "vector") bars(step.frame);
      else tiles.draw(canvas, data.frames, step.frame);
    }
    strip?.style.setProperty("--at", String(film.length > 1 ? at / (film.length - 1) : 0));
    for (const frame of strip?.querySelectorAll("button") ?? []) {
      frame.classList.toggle("chosen", Number(frame.dataset.first) <= at && at < Number(frame.dataset.next));
    }
  }

  function column(frame) {
    const height = data.frames.tile[1];
    const reader = make("canvas", { width: 1, height });
    const context = reader.getContext("2d");
    const [row, x] = [Math.floor(frame / data.frames.columns), frame % data.frames.columns];
    context.drawImage(data.frames.image, x, row * height, 1, height, 0, 0, 1, height);
    return context.getImageData(0, 0, 1, height).data;
  }

  function bars(frame) {
    tiles.load(data.frames).then(() => {
      const n = data.frames.tile[1];
      const wide = Math.max(3, Math.floor(220 / n));
      canvas.width = n * wide;
      canvas.height = 140;
      const context = canvas.getContext("2d");
      context.fillStyle = getComputedStyle(canvas).color;
      const values = column(frame);
      for (let k = 0; k < n; k++) {
        const tall = 2 + (values[4 * k] / 255) * 138;
        context.fillRect(k * wide, 140 - tall, wide - 1, tall);
      }
    });
  }

  function fillStrip() {
    if (!strip || !film.length || !data.frames) return;
    if (data.kind === "vector") {
      const map = make("canvas", { width: film.length, height: data.frames.tile[1], className: "heat" });
      map.setAttribute("role", "img");
      map.setAttribute("aria-label", "The inputs along the path side by side, a column each");
      strip.replaceChildren(map, make("i", { className: "cursor" }));
      tiles.load(data.frames).then(() => {
        const context = map.getContext("2d");
        const { image, columns, tile: [, height] } = data.frames;
        film.forEach(({ frame }, i) => context.drawImage(image, frame % columns, Math.floor(frame / columns) * height, 1, height, i, 0, 1, height));
      });
      return;
    }
    const count = Math.min(MOST_PICTURES, film.length, Math.max(4, Math.floor(strip.clientWidth / 62)));
    const wanted = [...Array(count).keys()].map((i) => Math.round((i / Math.max(count - 1, 1)) * (film.length - 1)));
    strip.replaceChildren(...wanted.map((index, i) => {
      const step = film[index];
      const words = `step ${step.step}, energy ${written(step.energy)}`;
      const frame = make("button", { type: "button", title: words, tabIndex: -1 }, tiles.picture(data.frames, step.frame, words));
      const border = (k) => (k < 0 ? 0 : k >= count - 1 ? film.length : Math.ceil((wanted[k] + wanted[k + 1]) / 2));
      frame.dataset.first = String(border(i - 1));
      frame.dataset.next = String(border(i));
      frame.append(make("span", { className: "value", textContent: written(step.energy) }));
      frame.addEventListener("click", () => { stop(); show(index); });
      return frame;
    }));
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "▶ Play";
  }

  function play() {
    if (timer) return stop();
    if (at >= film.length - 1) show(0);
    const stride = Math.max(1, Math.ceil((film.length * TICK) / LONGEST));
    button.textContent = "❚❚ Pause";
    timer = setInterval(() => {
      show(Math.min(at + stride, film.length - 1));
      if (at >= film.length - 1) stop();
    }, TICK);
  }

  function words() {
    const { lower, upper, exact, proven } = barrier(...ends);
    const [a, b] = ends.map(name);
    const title = root.querySelector(".way");
    if (upper === null || !film.length) {
      title.textContent = `From ${a} to ${b}: no path is known`;
      root.querySelector(".said").textContent = "";
      return;
    }
    const lies = proven && !exact ? `between ${written(lower)} and ${written(upper)}` : `at ${written(upper)}`;
    title.textContent = `From ${a} to ${b} the lowest pass ${exact || proven ? "" : "found "}lies ${lies}`;
    const top = film.reduce((best, step) => (step.energy > best.energy ? step : best));
    const above = ends.map((end) => `${written(top.energy - data.energy[end])} above ${name(end)}`);
    root.querySelector(".said").textContent =
      `Highest point of this path: ${written(top.energy)} at step ${top.step} of ${film.at(-1).step}, ${above.join(" and ")}. ` +
      (exact ? "No path is lower: the barrier is exact." : proven ? "The band is where the lowest pass must lie." : "That none is lower is not proven.");
  }

  function open(from, to) {
    stop();
    ends = [from, to];
    film = joined(from, to);
    slider.max = String(Math.max(film.length - 1, 0));
    button.disabled = slider.disabled = film.length < 2;
    at = film.reduce((best, step, i) => (step.energy > film[best].energy ? i : best), 0);
    words();
    fillStrip();
    redraw("path");
    redraw("plane");
    show(at);
  }

  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  button.addEventListener("click", play);
  const columns = () => ({
    step: film.map(({ step }) => step),
    energy: film.map(({ energy }) => energy),
    basin: film.map(({ minimum }) => (minimum === undefined ? "" : minimum + 1)),
  });
  return { open, patches, columns, resized: () => { fillStrip(); show(at); } };
};
