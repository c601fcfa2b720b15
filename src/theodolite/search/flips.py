"""Flip points as they are found: a row an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

FLIP_TOLERANCE = 1e-9  # of the residual, in logits: design of Yousefzadeh and O'Leary 2019, eq. 3, made one-sided


@final
@dataclass
class Flips:
    """``point (image, n)`` float64 on the far side (NaN: none found), ``distance (image,)`` float64 in the norm of
    the search (inf: none found), ``target (image,)`` int64 the class there (-1: none), ``residual (image,)`` float64
    output of the target minus that of the own class, in [0, 1e-9], ``units (image,)`` int64 forward and backward
    passes spent."""

    point: Tensor
    distance: Tensor
    target: Tensor
    residual: Tensor
    units: Tensor

    @property
    def found(self) -> Tensor:
        """``(image,)`` bool."""
        return torch.isfinite(self.distance)

    def select(self, index: Tensor) -> Flips:
        """The rows of ``index``."""
        return Flips(
            self.point[index], self.distance[index], self.target[index], self.residual[index], self.units[index]
        )


def no_flips(n_images: int, n_coordinates: int) -> Flips:
    """Nothing found yet."""
    return Flips(
        torch.full((n_images, n_coordinates), torch.nan, dtype=torch.float64),
        torch.full((n_images,), torch.inf, dtype=torch.float64),
        torch.full((n_images,), -1, dtype=torch.int64),
        torch.full((n_images,), torch.nan, dtype=torch.float64),
        torch.zeros(n_images, dtype=torch.int64),
    )


def nearer(one: Flips, other: Flips) -> Flips:
    """Row by row the nearer of two searches for the same images; the units of both are added."""
    first = one.distance <= other.distance
    return Flips(
        torch.where(first[:, None], one.point, other.point),
        torch.where(first, one.distance, other.distance),
        torch.where(first, one.target, other.target),
        torch.where(first, one.residual, other.residual),
        one.units + other.units,
    )
