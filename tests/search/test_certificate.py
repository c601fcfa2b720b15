"""Certified trees against floods of all states: exact where they say so, and never an interval without the truth."""

import numpy as np
import pytest
import torch

from theodolite import run
from theodolite.errors import UserError
from theodolite.field import FlipCosts
from theodolite.search.certificate import CertifiedTree
from theodolite.systems import ising, spin_glass


def all_states(n):
    return 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1) - 1


def energies(costs, states):
    spins = np.asarray(states, np.float64)
    return costs.constant - 0.5 * ((spins @ costs.couplings) * spins).sum(1) - spins @ costs.external


def strict_minima(energy, n):
    index = np.arange(len(energy))
    below = np.stack([energy[index ^ (1 << k)] - energy for k in range(n)])
    return np.flatnonzero((below > 1e-9).all(0))


def flooded(energy, n, minima):
    """Barriers (K, K): states are added from the lowest up, and components are joined where they touch."""
    parent, members = {}, {}
    listed = {int(state): k for k, state in enumerate(minima)}
    barrier = np.full((len(minima), len(minima)), np.inf)

    def root(state):
        while parent[state] != state:
            state = parent[state]
        return state

    for state in np.argsort(energy, kind="stable").tolist():
        parent[state] = state
        members[state] = [listed[state]] if state in listed else []
        for k in range(n):
            if state ^ (1 << k) in parent:
                a, b = sorted((root(state), root(state ^ (1 << k))), key=lambda r: len(members[r]))
                if a != b:
                    for i in members[a]:
                        barrier[i, members[b]] = barrier[members[b], i] = energy[state]
                    members[b] += members.pop(a)
                    parent[a] = b
    np.fill_diagonal(barrier, energy[minima])
    return barrier


def random_costs(rng):
    """Normal, sparse or whole-numbered couplings (full of ties and plateaus), with and without an external field."""
    n = int(rng.integers(4, 11))
    couplings = rng.normal(0, 1, (n, n))
    kind = rng.integers(3)
    if kind == 1:
        couplings *= rng.random((n, n)) < 0.4
    if kind == 2:
        couplings = rng.integers(-2, 3, (n, n)).astype(np.float64)
    couplings = np.triu(couplings, 1)
    external = np.zeros(n)
    if rng.random() < 0.5:
        external = rng.integers(-1, 2, n).astype(np.float64) if kind == 2 else rng.normal(0, 0.5, n)
    return FlipCosts(couplings + couplings.T, external, float(rng.normal()))


def finish(tree, state=None, limit=10**6):
    state = tree.init() if state is None else state
    steps = 0
    while not tree.finished(state) and steps < limit:
        state, _ = tree.step(state)
        steps += 1
    return state


def refuse_wrong_bounds(estimate, truth):
    """The contract of an estimate, and the truth within its intervals."""
    lower, upper = estimate.lower, estimate.upper
    assert (lower <= truth + 1e-9).all() and (truth <= upper + 1e-9).all()
    for bound in (lower, upper):
        assert np.array_equal(bound, bound.T)
        assert np.array_equal(bound.diagonal(), estimate.energy)
        detour = np.maximum(bound[:, :, None], bound[None]).min(1)
        assert (detour >= bound).all()
    assert (lower >= np.maximum(estimate.energy[:, None], estimate.energy[None])).all()
    first, second = estimate.first, estimate.second
    assert len(first) == len(truth) - 1
    assert np.array_equal(estimate.upper_level, upper[first, second])
    assert np.array_equal(estimate.lower_level, lower[first, second])
    assert (np.diff(estimate.upper_level[np.isfinite(estimate.upper_level)]) >= 0).all()
    # The merges span: their closure is the matrix.
    closure = np.full_like(upper, np.inf)
    np.fill_diagonal(closure, estimate.energy)
    for i, j, level in zip(first, second, estimate.upper_level, strict=True):
        joined = np.maximum(np.maximum(closure[:, i, None], closure[None, j]), level)
        closure = np.minimum(closure, np.minimum(joined, joined.T))
    assert np.array_equal(closure, upper)


def refuse_wrong_path(tree, state, estimate, i, j):
    path = tree.path(state, i, j)
    assert np.array_equal(path[0], tree.seeds[i]) and np.array_equal(path[-1], tree.seeds[j])
    assert ((path[1:] != path[:-1]).sum(1) == 1).all()
    assert energies(tree.flip_costs, path).max() == pytest.approx(estimate.upper[i, j], abs=1e-9)


@pytest.mark.parametrize(("n", "seed", "field"), [(12, 0, 0.0), (12, 1, 0.3), (14, 2, 0.0), (14, 3, 0.2), (15, 4, 0.0)])
def test_every_barrier_equals_the_flood(n, seed, field):
    external = np.random.default_rng(seed).normal(0, 1, n) * field
    costs = FlipCosts(spin_glass(n, seed).flip_costs.couplings, external, 0.75)
    states = all_states(n)
    energy = energies(costs, states)
    minima = strict_minima(energy, n)
    truth = flooded(energy, n, minima)
    tree = CertifiedTree(costs, states[minima])
    state = finish(tree)
    estimate = tree.estimate(state)
    assert tree.finished(state) == "Every barrier is exact."
    assert estimate.n_exact == len(minima) - 1
    assert np.abs(estimate.upper - truth).max() <= 1e-12
    assert np.abs(estimate.lower - truth).max() <= 1e-12
    refuse_wrong_bounds(estimate, truth)
    for i in range(min(len(minima), 5)):
        refuse_wrong_path(tree, state, estimate, i, len(minima) - 1 - i)


@pytest.mark.parametrize("part", range(3))
def test_intervals_hold_whenever_a_run_is_stopped(part):
    rng = np.random.default_rng(part)
    exact = open_barriers = 0
    for _ in range(100):
        costs = random_costs(rng)
        n = len(costs.couplings)
        states = all_states(n)
        energy = energies(costs, states)
        minima = strict_minima(energy, n)
        if len(minima) < 2:
            continue
        minima = rng.permutation(minima)[: rng.integers(2, len(minima) + 1)]
        tree = CertifiedTree(
            costs,
            states[minima],
            flood_depth=float(rng.choice([0.0, 0.5])),
            step_states=int(rng.integers(1, 200)),
            rise=float(rng.choice([0.1, 1.0])),
            n_threads=1,
        )
        truth = flooded(energy, n, minima)
        state = finish(tree, limit=int(rng.integers(0, 40)))
        estimate = tree.estimate(state)
        refuse_wrong_bounds(estimate, truth)
        exact += bool(tree.finished(state))
        open_barriers += not tree.finished(state)
        i, j = rng.integers(0, len(minima), 2)
        if np.isfinite(estimate.upper[i, j]):
            refuse_wrong_path(tree, state, estimate, i, j)
    assert exact > 10 and open_barriers > 10


def test_known_paths_give_upper_bounds_and_save_work():
    costs = spin_glass(14, 6).flip_costs
    states = all_states(14)
    energy = energies(costs, states)
    minima = strict_minima(energy, 14)
    truth = flooded(energy, 14, minima)
    full = CertifiedTree(costs, states[minima])
    done = finish(full)
    known = [full.path(done, 0, j) for j in range(1, len(minima))]
    tree = CertifiedTree(costs, states[minima], paths=tuple(known))
    state = tree.init()
    assert np.abs(tree.estimate(state).upper - truth).max() <= 1e-12
    refuse_wrong_bounds(tree.estimate(state), truth)
    later = full.with_upper_bounds(full.init(), known)
    assert np.array_equal(full.estimate(later).upper, tree.estimate(state).upper)
    state = finish(tree, state)
    assert np.abs(tree.estimate(state).lower - truth).max() <= 1e-12
    with pytest.raises(UserError, match="one flip a step"):
        tree.with_upper_bounds(state, [known[0][::2]])


def test_threads_checkpoints_and_resumption_change_nothing(tmp_path):
    costs = spin_glass(30, 1).flip_costs
    rng = np.random.default_rng(0)
    seeds = np.unique(np.stack([descended(costs, rng.choice([-1, 1], 30)) for _ in range(60)]), axis=0)
    settings = {"flip_costs": costs, "seeds": seeds, "step_states": 2_000, "flood_depth": 0.2}
    single = CertifiedTree(**settings, n_threads=1)
    plain = single.estimate(finish(single))
    assert plain.n_exact == len(seeds) - 1

    pair = CertifiedTree(**settings, n_threads=2)
    generator = torch.Generator().manual_seed(0)
    meter = run.Meter(run.Budget(evaluations=5), lambda: 0)
    calls = []

    def five(state, info):
        calls.append(info)
        return "five steps" if len(calls) == 5 else None

    outcome = run.drive(pair.step, pair.init(), generator, meter=meter, stop=five, checkpoint=tmp_path / "state.pt")
    assert outcome.reason == "five steps"
    state = finish(pair, run.read_checkpoint(tmp_path / "state.pt").state)
    resumed = pair.estimate(state)
    assert np.array_equal(plain.upper, resumed.upper) and np.array_equal(plain.lower, resumed.lower)
    assert plain.states == resumed.states and plain.n_minima == resumed.n_minima


def descended(costs, spins):
    spins = spins.astype(np.float64)
    while True:
        gains = spins * (costs.couplings @ spins + costs.external)
        if gains.min() >= 0:
            return spins.astype(np.int8)
        spins[gains.argmin()] *= -1


def test_memory_limit_ends_with_intervals():
    costs = spin_glass(50, 0).flip_costs
    rng = np.random.default_rng(1)
    seeds = np.unique(np.stack([descended(costs, rng.choice([-1, 1], 50)) for _ in range(30)]), axis=0)
    truth_tree = CertifiedTree(costs, seeds)
    truth = truth_tree.estimate(finish(truth_tree))
    assert truth.n_exact == len(seeds) - 1 and truth.n_minima > 2048
    tree = CertifiedTree(costs, seeds, memory_limit=300_000)
    state = finish(tree)
    estimate = tree.estimate(state)
    assert "memory limit" in (tree.finished(state) or "")
    assert estimate.n_exact < len(seeds) - 1
    refuse_wrong_bounds(estimate, truth.upper)
    again, _ = tree.step(state)
    assert np.array_equal(tree.estimate(again).lower, estimate.lower)


def test_ising_ground_states_have_the_known_barrier():
    costs = ising(4).flip_costs
    states = all_states(16)
    energy = energies(costs, states)
    ground = np.flatnonzero(energy == energy.min())
    truth = flooded(energy, 16, ground)
    tree = CertifiedTree(costs, states[ground])
    estimate = tree.estimate(finish(tree))
    assert estimate.n_exact == 1
    assert estimate.upper[0, 1] == estimate.lower[0, 1] == truth[0, 1]


def test_one_minimum_needs_no_proof():
    tree = CertifiedTree(spin_glass(20, 0).flip_costs, [descended(spin_glass(20, 0).flip_costs, np.ones(20))])
    estimate = tree.estimate(tree.init())
    assert tree.finished(tree.init()) and estimate.upper.shape == (1, 1) and len(estimate.first) == 0


def test_wrong_input_is_refused():
    costs = spin_glass(12, 0).flip_costs
    states = all_states(12)
    minima = states[strict_minima(energies(costs, states), 12)]
    with pytest.raises(UserError, match="1 minima that aren't minima, the first at index 1, which can descend"):
        CertifiedTree(costs, [minima[0], -minima[0] * np.where(np.arange(12) == 3, -1, 1)])
    with pytest.raises(UserError, match="plateau"):
        CertifiedTree(FlipCosts(np.zeros((3, 3)), np.array([1.0, 1.0, 0.0])), [[1, 1, 1]])
    with pytest.raises(UserError, match="distinct"):
        CertifiedTree(costs, [minima[0], minima[0]])
    with pytest.raises(UserError, match="shape"):
        CertifiedTree(costs, minima[:, :5])
    with pytest.raises(UserError, match="-1 and"):
        CertifiedTree(costs, (minima + 1) // 2)
    with pytest.raises(UserError, match="rise"):
        CertifiedTree(costs, minima, rise=0.0)
    with pytest.raises(UserError, match="first_ceiling"):
        CertifiedTree(costs, minima, first_ceiling=float("nan"))
    with pytest.raises(UserError, match="memory_limit"):
        CertifiedTree(costs, minima, memory_limit=1000)
    tree = CertifiedTree(costs, minima)
    with pytest.raises(UserError, match="not yet joined"):
        tree.path(tree.init(), 0, 1)
