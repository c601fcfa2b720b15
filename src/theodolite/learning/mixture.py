"""The energy of a Gaussian mixture, whose density is known exactly: by it judges of learned energies are judged."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, register


@final
class MixtureEnergy(Energy):
    """-ln sum_k weight_k N(x; mean_k, covariance_k) / temperature, in nats, over points of n coordinates.

    ``weights (k,)``, ``means (k, n)``, ``covariances (k, n, n)``; at temperature 1 exp(-U) integrates to 1. It
    has no weights to learn. Raises UserError for weights that are not above 0, covariances that are not positive
    definite, and shapes that do not fit.
    """

    def __init__(self, weights: Any, means: Any, covariances: Any, temperature: float = 1.0) -> None:
        super().__init__()
        weight, mean, covariance = (
            torch.as_tensor(value, dtype=torch.float64) for value in (weights, means, covariances)
        )
        if mean.ndim != 2 or weight.shape != mean.shape[:1] or covariance.shape != (*mean.shape, mean.shape[1]):
            got = f"{tuple(weight.shape)}, {tuple(mean.shape)} and {tuple(covariance.shape)}"
            raise UserError("weights, means, covariances", "(k,), (k, n) and (k, n, n)", got, "match them")
        if not bool((weight > 0).all()) or not temperature > 0:
            raise UserError(
                "weights, temperature", "numbers above 0", f"{weight.tolist()}, {temperature}", "raise them"
            )
        root, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed.any()):
            got = f"{int((failed != 0).sum())} that are not"
            raise UserError("covariances", "positive definite matrices", got, "add a small multiple of the identity")
        n = mean.shape[1]
        self.shape = (n,)
        self.temperature = float(temperature)
        self.given = (weight / weight.sum(), mean, covariance)
        whiten = torch.linalg.solve_triangular(root, torch.eye(n, dtype=torch.float64).expand_as(root), upper=False)
        heights = self.given[0].log() - root.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * n * math.log(2 * math.pi)
        self.whiten: Tensor
        self.centre: Tensor
        self.height: Tensor
        self.register_buffer("whiten", whiten.reshape(-1, n).float())
        self.register_buffer("centre", torch.einsum("kij,kj->ki", whiten, mean).flatten().float())
        self.register_buffer("height", heights.float())

    def forward(self, x: Tensor) -> Tensor:
        return -torch.logsumexp(self._parts(x)[1], 1) / self.temperature

    @torch.no_grad()
    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        away, heights = self._parts(x)
        share = torch.softmax(heights, 1)
        slope = (away * share[:, :, None]).flatten(1) @ self.whiten
        return -torch.logsumexp(heights, 1) / self.temperature, slope / self.temperature

    def spec(self) -> dict[str, Any]:
        weight, mean, covariance = self.given
        return {
            "kind": "mixture",
            "weights": weight.tolist(),
            "means": mean.tolist(),
            "covariances": covariance.tolist(),
            "temperature": self.temperature,
        }

    def sample(self, n: int, generator: torch.Generator, less_noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """Exact draws ``(n, n_coordinates)`` float32 of the mixture at temperature 1, and their components ``(n,)``.

        ``less_noise``: draws to which Gaussian noise of that deviation must be added to have the mixture's law. Raises
        UserError where a covariance is not wider than that.
        """
        weight, mean, covariance = self.given
        narrower = covariance - less_noise**2 * torch.eye(mean.shape[1], dtype=torch.float64)
        root, failed = torch.linalg.cholesky_ex(narrower)
        if bool(failed.any()):
            raise UserError("less_noise", "less than every component's deviations", str(less_noise), "lower it")
        component = torch.multinomial(weight, n, replacement=True, generator=generator)
        normal = torch.randn(n, mean.shape[1], generator=generator, dtype=torch.float64)
        drawn = mean[component] + torch.einsum("nij,nj->ni", root[component], normal)
        return drawn.float(), component

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened differences ``(batch, k, n)`` and the components' log densities ``(batch, k)``, weights included."""
        away = (x @ self.whiten.t() - self.centre).reshape(len(x), len(self.height), -1)
        return away, self.height - 0.5 * away.square().sum(2)


register("mixture", MixtureEnergy)
