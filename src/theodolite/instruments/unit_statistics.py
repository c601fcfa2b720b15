"""What the inputs that most excite a direction say of it, and whether a layer's own units say more than others.

Question: Szegedy et al. 2013, "Intriguing properties of neural networks", section 3 (Komati 2022, review, section 3):
are the inputs arg max <phi(x), e_i> of a unit more alike than the inputs arg max <phi(x), v> of a random direction?
The test is a rotation test (Langsrud 2005, "Rotation tests") with a p-value that is never zero (Phipson and Smyth
2010, "Permutation P-values should never be zero").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import ndtr, ndtri, stdtrit
from torch import Tensor

_RESAMPLES = 2000
_RESAMPLED_AT_ONCE = 2**22  # numbers held while resampling
_LEVEL = 0.95  # of every interval
_SAME = 1e-12  # means of whole numbers that differ by less are equal


@dataclass(frozen=True)
class Alike:
    """How alike the labels in sets of inputs are: ``purity``, ``entropy`` (nats) and ``label`` ``(direction, top)``."""

    purity: Tensor
    entropy: Tensor
    label: Tensor


@dataclass(frozen=True)
class PValue:
    """Of a statistic among the same one of other bases: at least as large, at most as large, and either (twice the
    lesser, at most 1). float64, the shape of the statistic."""

    more: Tensor
    less: Tensor
    either: Tensor


@dataclass(frozen=True)
class Estimate:
    """``value`` with its 95% interval, float64 of one shape."""

    value: Tensor
    low: Tensor
    high: Tensor


# ------------------------------------------------------------------ top sets


def top_inputs(projection: Tensor, k: int) -> Tensor:
    """``(direction, k)`` indices of the inputs that excite each direction most, largest first.

    ``projection (direction, input)``: <phi(x), v>. Adding a number to a row changes nothing, so neither does centring
    the activations.
    """
    return projection.topk(k, dim=1).indices


def resolved(projection: Tensor, k: int) -> Tensor:
    """``(direction,)`` bool: whether the k largest are a set of their own: the next one is less.

    A unit that is silent on all but a few inputs has no k most exciting ones: which of the silent fill its set would
    be chance, or the order of the file.
    """
    largest = projection.topk(k + 1, dim=1).values
    return largest[:, k - 1] > largest[:, k]


def alike(label: Tensor, top: Sequence[int]) -> Alike:
    """Of the labels ``(direction, rank)`` of inputs, most exciting first, the first k, for each k of ``top``.

    Purity: the share of the commonest label. Entropy: that of the labels in nats with the correction of Miller and
    Madow, (labels seen - 1) / 2k, without which small sets look purer than what they are drawn from; it can exceed
    ln(number of classes) a little. ``label``: the commonest, the first of several.
    """
    n_classes = int(label.max()) + 1
    purity, entropy, commonest = [], [], []
    for k in top:
        count = class_counts(label[:, :k], n_classes)
        share = count.double() / k
        largest = count.max(1)
        purity.append(largest.values.double() / k)
        entropy.append(-torch.special.xlogy(share, share).sum(1) + ((count > 0).sum(1) - 1).double() / (2 * k))
        commonest.append(largest.indices)
    return Alike(torch.stack(purity, 1), torch.stack(entropy, 1), torch.stack(commonest, 1))


def class_counts(label: Tensor, n_classes: int) -> Tensor:
    """Numbers ``(direction, class)`` of each label in rows ``(direction, rank)``."""
    count = torch.zeros((len(label), n_classes), dtype=torch.int64)
    return count.scatter_add_(1, label, torch.ones_like(label))


def random_basis(n: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix ``(n, n)`` float64 from Haar's measure: its columns are a random orthonormal basis.

    Mezzadri 2007, "How to generate random matrices from the classical compact groups": the signs of R's diagonal,
    without which QR is not uniform.
    """
    q, r = torch.linalg.qr(torch.randn((n, n), generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def random_directions(n: int, size: int, generator: torch.Generator) -> Tensor:
    """``(n, size)`` float64, uniform on the unit sphere."""
    drawn = torch.randn((n, size), generator=generator, dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


# ------------------------------------------------------------------ tests


def rotation_p_value(natural: Tensor, rotated: Tensor) -> PValue:
    """Of the statistic ``natural (...)`` of the units among that of random bases ``rotated (basis, ...)``.

    Null: activations and labels have the same joint distribution when the activations are rotated. Then the units'
    own basis, multiplied by any random rotation, is as random as each of the others, so that the statistics are
    exchangeable and the rank of the units' is uniform: p = (1 + b) / (1 + n) exactly, ties counted against it.
    """
    more = _p(rotated >= natural - _SAME)
    less = _p(rotated <= natural + _SAME)
    return PValue(more, less, (2 * torch.minimum(more, less)).clamp(max=1.0))


def exchange_p_value(first: Tensor, second: Tensor, n_permutations: int, generator: torch.Generator) -> PValue:
    """Of the difference of means of ``first (a, ...)`` and ``second (b, ...)``, rows exchanged at random.

    Null: which of the directions are called first is independent of their numbers. That all directions are
    exchangeable is an assumption: those of one basis are orthogonal to each other, which the test does not know.
    """
    pooled = torch.cat((first, second))
    n_first, n = len(first), len(pooled)
    total = pooled.sum(0)
    differences = []
    for _ in range(n_permutations):
        chosen = pooled[torch.randperm(n, generator=generator)[:n_first]].sum(0)
        differences.append(chosen / n_first - (total - chosen) / (n - n_first))
    return rotation_p_value(first.mean(0) - second.mean(0), torch.stack(differences))


def holm(p_value: Sequence[float]) -> list[float]:
    """The p-values adjusted for being several (Holm 1979): what is at most 0.05 holds for all of them together."""
    order = sorted(range(len(p_value)), key=lambda place: p_value[place])
    adjusted, largest = [0.0] * len(p_value), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_value) - rank) * p_value[place]))
        adjusted[place] = largest
    return adjusted


def _p(beyond: Tensor) -> Tensor:
    return (1 + beyond.sum(0).double()) / (1 + len(beyond))


# ------------------------------------------------------------------ effects and intervals


def exceeding(value: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """``(unit,)``: the probability that a draw of ``other (m,)`` with ``weight (m,)`` is less, equals counted half."""
    weight = weight.double() / weight.sum()
    below = (value[:, None] > other + _SAME).double() + 0.5 * ((value[:, None] - other).abs() <= _SAME).double()
    return below @ weight


def mean_estimate(score: Tensor, generator: torch.Generator) -> Estimate:
    """Mean over rows of ``score (row, ...)``, with the expanded percentile interval of a bootstrap over rows.

    Hesterberg 2015, "What Teachers Should Know about the Bootstrap", section 5.3: percentiles spread so that a mean of
    few normal values is covered as by Student's interval. NaN for fewer than two rows.
    """
    n = len(score)
    flat = score.flatten(1)
    value = flat.mean(0) if n else flat.new_full((flat.shape[1],), math.nan)
    if n < 2:
        unknown = torch.full_like(value, math.nan)
        return Estimate(
            value.reshape(score.shape[1:]), unknown.reshape(score.shape[1:]), unknown.reshape(score.shape[1:])
        )
    tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - _LEVEL) / 2)))
    means = []
    n_together = max(1, _RESAMPLED_AT_ONCE // n)
    for begin in range(0, _RESAMPLES, n_together):
        n_now = min(n_together, _RESAMPLES - begin)
        drawn = torch.randint(n, (n_now, n), generator=generator)
        times = torch.zeros((n_now, n), dtype=flat.dtype).scatter_add_(
            1, drawn, torch.ones_like(drawn, dtype=flat.dtype)
        )
        means.append(times @ flat / n)
    tails = torch.tensor([tail, 1 - tail], dtype=flat.dtype)
    low, high = torch.cat(means).quantile(tails, dim=0)
    shape = score.shape[1:]
    return Estimate(value.reshape(shape), low.reshape(shape), high.reshape(shape))


def share_estimate(hits: Tensor, trials: Tensor) -> Estimate:
    """Shares with Wilson's interval (Wilson 1927); NaN and 0 to 1 where there was no trial."""
    z = float(ndtri((1 + _LEVEL) / 2))
    n = trials.double()
    share = hits.double() / n
    middle = (hits.double() + z * z / 2) / (n + z * z)
    half = z * torch.sqrt((hits * (n - hits) / n.clamp(min=1.0) + z * z / 4).clamp(min=0.0)) / (n + z * z)
    return Estimate(share, (middle - half).clamp(min=0.0), (middle + half).clamp(max=1.0))
