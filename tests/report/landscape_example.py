"""Made-up and small real landscapes that follow the schema: four kinds of image, a spin glass, a surface."""

import json

import numpy as np
import xarray as xr
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from theodolite import disconnectivity
from theodolite.search import passes


def _attributes(**changes):
    return {
        "instrument": "landscape",
        "observable": "energy",
        "observable_sentence": "energy of a made-up field",
        "space": "box:2:0:1",
        "space_sentence": "2 real inputs in [0, 1]: volume e^0.0",
        "log_volume": 0.0,
        "method": "network",
        "seed": 3,
        "settings": '[landscape]\nmethod = "network"\nseed = 3\n',
        "evaluations": 1_250_000,
        "seconds": 74.2,
        "model_name": "a made-up field",
        "model_hash": "",
        "versions": json.dumps({"theodolite": "0.1.0", "numpy": "2.3.5", "python": "3.11.2"}),
        "machine": "2 cores, x86_64",
        "date": "2026-01-15 10:24 UTC",
        "command": "theodolite landscape --seed 3",
        "citations": json.dumps(["Hill, Nijkamp and Zhu 2019, 'Building a Telescope to Look Into ...'"]),
        "probability": "",
        "version": "0.1.0",
    } | changes


def _landscape(points, energy, upper, lower, paths, attributes, verdict="converged", **extra):
    """A Dataset from minima, closed barriers and paths ``(first, second, points, energies)``."""
    axes = tuple(f"point_{axis}" for axis in range(points.ndim - 1))
    variables = {
        "minimum_point": (("minimum", *axes), points),
        "energy": ("minimum", energy),
        "barrier_upper_bound": (("minimum", "other_minimum"), upper),
        "barrier_lower_bound": (("minimum", "other_minimum"), lower),
        "disconnectivity": (("merge", "merge_part"), disconnectivity.tree(energy, upper, lower)),
        "check_name": ("check", ["new basins", "mirror", "leakage"]),
        "check_value": ("check", [0.0, np.nan, 0.021]),
        "check_limit": ("check", ["0", "0", "at most 0.05"]),
        "check_passed": ("check", [1, -1, 1]),
        "check_sentence": (
            "check",
            [
                "basins found in the last half of the search that were not known before",
                "basins without their mirror image",
                "share of proposals that reached more than one basin",
            ],
        ),
        "verdict": ((), verdict),
        "verdict_sentence": ((), "Nothing new in the last half of the search; two seeds agree."),
    }
    if paths:
        longest = max(len(path[3]) for path in paths)
        variables |= {
            "path_minimum": (("path", "path_end"), np.array([path[:2] for path in paths])),
            "path_length": ("path", np.array([len(path[3]) for path in paths])),
            "path_point": (
                ("path", "path_step", *axes),
                np.stack([np.concatenate([p, np.repeat(p[-1:], longest - len(p), 0)]) for _, _, p, _ in paths]),
            ),
            "path_energy": (
                ("path", "path_step"),
                np.stack([np.pad(e, (0, longest - len(e)), constant_values=np.nan) for *_, e in paths]),
            ),
        }
    for name, (dims, values) in extra.items():
        variables[name] = ((*dims, *axes) if name == "member_point" else dims, values)
    coordinates = {"merge_part": ("merge_part", list(disconnectivity.MERGE_PARTS))}
    return xr.Dataset(variables, coordinates, attributes)


def _strokes():
    """28 x 28 pictures in [0, 1] of a 1, a 0, a 7 and a 4."""
    rows, columns = np.mgrid[0:28, 0:28]

    def line(a, b):
        (r0, c0), (r1, c1) = a, b
        along = np.clip(
            ((rows - r0) * (r1 - r0) + (columns - c0) * (c1 - c0)) / ((r1 - r0) ** 2 + (c1 - c0) ** 2), 0, 1
        )
        away = np.hypot(rows - r0 - along * (r1 - r0), columns - c0 - along * (c1 - c0))
        return np.exp(-((away / 1.3) ** 2))

    one = line((5, 15), (22, 13))
    zero = np.exp(-(((np.hypot((rows - 13.5) / 1.25, columns - 13.5) - 6.5) / 1.3) ** 2))
    seven = np.maximum(line((6, 8), (6, 19)), line((6, 19), (22, 12)))
    four = np.maximum.reduce([line((5, 10), (14, 8)), line((14, 8), (14, 20)), line((5, 17), (22, 16))])
    return np.stack([one, zero, seven, four])


def digits_example(seed=0, n_members=160, verdict="converged"):
    """Four kinds of image: a 1, a 0, a 7 and a 4, one barrier an interval, every optional variable present."""
    generator = np.random.default_rng(seed)
    pictures = _strokes()
    energy = np.array([-14.2, -12.9, -11.6, -10.8])
    first, second, level = np.array([0, 0, 2]), np.array([1, 2, 3]), np.array([-7.3, -9.4, -8.1])
    upper = passes.bottlenecks(4, first, second, level, energy)
    lower = passes.bottlenecks(4, first, second, np.array([-8.0, -9.4, -8.1]), energy)
    paths = []
    for one, other, top in zip(first, second, level, strict=True):
        share = np.linspace(0, 1, 61)
        climb = np.where(share < 0.5, top - energy[one], top - energy[other])
        along = top - climb * (2 * np.abs(share - 0.5)) ** 1.7 - 0.1 * np.sin(8 * np.pi * share) ** 2
        along[[0, -1]] = energy[one], energy[other]
        mixed = pictures[one] * (1 - share[:, None, None]) + pictures[other] * share[:, None, None]
        paths.append((int(one), int(other), mixed[:, None], along))
    basin = generator.choice(4, n_members, p=[0.4, 0.3, 0.2, 0.1])
    noise = generator.normal(0, 1, (n_members, 28, 28))
    shift = generator.integers(-2, 3, n_members)
    members = np.stack([np.roll(pictures[k], s, axis=1) for k, s in zip(basin, shift, strict=True)])
    members = np.clip(members * generator.uniform(0.7, 1.0, (n_members, 1, 1)) + 0.05 * noise, 0, 1)
    raised = energy[basin] + generator.exponential(0.8, n_members)
    names = np.array(["1", "0", "7", "4"])
    labels = names[basin].copy()
    labels[generator.random(n_members) < 0.04] = "9"
    plane = generator.normal(size=(4, 2)) * 14
    temperature = np.geomspace(0.05, 2.0, 8)
    chains = -14 + 9 / (1 + np.exp(-3 * np.log(temperature / 0.5)))[:, None] + 8 * np.exp(-np.arange(60) / 6)
    chains += generator.normal(0, 0.15, chains.shape)
    phase_temperature = np.linspace(0.1, 1.4, 12)
    border = np.sqrt(np.maximum(1 - phase_temperature / 1.1, 0)) * np.array([[1.4], [0.9]])
    return _landscape(
        pictures[:, None],
        energy,
        upper,
        lower,
        paths,
        _attributes(
            observable_sentence="minus the log-sum-exp of the classifier's outputs",
            observable="energy",
            space="box:1x28x28:0:1",
            space_sentence="784 real inputs in [0, 1]: volume e^0.0",
            method="adelm",
            model_name="a digit classifier",
            model_hash="9f2c4e7a1b6d5083e2c1f7a9d4b80c35e6a1927fd0b3c8e5a4f6172839405162",
            command="theodolite demo --only landscape --seed 3",
        ),
        verdict,
        member_count=(("minimum",), np.bincount(basin, minlength=4)),
        minimum_label=(("minimum",), names),
        member_point=(("member",), members[:, None]),
        member_energy=(("member",), raised),
        basin=(("member",), basin),
        member_label=(("member",), labels),
        member_embedding=(("member", "axis"), plane[basin] + generator.normal(0, 3, (n_members, 2))),
        member_latent=(("member", "axis"), plane[basin] / 14 + generator.normal(0, 0.4, (n_members, 2))),
        discovered=(("proposal",), np.minimum(4, 1 + np.searchsorted([3, 11, 37], np.arange(200)))),
        basins_before_consolidation=((), 6),
        basins_after_consolidation=((), 4),
        leakage=((), 0.021),
        tune_temperature=(("tune_temperature",), temperature),
        tune_energy=(("tune_temperature", "tune_step"), chains),
        tune_alpha=(("tune_alpha",), np.geomspace(0.1, 30, 9)),
        tune_basins=(("tune_alpha",), np.array([41, 38, 30, 19, 9, 5, 4, 2, 1])),
        phase_temperature=(("phase_temperature",), phase_temperature),
        phase_alpha=(("phase_role", "phase_temperature"), np.where(border > 0, border, np.nan)),
    )


def _descend(couplings, spins):
    """Steepest single-flip descent of many states at once."""
    spins = spins.copy()
    while True:
        cost = 2 * spins * (spins @ couplings)
        site = cost.argmin(axis=1)
        falling = cost[np.arange(len(spins)), site] < -1e-12
        if not falling.any():
            return spins
        spins[falling, site[falling]] *= -1


def _greedy(couplings, start, end):
    """States from `start` to `end`, always flipping the differing spin that costs least (Hill et al. 2019, 5.1)."""
    state, states = start.astype(float), [start.copy()]
    while (state != end).any():
        cost = 2 * state * (couplings @ state)
        cost[state == end] = np.inf
        state[int(np.argmin(cost))] *= -1
        states.append(state.astype(np.int8))
    return np.array(states)


def glass_example(n=100, n_minima=500, seed=0, n_near=4, search=0):
    """The lowest minima that many descents in a spin glass find, barriers by greedy paths, closed; not labelled.

    A third of the lower bounds are made up, so that both exact barriers and intervals are there; `search` seeds the
    descents, `n_near` says between how many neighbours of a minimum paths are tried.
    """
    couplings = np.zeros((n, n))
    couplings[np.triu_indices(n, 1)] = np.random.default_rng(seed).normal(0, 1 / np.sqrt(n), n * (n - 1) // 2)
    couplings += couplings.T
    generator = np.random.default_rng((seed, search))
    starts = generator.choice([-1.0, 1.0], (12 * n_minima, n))
    found, count = np.unique(_descend(couplings, starts).astype(np.int8), axis=0, return_counts=True)
    found, count = np.concatenate([found, -found]), np.concatenate([count, count])
    found, where = np.unique(found, axis=0, return_index=True)
    value = -0.5 * np.einsum("mi,ij,mj->m", found.astype(float), couplings, found.astype(float))
    order = np.argsort(value, kind="stable")[:n_minima]
    spins, energy, count = found[order], value[order], count[where[order]]
    k = len(energy)
    overlap = spins.astype(int) @ spins.astype(int).T - 2 * n * np.eye(k, dtype=int)
    pairs = {tuple(sorted((i, int(j)))) for i in range(k) for j in np.argsort(-overlap[i])[:n_near]}
    pairs |= {tuple(sorted((i, int(overlap[i, :i].argmax())))) for i in range(1, k)}
    first, second = np.array(sorted(pairs)).T
    walks = [_greedy(couplings, spins[i], spins[j]) for i, j in zip(first, second, strict=True)]
    along = [-0.5 * np.einsum("mi,ij,mj->m", w.astype(float), couplings, w.astype(float)) for w in walks]
    level = np.array([values.max() for values in along])
    spanning = passes.minimum_spanning_passes(k, first, second, level)
    upper = passes.bottlenecks(k, first, second, level, energy)
    floor = np.maximum(energy[first], energy[second])
    proven = np.where(generator.random(len(level)) < 0.35, floor + 0.6 * (level - floor), level)
    lower = np.minimum(passes.bottlenecks(k, first, second, proven, energy), upper)
    lower = np.maximum(lower, np.maximum(energy[:, None], energy))
    np.fill_diagonal(lower, energy)
    return _landscape(
        spins,
        energy,
        upper,
        lower,
        [(int(first[m]), int(second[m]), walks[m], along[m]) for m in spanning],
        _attributes(
            observable_sentence=f"energy H of the Sherrington-Kirkpatrick spin glass of {n} spins",
            space=f"spins:{n}",
            space_sentence=f"{n} spins of -1 or +1: e^{n * np.log(2):.0f} states",
            log_volume=float(n * np.log(2)),
            method="exact",
            model_name=f"spin glass {n} (seed {seed})",
            command=f"theodolite landscape --system spin_glass:{n}",
        ),
        "bracketed",
        member_count=(("minimum",), count),
    )


def surface_example(n_grid=81):
    """A real surface over two numbers: its minima and barriers by flooding a grid, exact on that grid."""
    line = np.linspace(0, 1, n_grid)
    x, y = np.meshgrid(line, line, indexing="ij")
    height = 2.0 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    wells = [(0.25, 0.3, 1.9, 0.1), (0.75, 0.3, 1.4, 0.09), (0.3, 0.75, 1.1, 0.08), (0.7, 0.72, 1.6, 0.12)]
    for a, b, depth, width in wells:
        height -= depth * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * width**2))
    height += 0.12 * np.sin(17 * x) * np.cos(13 * y)
    value, points = height.ravel(), np.stack([x.ravel(), y.ravel()], axis=1)
    index = np.arange(n_grid**2).reshape(n_grid, n_grid)
    straight = [(index[:-1], index[1:]), (index[:, :-1], index[:, 1:])]
    ends = [*straight, (index[:-1, :-1], index[1:, 1:]), (index[1:, :-1], index[:-1, 1:])]
    one, other = (np.concatenate([pair[side].ravel() for pair in ends]) for side in (0, 1))
    level = np.maximum(value[one], value[other])
    low = np.ones(n_grid**2, bool)
    np.logical_and.at(low, one, value[one] < value[other])
    np.logical_and.at(low, other, value[other] < value[one])
    minima = np.flatnonzero(low)
    minima = minima[np.argsort(value[minima])]
    spanning = minimum_spanning_tree(coo_matrix((level - value.min() + 1, (one, other)), shape=(n_grid**2,) * 2))
    n = len(minima)
    upper = np.diag(value[minima])
    routes = {}
    for i in range(n):
        _, back = breadth_first_order(spanning, minima[i], directed=False)
        for j in range(i):
            route = [int(minima[j])]
            while route[-1] != minima[i]:
                route.append(int(back[route[-1]]))
            upper[i, j] = upper[j, i] = value[route].max()
            routes[i, j] = route[::-1]
    pairs = np.array(sorted(routes))
    kept = passes.minimum_spanning_passes(n, pairs[:, 0], pairs[:, 1], upper[pairs[:, 0], pairs[:, 1]])
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, n_grid**2, 400)
    basin = np.array([int(np.argmin(((points[minima] - points[k]) ** 2).sum(1))) for k in drawn])
    return _landscape(
        points[minima],
        value[minima],
        upper,
        upper,
        [(int(i), int(j), points[routes[i, j]], value[routes[i, j]]) for i, j in pairs[kept]],
        _attributes(observable_sentence="height of a rough surface", method="exact", model_name="a rough surface"),
        "exact",
        member_count=(("minimum",), np.bincount(basin, minlength=n)),
        member_point=(("member",), points[drawn]),
        member_energy=(("member",), value[drawn]),
        basin=(("member",), basin),
    )
