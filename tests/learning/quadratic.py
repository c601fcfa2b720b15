"""A family of energies whose best member is known, and data for it."""

import torch

from theodolite.learning.bank import NoisyData
from theodolite.learning.energy import Energy


class Quadratic(Energy):
    """sum_k exp(log_precision_k) (x_k - mean_k)^2 / 2: the family of axis-parallel Gaussians."""

    def __init__(self, n):
        super().__init__()
        self.shape = (n,)
        self.log_precision = torch.nn.Parameter(torch.zeros(n))
        self.mean = torch.nn.Parameter(torch.zeros(n))

    def forward(self, x):
        return 0.5 * (self.log_precision.exp() * (x - self.mean).square()).sum(1)

    def value_and_gradient(self, x):
        with torch.no_grad():
            return self(x), self.log_precision.exp() * (x - self.mean)

    def spec(self):
        return {"kind": "quadratic"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian_data(noise=0.5):
    scale, centre = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 0.0, -1.0])
    return NoisyData(centre + scale * torch.randn((4000, 3), generator=generator(2)), noise)
