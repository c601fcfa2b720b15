"""The search on the constant that weighs a distortion against a loss: a bracket, then interpolation, row by row.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4.1, where the constant of the closest
adversarial example is found "by performing line-search"; Komati 2022, review, section 4: "bisection search or any
other method for one-dimensional optimization".
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

_LEAST_SHARE = 0.1  # of the bracket that each trial leaves on either side
_NARROWEST = 1e-4  # of a bracket, in the logarithm of the constant


@final
class ConstantSearch:
    """Row by row the largest ``constant`` ``(row,)`` whose minimiser is of the target class. Starts at ``first``
    ``(row,)``, moves by ``factor`` until it has one that fails and one that succeeds, then between the two, where the
    margin of the minimiser, over the logarithm of the constant, is expected to vanish.

    A row is ``done`` when its two ends differ by at most the share ``accuracy`` in distance, after ``n_constants``
    trials, or where no number is left between them.
    """

    def __init__(self, first: Tensor, factor: float, accuracy: float, n_constants: int) -> None:
        self.constant = first.double().clone()
        self._step, self._accuracy, self._n_constants = torch.tensor(factor).log().item(), accuracy, n_constants
        # Two ends, a row each: 0 has failed, 1 has succeeded.
        self._log = first.new_full((len(first), 2), torch.nan, dtype=torch.float64)
        self._margin, self._distance = self._log.clone(), self._log.clone()
        self._last = torch.full((len(first),), -1)
        self.n_trials = torch.zeros(len(first), dtype=torch.long)
        self.done = torch.zeros(len(first), dtype=torch.bool)

    def judge(self, row: Tensor, margin: Tensor, distance: Tensor) -> None:
        """Take the minimisers of the constants of the rows ``row (k,)``: the ``margin (k,)`` by which the target leads
        there (positive: success) and their ``distance (k,)``; choose the next constants."""
        end = (margin > 0).long()
        log = self.constant[row].log()
        self._log[row, end], self._margin[row, end], self._distance[row, end] = log, margin, distance
        self.n_trials[row] += 1
        ends, margins, distances = self._log[row], self._margin[row], self._distance[row]
        # Half the margin of an end that stays twice in a row, or interpolation would never move it.
        stays = self._last[row] == end
        other = margins.gather(1, 1 - end[:, None])
        margins.scatter_(1, 1 - end[:, None], torch.where(stays[:, None], other / 2, other))
        self._margin[row] = margins
        self._last[row] = end
        share = (margins[:, 0] / (margins[:, 0] - margins[:, 1])).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        between = ends[:, 0] + share * (ends[:, 1] - ends[:, 0])
        widened = log + torch.where(end == 1, self._step, -self._step)
        bracketed = between.isfinite()
        self.constant[row] = torch.where(bracketed, between, widened).exp()
        met = (distances[:, 1] - distances[:, 0]) <= self._accuracy * distances[:, 1]
        met |= (ends[:, 0] - ends[:, 1]).abs() <= _NARROWEST
        self.done[row] = (bracketed & met) | (self.n_trials[row] >= self._n_constants)
