"""What training makes of flip points: which inputs shaped a network, and flip points as new training data.

Training is a function ``train(inputs, labels, seed) -> module`` that the caller gives; an instrument trains nothing.
Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", sections 5 and
6.1 (Figure 4; from 98.2% to 98.6%).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray
from scipy import stats
from torch import Tensor, nn

from theodolite.errors import UserError

Train = Callable[[Tensor, Tensor, int], nn.Module]
SUBSETS = ("closest", "random", "farthest")


@dataclass(frozen=True)
class SyntheticGain:
    """Accuracies on test data, a seed each: ``before (seed,)`` without and ``after (seed,)`` with flip points among
    the training data; ``gain``, ``low``, ``high``: the mean difference and its 95% interval (paired, Student's t; NaN
    of one seed); ``n_added`` flip points."""

    before: np.ndarray
    after: np.ndarray
    gain: float
    low: float
    high: float
    n_added: int


def influence(
    train: Train,
    images: Tensor,
    labels: Tensor,
    distances: Tensor,
    test: tuple[Tensor, Tensor],
    sizes: Sequence[int],
    n_trials: int = 5,
    seed: int = 0,
) -> xarray.Dataset:
    """Figure 4: accuracy of networks trained on the inputs closest to their flip points, on random ones and on the
    farthest.

    ``images (n, *shape)``, ``labels (n,)``, ``distances (n,)`` to their flip points (infinite where none is known:
    the farthest), ``test``: inputs and labels. Trial t of every subset trains with seed ``seed + t``; random subsets
    are drawn anew each trial. Returns ``accuracy (subset, size, trial)`` and ``mean``, ``low``, ``high`` ``(subset,
    size)``: the 95% interval over trials, which speaks of training seeds and, for random subsets, of the draw. Raises
    UserError where the lengths differ or a size is not in 1..n.
    """
    _same_length(labels, images, "labels")
    _same_length(distances, images, "distances")
    n = len(images)
    wrong = [size for size in sizes if not 1 <= size <= n]
    if wrong or not len(sizes):
        raise UserError("sizes", f"numbers of inputs in 1..{n}", str(list(sizes)), "leave larger ones out")
    if n_trials < 1:
        raise UserError("n_trials", "at least 1", str(n_trials), "train at least once")
    if bool(torch.isnan(distances).any()):
        raise UserError("distances", "numbers or infinity", "NaN", "give inf where no flip point is known")
    rising = torch.argsort(distances, stable=True)
    accuracy = np.empty((len(SUBSETS), len(sizes), n_trials))
    for trial in range(n_trials):
        shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed + trial))
        for place, size in enumerate(sizes):
            subsets = {"closest": rising[:size], "random": shuffled[:size], "farthest": rising[n - size :]}
            for row, name in enumerate(SUBSETS):
                # In the data's own order: subsets of one membership are one training set.
                chosen = subsets[name].sort().values
                module = train(images[chosen], labels[chosen], seed + trial)
                accuracy[row, place, trial] = accuracy_of(module, *test)
    mean, low, high = _interval(accuracy)
    dims = ("subset", "size")
    return xarray.Dataset(
        {"accuracy": ((*dims, "trial"), accuracy), "mean": (dims, mean), "low": (dims, low), "high": (dims, high)},
        {"subset": list(SUBSETS), "size": list(sizes)},
    )


def synthetic(
    train: Train,
    images: Tensor,
    labels: Tensor,
    flip_points: Tensor,
    flip_labels: Tensor,
    test: tuple[Tensor, Tensor],
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
) -> SyntheticGain:
    """Accuracy before and after flip points join the training data, over the same seeds.

    ``flip_points (m, *shape)`` with ``flip_labels (m,)``: in section 6.1 those of mistakes, under the right label, in
    section 5 those of right answers, under the answer. Points that are not finite are left out. Raises UserError where
    lengths or shapes differ or no seed is given.
    """
    _same_length(labels, images, "labels")
    _same_length(flip_labels, flip_points, "flip_labels")
    if flip_points.shape[1:] != images.shape[1:]:
        expected = f"points of shape {tuple(images.shape[1:])}"
        raise UserError("flip_points", expected, f"{tuple(flip_points.shape[1:])}", "reshape them")
    if not len(seeds):
        raise UserError("seeds", "at least one", "none", "give the seeds of the trainings")
    known = torch.isfinite(flip_points.flatten(1)).all(1)
    more_images = torch.cat([images, flip_points[known].to(images.dtype)])
    more_labels = torch.cat([labels, flip_labels[known].to(labels.dtype)])
    before = np.array([accuracy_of(train(images, labels, seed), *test) for seed in seeds])
    after = np.array([accuracy_of(train(more_images, more_labels, seed), *test) for seed in seeds])
    gain, low, high = (float(figure) for figure in _interval(after - before))
    return SyntheticGain(before, after, gain, low, high, int(known.sum()))


def accuracy_of(module: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of ``inputs (n, *shape)`` that a module gives their label; one output z stands for the classes (0, z)."""
    with torch.no_grad():
        output = torch.cat([module(part) for part in inputs.split(1024)])
    output = output.reshape(len(inputs), -1)
    predicted = (output[:, 0] > 0).long() if output.shape[1] == 1 else output.argmax(1)
    return float((predicted == labels).double().mean())


def _interval(value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the last axis and its 95% interval by Student's t; NaN of a single value."""
    n = value.shape[-1]
    mean = value.mean(-1)
    if n < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stats.t.ppf(0.975, n - 1) * value.std(-1, ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


def _same_length(value: Tensor, other: Tensor, argument: str) -> None:
    if len(value) != len(other):
        raise UserError(argument, f"{len(other)}, one a point", str(len(value)), "match them")
