"""`locality`: sums of local terms are found where they are, never where they are not, and are exact."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from theodolite import locality
from theodolite.embedding import Embedding, OneHot, Scale
from theodolite.field import Field
from theodolite.network import Network
from theodolite.space import Grid
from theodolite.zoo.networks import initialised


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Wired(nn.Module):
    """Layers to choose from, wired by a function of (module, input)."""

    def __init__(self, wiring: Callable[[Wired, Tensor], Tensor], channels: int = 1) -> None:
        super().__init__()
        self.wiring = wiring
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.point = nn.Conv2d(4, 4, 1)
        self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.same = nn.Conv2d(4, 4, 3, padding="same")
        self.strided = nn.Conv2d(4, 4, 3, padding=1, stride=2)
        self.wrapped = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.bare = nn.Conv2d(4, 4, 3)
        self.oblong = nn.Conv2d(4, 4, (3, 1), padding=(1, 0))
        self.norm = nn.BatchNorm2d(4)
        self.batch_norm = nn.BatchNorm2d(4, track_running_stats=False)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.middle = nn.Linear(4, 4)
        self.linear = nn.Linear(4, 3)
        self.flat: nn.Linear = nn.LazyLinear(3)
        self.offset = nn.Parameter(torch.randn(4, 6, 7))
        nn.init.normal_(self.norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self, x)

    def head(self, features: Tensor) -> Tensor:
        return self.linear(self.average(features).flatten(1))


def wired(wiring: Callable[[Wired, Tensor], Tensor], channels: int = 1, size: tuple[int, int] = (6, 7)) -> Wired:
    def build() -> Wired:
        module = Wired(wiring, channels).eval()
        module(torch.zeros(2, channels, *size))  # gives the lazy layer its size
        if isinstance(module.flat, nn.LazyLinear):
            module.flat = nn.Linear(1, 1)
        return module

    return initialised(build, 0)


def network(
    wiring: Callable[[Wired, Tensor], Tensor],
    shape: tuple[int, ...] = (1, 6, 7),
    levels: int = 4,
    embedding: Embedding | None = None,
) -> Network:
    channels = math.prod(shape[:-2]) * (levels if isinstance(embedding, OneHot) else 1)
    module = wired(wiring, channels, (shape[-2], shape[-1]))
    return Network(module, Grid(shape, levels), embedding or Scale(0.5, -0.7))


def residual(m: Wired, x: Tensor) -> Tensor:
    hidden = F.relu(m.first(x))
    hidden = hidden + m.norm(m.second(hidden))
    branch = m.point(hidden)
    branch += hidden
    return m.head(torch.add(torch.relu(branch), hidden, alpha=2))


FOUND: dict[str, tuple[Callable[[Wired, Tensor], Tensor], int]] = {
    "one convolution": (lambda m, x: m.head(m.first(x)), 1),
    "two convolutions": (lambda m, x: m.head(m.second(m.first(x).relu())), 2),
    "batch normalisation": (lambda m, x: m.head(F.gelu(m.norm(m.second(torch.tanh(m.first(x)))))), 2),
    "dilation": (lambda m, x: m.head(m.wide(m.first(x).sigmoid())), 3),
    "padding by name": (lambda m, x: m.head(m.same(F.silu(m.first(x)))), 2),
    "residual additions": (residual, 2),
    "addition by keyword": (lambda m, x: m.head(torch.add(m.point(m.first(x)), other=m.second(m.first(x)).relu())), 2),
    "a number added": (lambda m, x: m.head((m.first(x) + 0.3).relu()), 1),
    "mean": (lambda m, x: m.linear(m.first(x).relu().mean((2, 3))), 1),
    "mean of the last axes": (lambda m, x: m.linear(m.first(x).relu().mean(dim=[-1, -2])), 1),
    "mean that keeps": (lambda m, x: m.linear(m.first(x).relu().mean((2, 3), keepdim=True).flatten(1)), 1),
    "mean that keeps by position": (lambda m, x: m.linear(torch.flatten(m.first(x).relu().mean((2, 3), True), 1)), 1),
    "mean that does not keep": (lambda m, x: m.linear(m.first(x).relu().mean((2, 3), False)), 1),
    "mean by keyword": (lambda m, x: m.linear(torch.mean(input=m.first(x).relu(), dim=(2, 3))), 1),
    "pool by keyword": (lambda m, x: m.linear(m.average(input=m.first(x).relu()).flatten(1)), 1),
    "functional pool": (lambda m, x: m.linear(F.adaptive_avg_pool2d(m.first(x).relu(), 1).flatten(1)), 1),
    "in place": (lambda m, x: m.head(F.relu(m.norm(m.first(x)), inplace=True)), 1),
    "two linear layers": (lambda m, x: m.linear(m.middle(m.average(m.first(x).relu()).flatten(1))), 1),
    "squeeze": (lambda m, x: m.linear(m.average(m.first(x).relu()).squeeze(-1).squeeze(-1)), 1),
}

NOT_FOUND: dict[str, Callable[[Wired, Tensor], Tensor]] = {
    "max pooling and flatten": lambda m, x: m.flat(F.max_pool2d(m.first(x), 2).flatten(1)),
    "max pooling, then the average": lambda m, x: m.head(F.max_pool2d(m.first(x), 2)),
    "a global maximum": lambda m, x: m.linear(m.first(x).amax((2, 3))),
    "flatten": lambda m, x: m.flat(m.first(x).relu().flatten(1)),
    "a stride": lambda m, x: m.head(m.strided(m.first(x))),
    "padding around the edges": lambda m, x: m.head(m.wrapped(m.first(x))),
    "no padding": lambda m, x: m.head(m.bare(m.first(x))),
    "an oblong kernel": lambda m, x: m.head(m.oblong(m.first(x))),
    "a softmax over positions": lambda m, x: m.head(m.first(x).flatten(2).softmax(2).reshape(len(x), 4, 6, 7)),
    "a nonlinear head": lambda m, x: m.linear(F.relu(m.average(m.first(x)).flatten(1))),
    "a head that reads features": lambda m, x: m.head(m.first(x)) + m.flat(m.first(x).flatten(1)),
    "an average over one axis": lambda m, x: m.flat(m.first(x).mean(2).flatten(1)),
    "an average over channels": lambda m, x: m.flat(m.first(x).mean((1, 2))),
    "a parameter for each position": lambda m, x: m.head(m.first(x) + m.offset),
    "a gate from the average": lambda m, x: m.head(m.first(x) * m.average(m.first(x)).sigmoid()),
    "a mean added": lambda m, x: m.head((m.first(x) + m.average(m.first(x))).relu()),
}


def assert_exact_terms(field: Field, radius: int) -> None:
    """constant + sum of terms is the value; a coordinate changes terms within the radius, and some at it."""
    space = field.space
    assert isinstance(space, Grid)
    terms = field.require("terms")
    rows, columns = terms.grid
    assert (rows, columns) == space.shape[-2:]
    assert terms.radius == radius
    x = space.draw(6, seeded(3))
    level = space.to_levels(x)
    local, gradient = field.term_gradient(level)
    value = field.value(x)
    assert torch.allclose(local.sum(1) + terms.constant, value, rtol=1e-5, atol=1e-5)
    differentiated, level_gradient = field.level_gradient(level)
    assert torch.allclose(differentiated, value, rtol=1e-5, atol=1e-5)
    assert torch.allclose(gradient, level_gradient, rtol=1e-4, atol=1e-5)

    n = space.n_coordinates
    farthest = 0
    for row in range(3):
        changed = level[row].repeat(n, 1)
        changed[torch.arange(n), torch.arange(n)] = (level[row] + 1 + row) % space.levels
        after = field.term_gradient(changed)[0]
        place = torch.arange(rows * columns)
        distance = torch.maximum(
            (place[:, None] // columns - place // columns).abs(), (place[:, None] % columns - place % columns).abs()
        )
        felt = (after - local[row]).abs() > 1e-5 * local.abs().max()
        farthest = max(farthest, int((distance.repeat(n // (rows * columns), 1) * felt).max()))
    assert farthest == radius


@pytest.mark.parametrize("embedding", [Scale(0.5, -0.7), OneHot()], ids=["scale", "one-hot"])
@pytest.mark.parametrize("wiring", FOUND)
def test_terms_are_found_and_exact(wiring: str, embedding: Embedding) -> None:
    forward, radius = FOUND[wiring]
    found = network(forward, embedding=embedding)
    for field in (found.logit(1), found.margin(2, 0)):
        assert_exact_terms(field, radius)
    assert found.log_odds(1).terms is None, "a logarithm of a sum of exponentials of three outputs is no sum"


@pytest.mark.parametrize("embedding", [Scale(0.5, -0.7), OneHot()], ids=["scale", "one-hot"])
@pytest.mark.parametrize("shape", [(3, 5, 6), (2, 6, 5)])
def test_channels_of_a_colour_image_share_positions(shape: tuple[int, ...], embedding: Embedding) -> None:
    assert_exact_terms(network(FOUND["two convolutions"][0], shape, 3, embedding).logit(0), 2)


def test_a_plane_without_a_channel_axis() -> None:
    assert_exact_terms(network(FOUND["two convolutions"][0], (6, 7), 4, OneHot()).logit(0), 2)


@pytest.mark.parametrize("embedding", [Scale(0.5, -0.7), OneHot()], ids=["scale", "one-hot"])
@pytest.mark.parametrize("wiring", NOT_FOUND)
def test_what_is_not_proven_local_has_no_terms(wiring: str, embedding: Embedding) -> None:
    found = network(NOT_FOUND[wiring], embedding=embedding)
    field = found.logit(1)
    assert field.terms is None
    x = found.space.draw(5, seeded(1))
    level = found.space.to_levels(x)  # type: ignore[attr-defined]
    assert torch.allclose(field.level_gradient(level)[0], field.value(x), rtol=1e-5, atol=1e-5)


def test_statistics_of_the_batch_are_not_local() -> None:
    assert network(lambda m, x: m.head(m.batch_norm(m.first(x)))).logit(0).terms is None


def test_terms_of_all_512_images() -> None:
    found = network(FOUND["batch normalisation"][0], (1, 3, 3), 2, OneHot())
    field = found.logit(2)
    level = (torch.arange(512)[:, None] >> torch.arange(9)) & 1
    terms = field.term_gradient(level)[0]
    assert torch.allclose(terms.sum(1) + field.require("terms").constant, field.value(level.reshape(-1, 1, 3, 3)))


# ---------------------------------------------------------------------- folding


@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 6)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_first_convolution_becomes_a_table(shape: tuple[int, ...], bias: bool, kernel: int) -> None:
    layer = initialised(lambda: nn.Conv2d(4, 3, kernel, padding=kernel // 2, bias=bias), 0)
    module = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(90, 2)).eval()
    found = Network(module, Grid(shape, 4), OneHot())
    differences = found.logit(0).require("level_differences")
    assert differences.table.shape == (4, 3 * kernel**2)
    x = found.space.draw(8, seeded(2))
    planes = F.one_hot(x.reshape(-1, 5, 6), 4).permute(0, 3, 1, 2).float()
    assert torch.allclose(found.outputs(x), module(planes), atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
    ],
)
def test_other_convolutions_are_not_folded(layer: nn.Module) -> None:
    module = nn.Sequential(layer, nn.Flatten(), nn.Linear(120, 2)).eval()
    found = Network(module, Grid((1, 5, 6), 4), OneHot())
    assert found.logit(0).require("level_differences").table.shape == (4, 4)
    x = found.space.draw(8, seeded(2))
    planes = F.one_hot(x[:, 0], 4).permute(0, 3, 1, 2).float()
    assert torch.allclose(found.outputs(x), module(planes), atol=1e-5)


def test_an_input_read_twice_is_not_folded() -> None:
    found = network(lambda m, x: m.head(m.first(x) + x), embedding=OneHot())
    assert found.logit(0).require("level_differences").table.shape == (4, 4)
    assert_exact_terms(found.logit(0), 1)


# ---------------------------------------------------------------------- tracing


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1)

    def head(self, x: Tensor) -> Tensor:
        return self.layer(x).relu().mean((2, 3))


class ByValue(TwoBranches):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) if float(x.detach().sum()) > 0 else self.head(-x)


class ByOption(TwoBranches):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(x) if mask is not None else self.head(x).square()


class ByType(TwoBranches):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).square() if isinstance(x, Tensor) else self.head(x)


@pytest.mark.parametrize("kind", [ByValue, ByOption, ByType])
def test_code_that_cannot_be_followed_falls_back(kind: type[TwoBranches]) -> None:
    module = initialised(kind, 0).eval()
    found = Network(module, Grid((1, 5, 6), 4), Scale(0.5, -0.7))
    field = found.logit(0)
    assert field.terms is None
    x = found.space.draw(8, seeded(2))
    assert torch.allclose(found.outputs(x), module(x.float() * 0.5 - 0.7), atol=1e-6)
    level = found.space.to_levels(x)  # type: ignore[attr-defined]
    assert torch.allclose(field.level_gradient(level)[0], field.value(x), atol=1e-6)


def test_a_trace_has_one_input() -> None:
    assert locality.trace(nn.Linear(2, 1)) is not None
    assert locality.trace(ByOption()) is None
    assert locality.trace(ByValue()) is None
