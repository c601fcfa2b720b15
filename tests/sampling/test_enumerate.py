"""Enumeration against Beale's exact Ising counts, counting by hand and the plain module at every input."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import nn

from theodolite.embedding import OneHot, Scale
from theodolite.errors import MissingCapability, UserError
from theodolite.field import Field, Terms
from theodolite.network import Network
from theodolite.run import pack, unpack
from theodolite.sampling import term_tables
from theodolite.sampling.enumerate import Enumeration, fastest_values, tabulate
from theodolite.space import Box, Grid
from theodolite.systems.ising import ising
from theodolite.systems.ising_exact import ising_counts

SUM_OF_SQUARES = Field(Grid((2, 2), 3), lambda x: (x.double() ** 2).flatten(1).sum(1) - 3.25, name="sum of squares")


def run(sampler, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = sampler.init(generator)
    while not sampler.finished(state):
        state, _ = sampler.step(state, generator)
    return state, sampler.estimate(state)


def test_ising_counts_are_exact():
    _, estimate = run(Enumeration(ising(4)))
    centres = (estimate.level_edges[1:] + estimate.level_edges[:-1]) / 2
    found = {
        round(e): round(float(np.exp(s)))
        for e, s in zip(centres, estimate.log_density_of_states, strict=True)
        if s >= 0
    }
    assert found == {energy: count for energy, count in ising_counts(4).items() if count}
    assert (estimate.log_density_error == 0).all()
    assert np.isneginf(estimate.log_density_of_states[1])


@pytest.mark.parametrize("batch", [1, 7, 1024])
def test_counts_by_hand_for_any_batch(batch):
    _, estimate = run(Enumeration(SUM_OF_SQUARES, bin_width=2.0, batch=batch))
    values = [sum(v * v for v in point) - 3.25 for point in itertools.product(range(3), repeat=4)]
    expected, _ = np.histogram(values, estimate.level_edges)
    assert (estimate.n_samples == expected).all()
    assert estimate.n_samples.sum() == 81
    assert np.allclose(np.exp(estimate.log_density_of_states), expected)


def test_table_has_coordinate_0_as_least_significant_digit():
    field = Field(Grid((3,), 4), lambda x: (x.double() * torch.tensor([1.0, 10.0, 100.0])).sum(1))
    table = tabulate(field, batch=5)
    assert table.shape == (64,)
    assert table[1 + 2 * 4 + 3 * 16] == 1 + 20 + 300
    looked_up = Field(field.space, field.value, table=table)
    assert (run(Enumeration(looked_up, 50.0))[1].n_samples == run(Enumeration(field, 50.0))[1].n_samples).all()
    assert looked_up.evaluations == 0
    assert field.evaluations == 128


def test_unfinished_enumeration_claims_nothing():
    sampler = Enumeration(ising(4), batch=64, batches_per_step=1)
    generator = torch.Generator()
    state, info = sampler.step(sampler.init(generator), generator)
    estimate = sampler.estimate(state)
    assert info["enumerated"] == 64 / 2**16
    assert np.isinf(estimate.log_density_error).all()
    assert not np.isneginf(estimate.log_density_of_states).any()


@pytest.mark.parametrize("space", [Grid((1, 28, 28), 256), Box((2,), 0.0, 1.0)])
def test_what_cannot_be_enumerated_is_refused(space):
    with pytest.raises(UserError, match="use method"):
        Enumeration(Field(space, lambda x: x.double().flatten(1).sum(1)), bin_width=1.0)


@pytest.mark.parametrize("setting", ["batch", "batches_per_step", "n_representatives"])
def test_settings_below_one_are_refused(setting):
    with pytest.raises(UserError, match=f"{setting}: expected at least 1, got 0"):
        Enumeration(SUM_OF_SQUARES, 2.0, **{setting: 0})


# ---------------------------------------------------------------------- sums of local terms


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.inner(x))


def convolutions(planes: int, *kernels: int, channels: int = 6) -> nn.Sequential:
    """Convolutions, all but the first two with a ReLU between them, batch normalisation and a pointwise end."""
    torch.manual_seed(len(kernels))
    layers: list[nn.Module] = [nn.Conv2d(planes, channels, kernels[0], padding=kernels[0] // 2)]
    for number, kernel in enumerate(kernels[1:]):
        layers += [nn.ReLU(inplace=True)] * (number > 0)
        layers += [nn.Conv2d(channels, channels, kernel, padding=kernel // 2)]
    normalisation = nn.BatchNorm2d(channels)
    nn.init.normal_(normalisation.running_mean)
    nn.init.uniform_(normalisation.running_var, 0.5, 2.0)
    layers += [normalisation, nn.ReLU(), nn.Conv2d(channels, 8, 1), nn.Tanh()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()


def plain_values(module: nn.Module, space: Grid, one_hot: bool, index: torch.Tensor) -> torch.Tensor:
    """The margin of output 2 over 0 of the module itself, coordinate 0 the least significant digit."""
    digits = torch.stack([index // space.levels**p % space.levels for p in range(space.n_coordinates)], 1)
    image = digits.reshape(len(index), *space.shape)
    if one_hot:
        planes = nn.functional.one_hot(image.squeeze(1), space.levels).permute(0, 3, 1, 2).float()
    else:
        planes = image.float() * 0.5 - 0.25
    with torch.no_grad():
        output = module(planes)
    return (output[:, 2] - output[:, 0]).double()


def surveyed(space: Grid, one_hot: bool, *kernels: int) -> tuple[nn.Module, Field]:
    module = convolutions(space.levels if one_hot else space.shape[0], *kernels)
    network = Network(module, space, embedding=OneHot() if one_hot else Scale(0.5, -0.25))
    return module, network.margin(2, 0)


SMALL = [
    (Grid((1, 4, 4), 2), True, (3, 3, 3)),  # radius 3
    (Grid((1, 4, 4), 2), True, (3, 5)),  # radius 3, no nonlinearity before the last wide convolution
    (Grid((1, 2, 7), 2), True, (3, 3)),  # radius 2
    (Grid((1, 7, 2), 2), False, (3, 3, 3)),
    (Grid((1, 4, 4), 2), False, (3,)),  # radius 1: every term is looked up
    (Grid((1, 2, 5), 3), True, (3, 3)),
    (Grid((1, 2, 4), 4), False, (3, 3)),
    (Grid((2, 2, 4), 2), False, (3, 3)),  # two channels
    (Grid((1, 1, 3), 40), True, (3, 3)),
]


@pytest.mark.parametrize(("space", "one_hot", "kernels"), SMALL)
@pytest.mark.parametrize("batch", [100, 1024])
def test_sums_of_terms_equal_the_plain_module_at_every_input(space, one_hot, kernels, batch):
    module, field = surveyed(space, one_hot, *kernels)
    assert field.terms is not None and field.terms.window is not None
    total = space.levels**space.n_coordinates
    expected = plain_values(module, space, one_hot, torch.arange(total))
    assert torch.allclose(tabulate(field, batch), expected, rtol=0, atol=1e-5)
    assert field.evaluations == total
    values = fastest_values(field, batch)
    for start, stop in ((0, 1), (5, 6), (total - 3, total), (99, 301), (1023, 1025)):
        assert torch.allclose(values(start, stop), expected[start:stop], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kernels", "largest"), [((3, 3), 2**16), ((3, 3, 3), 2**16), ((3,), 2**20)])
def test_sums_of_terms_on_a_larger_grid(kernels, largest, monkeypatch):
    monkeypatch.setattr(term_tables, "_LARGEST_TABLE", largest)
    space = Grid((1, 6, 4), 2)
    module, field = surveyed(space, False, *kernels)
    values = fastest_values(field, 256)
    generator = torch.Generator().manual_seed(1)
    for start in torch.randint(0, 2**24 - 500, (6,), generator=generator).tolist():
        expected = plain_values(module, space, False, torch.arange(start, start + 500))
        assert torch.allclose(values(start, start + 500), expected, rtol=0, atol=1e-5)


def test_counts_of_a_sum_of_terms_equal_those_of_the_plain_module():
    module, field = surveyed(Grid((1, 4, 4), 2), True, 3, 3, 3)
    state, estimate = run(Enumeration(field, bin_width=0.01, batch=300))
    expected = plain_values(module, field.space, True, torch.arange(2**16)).numpy()
    # A value within float32 rounding of an edge may fall on either side of it.
    near = np.abs(expected / 0.01 - np.round(expected / 0.01)) < 1e-3
    difference = np.abs(estimate.n_samples - np.histogram(expected, estimate.level_edges)[0])
    assert difference.sum() <= 2 * near.sum()
    assert estimate.n_samples.sum() == 2**16


def test_rectangles_of_terms_equal_the_terms():
    space = Grid((1, 5, 6), 3)
    _, field = surveyed(space, True, 3, 3, 3)
    level = torch.randint(0, 3, (9, 30), generator=torch.Generator().manual_seed(2))
    embedded = field.level_differences.table[level]
    terms = field.terms.function(embedded).reshape(9, 5, 6).double()
    affine = field.terms.window.affine(embedded)
    for rows, columns in itertools.product(
        (slice(0, 5), slice(0, 1), slice(4, 5), slice(1, 3)), (slice(0, 6), slice(5, 6), slice(2, 5))
    ):
        found = field.window_terms(affine.clone(), rows, columns)
        assert torch.allclose(found, terms[:, rows, columns].flatten(1), rtol=0, atol=1e-6)


def test_the_first_stage_is_affine():
    _, field = surveyed(Grid((1, 4, 5), 3), True, 3, 3, 3, 3)
    table, affine = field.level_differences.table, field.terms.window.affine
    low, high = torch.zeros(2, 7, 20, dtype=torch.int64).unbind()
    low[:, :9] = torch.randint(0, 3, (7, 9), generator=torch.Generator().manual_seed(3))
    high[:, 9:] = torch.randint(0, 3, (7, 11), generator=torch.Generator().manual_seed(4))
    together = affine(table[low]) + affine(table[high]) - affine(table[torch.zeros_like(low)])
    assert torch.allclose(affine(table[low + high]), together, atol=1e-5)


def test_a_sum_of_terms_without_a_window_is_evaluated_plainly():
    torch.manual_seed(5)
    ending = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Residual(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    field = Network(ending.eval(), Grid((1, 3, 4), 2), embedding=Scale()).logit(1)
    assert field.terms is not None and field.terms.window is None
    assert torch.allclose(tabulate(field, 100), tabulate(Field(field.space, field.value), 4096), atol=1e-6)
    with pytest.raises(MissingCapability, match="window"):
        field.window_terms(torch.zeros(1, 4, 3, 4), slice(0, 1), slice(0, 1))


def test_the_toy_network_looks_up_its_border_and_evaluates_its_centre():
    terms = Terms((5, 5), 3, 0.0, lambda embedded: embedded)
    evaluated, groups = term_tables.plan(terms, 2, 25)
    assert evaluated == [(r, c) for r in (1, 2, 3) for c in (1, 2, 3)]
    assert all(len(window) == 20 for window in groups) and len(groups) == 4
    assert sorted(sum(groups.values(), evaluated)) == [(r, c) for r in range(5) for c in range(5)]


# ---------------------------------------------------------------------- inputs of every level


def popcount(n: int) -> Field:
    values = torch.tensor([float(index.bit_count()) for index in range(2**n)], dtype=torch.float64)
    return Field(Grid((n,), 2), lambda x: x.double().sum(1), level_spacing=1.0, table=values)


def test_rare_levels_list_all_their_inputs_and_others_as_many_as_asked():
    field = popcount(10)
    sampler = Enumeration(field, batch=7, batches_per_step=3)
    level, output = sampler.representatives(run(sampler)[0])
    assert level.shape == (len(output), 10)
    assert (level.sum(1) == output).all()
    for count in range(11):
        chosen = {tuple(row) for row in level[output == count].tolist()}
        assert len(chosen) == int((output == count).sum()) == min(24, math.comb(10, count))


def test_inputs_of_a_level_are_drawn_uniformly():
    sampler = Enumeration(popcount(8), batch=4, batches_per_step=8, n_representatives=10)
    members = [index for index in range(256) if index.bit_count() == 4]
    n_runs = 700
    seen = np.zeros(256)
    for seed in range(n_runs):
        level, output = sampler.representatives(run(sampler, seed)[0])
        chosen = (level[output == 4] * 2 ** torch.arange(8)).sum(1)
        seen[chosen.numpy()] += 1
    assert seen.sum() == n_runs * 10 == seen[members].sum()
    # Drawn without replacement, a member's indicator has variance p (1 - p), and the indicators add up to 10.
    expected = n_runs * 10 / 70
    statistic = ((seen[members] - expected) ** 2).sum() / (expected * (1 - 10 / 70)) * 69 / 70
    assert 1e-3 < chi2.sf(statistic, 69) < 1 - 1e-3


def test_a_packed_state_goes_on_as_if_never_stopped():
    sampler = Enumeration(popcount(9), batch=16, batches_per_step=2)
    generator = torch.Generator().manual_seed(8)
    state = sampler.init(generator)
    for _ in range(5):
        state, _ = sampler.step(state, generator)
    other, copied = torch.Generator(), unpack(pack(state))
    other.set_state(generator.get_state())
    while not sampler.finished(state):
        state, _ = sampler.step(state, generator)
        copied, _ = sampler.step(copied, other)
    assert (sampler.estimate(state).n_samples == sampler.estimate(copied).n_samples).all()
    for one, two in zip(sampler.representatives(state), sampler.representatives(copied), strict=True):
        assert (one == two).all()
    assert (sampler.representatives(run(sampler, 9)[0])[0] != sampler.representatives(state)[0]).any()
