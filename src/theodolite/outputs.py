"""All outputs of a network over the continuous hull of its space, with their gradients: what boundaries are made of.

Points are flat here, ``(batch, n)`` in input units, so that searches need not know shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from theodolite.errors import FieldError, UserError


@final
class Outputs:
    """``function`` maps points ``(batch, *shape)`` to outputs ``(batch, n_outputs)``; ``low`` and ``high`` ``(n,)``
    float64 bound the hull of the space (infinite where it has no edge).

    ``n_units`` counts forward and backward passes, one a row each, as Rony et al. 2019 count the cost of an attack.
    ``dtype`` is that of points, outputs and gradients.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        low: Tensor,
        high: Tensor,
        n_outputs: int,
        *,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 1024,
        name: str = "outputs",
    ) -> None:
        self._function = function
        self.shape = tuple(shape)
        self.low, self.high = low.to(torch.float64), high.to(torch.float64)
        self.n_outputs = n_outputs
        self.dtype = dtype
        self.batch_size = batch_size
        self.name = name
        self.n_units = 0

    @property
    def n_coordinates(self) -> int:
        """Length of a flat point."""
        return len(self.low)

    def changed(self, change: Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]) -> Outputs:
        """Outputs of ``change(function)`` over the same points, with a count of their own."""
        return Outputs(
            change(self._function),
            self.shape,
            self.low,
            self.high,
            self.n_outputs,
            dtype=self.dtype,
            batch_size=self.batch_size,
            name=self.name,
        )

    def value(self, x: Tensor) -> Tensor:
        """Outputs ``(batch, n_outputs)`` of points ``(batch, n)``: one unit a row. What is not finite is left so."""
        self.n_units += len(x)
        with torch.no_grad():
            parts = [self._run(part) for part in self._split(x)]
        return torch.cat(parts) if parts else x.new_zeros((0, self.n_outputs), dtype=self.dtype)

    def gradient(self, x: Tensor, weight: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Outputs ``(batch, n_outputs)`` and gradients ``(batch, n)`` of one weighted sum of them: two units a row.

        ``weight(outputs of a part, index of its rows in x) -> (part, n_outputs)``, held fixed in the derivative, so
        that a margin can choose its class after the forward pass.
        """
        output, rows = self.rows(x, lambda z, index: weight(z, index)[:, None])
        return output, rows[:, 0]

    def rows(self, x: Tensor, weights: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Outputs ``(batch, n_outputs)`` and Jacobian rows ``(batch, r, n)``: gradients of r weighted sums of outputs.

        ``weights(outputs of a part, index of its rows in x) -> (part, r, n_outputs)``. One unit forward and r
        backward a row.
        """
        outputs, gradients = [], []
        index = torch.arange(len(x), device=x.device)
        for part, rows in zip(self._split(x), index.split(self.batch_size), strict=True):
            leaf = part.detach().to(self.dtype).requires_grad_(True)
            with torch.enable_grad():
                output = self._run(leaf)
            chosen = weights(output.detach(), rows)
            n_rows = chosen.shape[1]
            gradients.append(
                torch.stack(
                    [self._backward(output, leaf, chosen[:, row], retain=row + 1 < n_rows) for row in range(n_rows)],
                    1,
                )
            )
            outputs.append(output.detach())
            self.n_units += (1 + n_rows) * len(part)
        if not outputs:
            raise UserError("x", "at least one point", "none", "leave empty batches out")
        return torch.cat(outputs), torch.cat(gradients)

    def _backward(self, output: Tensor, leaf: Tensor, weight: Tensor, *, retain: bool) -> Tensor:
        (found,) = torch.autograd.grad(output, leaf, weight.to(output.dtype), retain_graph=retain, allow_unused=True)
        return torch.zeros_like(leaf) if found is None else found

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.ndim != 2 or x.shape[1] != self.n_coordinates:
            raise UserError("x", f"points (batch, {self.n_coordinates})", f"{tuple(x.shape)}", "flatten each point")
        return x.split(self.batch_size) if len(x) else ()

    def _run(self, x: Tensor) -> Tensor:
        output = self._function(x.to(self.dtype).reshape(len(x), *self.shape))
        if output.shape != (len(x), self.n_outputs):
            raise FieldError(
                self.name, f"outputs ({len(x)}, {self.n_outputs})", f"{tuple(output.shape)}", "give one vector a point"
            )
        return output.to(self.dtype)
