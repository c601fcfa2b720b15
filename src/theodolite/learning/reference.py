"""What long runs are compared with: the noisy data, a way to tell their classes, and features of few dimensions.

The law that learning aims at is that of data plus Gaussian noise, so noise is drawn anew for every use. Classes are
told by a support vector machine trained on noisy labelled data or, without labels, by the nearest of the data's k-means
centres: a lost group of images shows either way, whatever its energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.bank import on_levels

_POINTS = 6000  # noisy points that stand for the training data, about
_TRAINED_ON = 3000  # noisy points that a classifier is trained on, at most
_FEATURES = 30  # principal components that the Frechet distance and the classes are told in, at most
_SMALL = 1024  # coordinates up to which their covariance is diagonalised
_PER_CLUSTER = 40  # images for a cluster, at least


@final
@dataclass(frozen=True)
class Classes:
    """``names`` of the classes; ``accuracy``: share of labelled noisy points kept apart that are told right, NaN for
    clusters. ``teller``: of scikit-learn, from features to positions in ``names``."""

    names: tuple[str, ...]
    accuracy: float
    teller: Any

    def of(self, features: np.ndarray) -> np.ndarray:
        """Positions ``(n,)`` in ``names`` of the points with ``features (n, k)``."""
        return np.asarray(self.teller.predict(features), dtype=np.int64)

    @property
    def labelled(self) -> bool:
        return not np.isnan(self.accuracy)


@final
@dataclass(frozen=True)
class Reference:
    """``points (n, *shape)``: training data without noise; ``noisy (m, *shape)``: with it, every point equally often,
    rounded to ``levels`` grey levels (None: real numbers).

    ``held_out (h, *shape)``: other data, noisy, or None. ``first`` and ``other``: rows of ``noisy`` that a Frechet
    distance is measured from, and with which a run's is compared where nothing is held out (two halves of the images).
    """

    points: Tensor
    data_noise: float
    noisy: Tensor
    held_out: Tensor | None
    classes: Classes
    point_class: Tensor
    noisy_class: np.ndarray
    mean: Tensor
    basis: Tensor
    first: np.ndarray
    other: np.ndarray
    levels: int | None = None

    @classmethod
    def of(
        cls,
        points: Tensor,
        data_noise: float,
        generator: torch.Generator,
        *,
        labels: Tensor | None = None,
        class_names: Sequence[str] = (),
        held_out: Tensor | None = None,
        n_clusters: int = 10,
        levels: int | None = None,
    ) -> Reference:
        """Of training data ``points (n, *shape)`` in the coordinates of an energy, which is learned from them with
        Gaussian noise of deviation ``data_noise``; ``labels (n,)`` whole numbers from 0, ``class_names`` theirs;
        without labels there are ``n_clusters`` at most.

        Raises UserError for fewer than two points, and labels of another number.
        """
        if len(points) < 2:
            raise UserError("points", "two or more", str(len(points)), "give more data")
        if labels is not None and tuple(labels.shape) != (len(points),):
            raise UserError("labels", f"{len(points)}, one a point", f"shape {tuple(labels.shape)}", "match them")
        repeats = max(1, round(_POINTS / len(points)))
        copies = points.repeat(repeats, *[1] * (points.ndim - 1))
        noisy = on_levels(_with_noise(copies, data_noise, generator), levels)
        held = None
        if held_out is not None and len(held_out):
            held = on_levels(_with_noise(held_out, data_noise, generator), levels)
        mean, basis = _principal(noisy, generator)
        features = ((noisy.flatten(1).double() - mean) @ basis).numpy()
        clean = ((points.flatten(1).double() - mean) @ basis).numpy()
        images = np.tile(np.arange(len(points)), repeats)
        order = torch.randperm(len(points), generator=generator).numpy()
        if labels is None or len(labels.unique()) < 2:
            classes = _clusters(clean, min(n_clusters, max(2, len(points) // _PER_CLUSTER)), generator)
            point_class = torch.as_tensor(classes.of(clean))
        else:
            point_class = labels.long()
            apart = np.isin(images, order[: len(points) // 3])
            classes = _labelled(features, point_class.numpy()[images], apart, class_names)
        half = np.isin(images, order[: len(points) // 2])
        everything = np.arange(len(noisy))
        return cls(
            points,
            data_noise,
            noisy,
            held,
            classes,
            point_class,
            classes.of(features),
            mean,
            basis,
            everything if held is not None else np.flatnonzero(half),
            everything[:0] if held is not None else np.flatnonzero(~half),
            levels,
        )

    def features(self, points: Tensor) -> np.ndarray:
        """Principal components ``(n, k)`` float64 of points ``(n, *shape)``."""
        return ((points.flatten(1).double() - self.mean) @ self.basis).numpy()

    def spread(self, n: int, generator: torch.Generator) -> Tensor:
        """``(n, *shape)`` noisy training points, spread over the classes as the data are: starts of long runs."""
        order = torch.randperm(len(self.points), generator=generator)
        order = order[self.point_class[order].argsort(stable=True)]
        places = ((torch.arange(n) + 0.5) * len(order) / n).long()
        return on_levels(_with_noise(self.points[order[places]], self.data_noise, generator), self.levels)

    def yardstick(self) -> Tensor:
        """Data that no run is made of, ``(m, *shape)``: held out, or else the second half of the training data."""
        return self.held_out if self.held_out is not None else self.noisy[self.other]


def _with_noise(points: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return points + deviation * torch.randn(points.shape, generator=generator, dtype=points.dtype)


def _principal(noisy: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    flat = noisy.flatten(1).double()
    mean = flat.mean(0)
    away = flat - mean
    if flat.shape[1] <= _SMALL:
        directions = torch.linalg.eigh(away.T @ away)[1].flip(1)
    else:
        some = away[torch.randperm(len(away), generator=generator)[:_SMALL]]
        values, vectors = torch.linalg.eigh(some @ some.T)
        known = values > 1e-9 * values[-1]
        directions = (some.T @ vectors[:, known] / values[known].sqrt()).flip(1)
    return mean, directions[:, :_FEATURES].contiguous()


def _clusters(clean: np.ndarray, n_clusters: int, generator: torch.Generator) -> Classes:
    """Of the data without noise, which would blur them."""
    from sklearn.cluster import KMeans

    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    teller = KMeans(min(n_clusters, len(clean)), n_init=4, random_state=seed).fit(clean)  # type: ignore[arg-type]
    return Classes(tuple(f"cluster {k + 1}" for k in range(teller.n_clusters)), float("nan"), teller)


def _labelled(features: np.ndarray, labels: np.ndarray, apart: np.ndarray, class_names: Sequence[str]) -> Classes:
    """Trained on noisy points that are not ``apart``, judged on those that are, which are of other images."""
    from sklearn.svm import SVC

    n_classes = int(labels.max()) + 1
    names = tuple(str(name) for name in class_names) or tuple(str(k) for k in range(n_classes))
    if len(names) < n_classes:
        raise UserError("class_names", f"{n_classes}, one a label", str(len(names)), "name every class")
    trained, tested = np.flatnonzero(~apart), np.flatnonzero(apart)
    trained = trained[:: max(1, len(trained) // _TRAINED_ON)]
    if len(np.unique(labels[trained])) < len(np.unique(labels)):
        trained = np.arange(len(labels))
    teller = SVC(C=3.0).fit(features[trained], labels[trained])
    return Classes(names, float((teller.predict(features[tested]) == labels[tested]).mean()), teller)
