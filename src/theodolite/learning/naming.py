"""Names for points of a learned energy: a classifier of labelled, noisy data, which has no part in what is learned."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from theodolite.errors import UserError

_COPIES = 4  # of each point, each with noise of another strength
_MOST_POINTS = 20_000
_WIDTH = 128


def name_points(points: Tensor, labels: Tensor, noise: float, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A function of points ``(n, *shape)`` that gives the label of each, ``(n,)`` int64.

    It is a small network of scikit-learn's, trained on ``points (n, *shape)`` with ``labels (n,)`` and Gaussian noise
    of strengths from 0 to ``noise``: it names minima, which carry no noise, and samples alike. Raises UserError where
    there are fewer than two labels, or not one a point.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    if labels.shape != points.shape[:1] or len(labels.unique()) < 2:
        got = f"{tuple(labels.shape)} labels, {len(labels.unique())} different, of {len(points)} points"
        raise UserError("labels", "one label a point, of at least two kinds", got, "leave the labels out")
    generator = torch.Generator().manual_seed(seed)
    few = torch.randperm(len(points), generator=generator)[: _MOST_POINTS // _COPIES]
    flat, y = points[few].flatten(1).double().repeat(_COPIES, 1), labels[few].repeat(_COPIES)
    strength = noise * torch.rand((len(flat), 1), generator=generator, dtype=torch.float64)
    flat = flat + strength * torch.randn(flat.shape, generator=generator, dtype=torch.float64)
    centre = flat.mean(0)
    scale = (flat - centre).square().mean().sqrt().clamp(min=1e-12)  # one for all: small coordinates stay small
    network = MLPClassifier((_WIDTH,), max_iter=40, random_state=seed, alpha=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(((flat - centre) / scale).numpy(), y.numpy())

    def named(new: Tensor) -> Tensor:
        return torch.from_numpy(network.predict(((new.flatten(1).double() - centre) / scale).numpy())).long()

    return named
