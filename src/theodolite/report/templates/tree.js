// The tree of basins: which are shown, where their trunks stand, and the way between two of them.
const basinTree = (data) => {
  const n = data.energy.length;
  const depth = data.energy.map((energy, k) => (data.upper[k] === null ? Infinity : data.upper[k] - energy));
  // Ties by index: a basin is never deeper than the one it joins, which has the smaller index where they are equal.
  const ranked = [...depth.keys()].sort((one, other) => depth[other] - depth[one] || one - other);

  // The deepest `count` basins, left to right, and the place of each.
  function shown(count) {
    const kept = new Set(ranked.slice(0, count));
    const leaves = data.order.filter((k) => kept.has(k));
    const place = new Map(leaves.map((k, x) => [k, x]));
    const into = (k) => {
      while (!place.has(k)) k = data.joins[k];
      return k;
    };
    const members = new Map(leaves.map((k) => [k, 0]));
    data.count?.forEach((count, k) => members.set(into(k), members.get(into(k)) + count));
    return { leaves, place, into, members, least: count < n ? depth[ranked[count - 1]] : 0 };
  }

  function rootTop(root, view) {
    const onto = view.leaves.filter((k) => data.joins[k] === root).map((k) => data.upper[k]);
    return Math.max(data.energy[root], ...onto);
  }

  function trunks(leaves, view) {
    const x = [];
    const y = [];
    for (const k of leaves) {
      const here = view.place.get(k);
      if (data.joins[k] >= 0) {
        x.push(here, here, view.place.get(data.joins[k]), null);
        y.push(data.energy[k], data.upper[k], data.upper[k], null);
      } else {
        x.push(here, here, null);
        y.push(data.energy[k], rootTop(k, view), null);
      }
    }
    return { x, y };
  }

  function bands(view) {
    const x = [];
    const y = [];
    for (const k of view.leaves) {
      if (data.joins[k] < 0 || data.exact[k] || !data.proven[k]) continue;
      const [one, other] = [view.place.get(k), view.place.get(data.joins[k])];
      x.push(one, other, other, one, one, null);
      y.push(data.lower[k], data.lower[k], data.upper[k], data.upper[k], data.lower[k], null);
    }
    return { x, y };
  }

  // Barriers that are bounded from above alone.
  function limits(view) {
    const open = view.leaves.filter((k) => data.joins[k] >= 0 && !data.exact[k] && !data.proven[k]);
    return { x: open.map((k) => view.place.get(k)), y: open.map((k) => data.upper[k]) };
  }

  function stubs(view) {
    const roots = view.leaves.filter((k) => data.joins[k] < 0);
    return {
      x: roots.flatMap((k) => [view.place.get(k), view.place.get(k), null]),
      y: roots.flatMap((k) => [rootTop(k, view), data.range[1], null]),
    };
  }

  function climb(k) {
    const chain = [k];
    while (data.joins[chain.at(-1)] >= 0) chain.push(data.joins[chain.at(-1)]);
    return chain;
  }

  // The trunks from each of two basins up to where they meet; null where they do not.
  function meeting(a, b) {
    const [fromA, fromB] = [climb(a), climb(b)];
    const meet = fromA.find((k) => fromB.includes(k));
    if (meet === undefined) return null;
    return { meet, sides: [fromA.slice(0, fromA.indexOf(meet)), fromB.slice(0, fromB.indexOf(meet))] };
  }

  function route(a, b, view) {
    const found = meeting(a, b);
    if (!found) return { x: [], y: [] };
    const halves = found.sides.map((side, end) => {
      const start = end ? b : a;
      const points = [[view.place.get(start), data.energy[start]]];
      for (const k of side) points.push([view.place.get(k), data.upper[k]], [view.place.get(data.joins[k]), data.upper[k]]);
      return points;
    });
    const points = [...halves[0], ...halves[1].reverse()];
    return { x: points.map(([x]) => x), y: points.map(([, y]) => y) };
  }

  // The bounds of the barrier between two basins: the matrices where the page has them, else the tree's.
  function bounds(a, b) {
    if (data.bounds) return [data.bounds[0][a][b], data.bounds[1][a][b]];
    const found = meeting(a, b);
    if (!found) return [null, null];
    const highest = found.sides.flat().reduce((best, k) => (best < 0 || data.upper[k] > data.upper[best] ? k : best), -1);
    return [data.lower[highest], data.upper[highest]];
  }

  function barrier(a, b) {
    const [lower, upper] = bounds(a, b);
    const rounding = 1e-9 * Math.max(1, ...data.energy.map(Math.abs));
    const floor = Math.max(data.energy[a], data.energy[b]);
    return { lower, upper, exact: upper !== null && upper - lower <= rounding, proven: upper !== null && lower - floor > rounding };
  }

  return { n, depth, ranked, shown, trunks, bands, limits, stubs, route, barrier };
};
