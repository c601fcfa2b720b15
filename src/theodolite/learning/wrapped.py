"""Energies made of other modules: one divided by half a squared step, and any network of one output.

Source: Hill 2020 (PhD thesis, UCLA), eqs. 3.2-3.5.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Sequence
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, Evaluator, Spec, build, by_autograd, register

_FACTORIES: dict[str, Any] = {}
_TOLERANCE = 1e-3  # between a row alone and in a batch, of the spread of the values


@final
class ScaledEnergy(Energy):
    """U = F / (step_size^2 / 2) of the energy F (eq. 3.2): a Langevin step of ``step_size`` follows the slope of F
    itself (eq. 3.3). Raises UserError for a step that is not above 0."""

    def __init__(self, inner: Energy, step_size: float) -> None:
        super().__init__()
        if not (math.isfinite(step_size) and step_size > 0):
            raise UserError("step_size", "a finite number above 0", repr(step_size), "give the step of the chains")
        self.inner, self.step_size = inner, float(step_size)
        self.factor = 2.0 / self.step_size**2
        self.shape = inner.shape

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.inner(x)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.inner.value_and_gradient(x)
        return self.factor * value, self.factor * gradient

    def evaluator(self, n: int, dtype: torch.dtype) -> Evaluator:
        inner = self.inner.evaluator(n, dtype)

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = inner(x)
            return self.factor * value, self.factor * gradient

        return evaluate

    def spec(self) -> Spec:
        return {"kind": "scaled", "inner": self.inner.spec(), "step_size": self.step_size}


@final
class ModuleEnergy(Energy):
    """A copy of ``module``, always in eval mode, that gives one number, in nats, for each point of ``shape``.

    ``factory``, "pkg.mod:function", makes such a module anew: only with it can the energy be saved, and only where the
    caller has said `allow_factory` can it be read, since files must not choose what code runs. Raises UserError where
    the module does not give one finite number a row, or a row's number depends on the other rows.
    """

    def __init__(self, module: nn.Module, shape: Sequence[int], factory: str | None = None) -> None:
        super().__init__()
        self.shape = tuple(int(n) for n in shape)
        self.module = copy.deepcopy(module).eval()
        self.factory = factory
        self._check()

    def train(self, mode: bool = True) -> Self:
        """Marks the energy, but leaves the module in eval mode: batch statistics would make rows depend on others."""
        super().train(mode)
        self.module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).reshape(len(x))

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return by_autograd(self, x)

    def spec(self) -> Spec:
        if self.factory is None:
            raise UserError(
                "energy", "a module with a factory", type(self.module).__name__, 'give factory="pkg.mod:function"'
            )
        return {"kind": "module", "shape": list(self.shape), "factory": self.factory}

    def _check(self) -> None:
        weight = next((p for p in self.module.parameters() if p.is_floating_point()), torch.empty(()))
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((4, *self.shape), generator=generator).to(weight)
        name = type(self.module).__name__
        try:
            with torch.no_grad():
                found = self.module(x)
        except (RuntimeError, ValueError, IndexError) as error:
            got = f"{name}: {str(error).splitlines()[0]}"
            raise UserError(
                "energy", f"a module of points (n, {_words(self.shape)})", got, "give it its shape"
            ) from error
        if not isinstance(found, Tensor) or found.shape not in {(4,), (4, 1)}:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError("energy", "one number for each of 4 points", f"{got} of {name}", "give it one output")
        if not bool(found.isfinite().all()):
            raise UserError("energy", "finite numbers", f"others at points in [0, 1] from {name}", "check its weights")
        with torch.no_grad():
            alone = torch.cat([self.module(row[None]).reshape(1) for row in x])
        whole = found.reshape(4)
        spread = max(float(whole.max() - whole.min()), float(whole.abs().max()), 1e-6)
        if float((alone - whole).abs().max()) > _TOLERANCE * spread:
            remedy = "take out what mixes rows, such as statistics of the batch"
            raise UserError("energy", "rows that do not influence each other", f"{name}, whose do", remedy)


def allow_factory(factory: str) -> None:
    """Let saved energies name ``factory``, "pkg.mod:function", which is imported now and called when one is read.

    Raises UserError where there is no such function.
    """
    module, _, name = factory.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError("factory", "pkg.mod:function", f"{factory}: {error}", "check its spelling") from error
    _FACTORIES[factory] = found


def _from_factory(shape: Sequence[int], factory: str) -> ModuleEnergy:
    if factory not in _FACTORIES:
        remedy = f'call theodolite.learning.wrapped.allow_factory("{factory}") first, if you trust it'
        raise UserError("energy", "a factory that was allowed", factory, remedy)
    return ModuleEnergy(_FACTORIES[factory](), shape, factory)


def _words(shape: Sequence[int]) -> str:
    return ", ".join(str(n) for n in shape)


register("scaled", lambda inner, step_size: ScaledEnergy(build(inner), step_size))
register("module", _from_factory)
