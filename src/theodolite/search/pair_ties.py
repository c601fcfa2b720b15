"""What must tie and what must stay below: the constraints of pair flips, meeting points and level points.

Equation 3 of Yousefzadeh and O'Leary 2019, 'Deep Learning Interpretation: Flip Points and Homotopy Methods', for many
rows at once, with its cost. Appendix E.3 (an output equals a value) is the tie of one output with a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.outputs import Outputs


@final
@dataclass
class Ties:
    """Rows of searches: outputs ``tied (row, m)`` int64 must equal a base, every other output must stay below it.

    The base is the output ``base (row,)`` int64; where that is -1 it is the number ``value (row,)``, and the other
    outputs are free. ``side (row,)`` is the sign of tied minus base on the far side. ``problem (row,)`` int64 is
    what the row works for, ``units (problem,)`` int64 counts forward and backward passes of each.
    """

    outputs: Outputs
    problem: Tensor
    base: Tensor
    tied: Tensor
    value: Tensor
    side: Tensor
    units: Tensor

    @property
    def n_tied(self) -> int:
        return self.tied.shape[1]

    def select(self, index: Tensor) -> Ties:
        """The rows of ``index``; their cost goes to the same problems."""
        return Ties(
            self.outputs,
            self.problem[index],
            self.base[index],
            self.tied[index],
            self.value[index],
            self.side[index],
            self.units,
        )

    def through(self, outputs: Outputs) -> Ties:
        """The same rows with other outputs, say of double precision."""
        return Ties(outputs, self.problem, self.base, self.tied, self.value, self.side, self.units)

    def outputs_at(self, x: Tensor) -> Tensor:
        """Outputs ``(row, n_outputs)`` of points ``(row, n)``; one unit each."""
        self.units.index_add_(0, self.problem, torch.ones_like(self.problem))
        return self.outputs.value(x)

    def gaps(self, output: Tensor) -> Tensor:
        """Tied minus base ``(row, m)``: 0 at the solution, positive on the far side."""
        return self.side.to(output)[:, None] * (output.gather(1, self.tied) - self._base_of(output)[:, None])

    def excesses(self, output: Tensor) -> Tensor:
        """Others minus base ``(row, n_outputs)``: negative at the solution; -inf where an output is no other."""
        excess = output - self._base_of(output)[:, None]
        excess = excess.scatter(1, self.tied, -torch.inf).scatter(1, self.base.clamp(min=0)[:, None], -torch.inf)
        return excess.masked_fill((self.base < 0)[:, None], -torch.inf)

    def rows_at(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and the gradients ``(row, m + s, n)`` of gaps and of ``other (row, s)`` minus base.

        Slots of ``other`` that hold -1 have gradients of 0 and cost nothing. One unit forward and one backward a
        gradient.
        """
        n_tied = self.n_tied
        other, place = other.sort(dim=1, descending=True, stable=True)
        n_others = (other >= 0).sum(1)
        output = x.new_empty((len(x), self.outputs.n_outputs))
        gradient = x.new_zeros((len(x), n_tied + other.shape[1], x.shape[1]))
        for count in n_others.unique().tolist():
            rows = (n_others == count).nonzero()[:, 0]
            part, wanted = self.select(rows), other[rows, :count]
            found, slopes = self.outputs.rows(x[rows], part._weights(wanted))
            output[rows] = found
            into = torch.cat((torch.arange(n_tied).expand(len(rows), -1), n_tied + place[rows, :count]), 1)
            gradient[rows[:, None], into] = slopes
            self.units.index_add_(0, part.problem, torch.full_like(rows, 1 + n_tied + count))
        return output, gradient

    def _weights(self, other: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def weights(output: Tensor, index: Tensor) -> Tensor:
            chosen = torch.cat((self.tied[index], other[index]), 1)
            weight = output.new_zeros((*chosen.shape, self.outputs.n_outputs))
            base = self.base[index, None].expand_as(chosen)[:, :, None]
            weight.scatter_(2, base.clamp(min=0), torch.where(base >= 0, -1.0, 0.0).to(weight))
            weight.scatter_add_(2, chosen[:, :, None], torch.ones_like(weight[:, :, :1]))
            weight[:, : self.n_tied] *= self.side[index, None, None].to(weight)
            return weight

        return weights

    def _base_of(self, output: Tensor) -> Tensor:
        of_class = output.gather(1, self.base.clamp(min=0)[:, None])[:, 0]
        return torch.where(self.base >= 0, of_class, self.value.to(output))
