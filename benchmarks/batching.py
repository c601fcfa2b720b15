"""Attraction-Diffusion in batches: Langevin steps per second at batch 4096 against batch 1 at its best setting.

    python benchmarks/batching.py [--seconds 5] [--batch 4096]

The same code on the same energy: an 8-64-64-1 SiLU network plus |x|^2 / 2 on Latent(8), trials drawn to the origin
that never arrive. Each batch runs with 1 and 2 threads and keeps the better. Bar: at least 50 times.
"""

import argparse
import time

import torch
from torch import nn

from theodolite.field import Field
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.space import Latent

BAR = 50.0


def test_energy() -> Field:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter.shape[-1], 8) ** 0.5)
    network.requires_grad_(False)
    return Field(Latent(8), lambda x: network(x)[:, 0] + 0.5 * x.square().sum(1), module=network)


def steps_per_second(field: Field, batch: int, threads: int, seconds: float) -> float:
    """Rows moved per second, over chunks of trials that end after a fixed number of steps."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(1)
    start = field.space.draw(batch, generator)
    n_steps = max(20, 300 // batch)
    diffusion = AttractionDiffusion(
        field, resolution=1e-4, step=0.1, largest_drift=0.01, improvement_limit=10**9, max_iterations=n_steps
    )
    diffusion.run_trials(start, torch.zeros_like(start), 1.0, 0.5, generator)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        steps += int(diffusion.run_trials(start, torch.zeros_like(start), 1.0, 0.5, generator).iterations.sum())
    return steps / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=4096)
    arguments = parser.parse_args()
    best = {}
    for batch in (1, arguments.batch):
        for threads in (1, 2):
            rate = steps_per_second(test_energy(), batch, threads, arguments.seconds)
            best[batch] = max(best.get(batch, 0.0), rate)
            print(f"batch {batch:5d}, {threads} threads: {rate:12,.0f} steps/s")
    ratio = best[arguments.batch] / best[1]
    print(f"{ratio:.0f} times (bar {BAR:.0f}: {'held' if ratio >= BAR else 'MISSED'})")


if __name__ == "__main__":
    main()
