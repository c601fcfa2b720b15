"""All 2^25 inputs of the 5x5 toy network, counted exactly, beside the plain module on a random sample of them.

    python benchmarks/enumerate_toy.py [--weights TOY.pt] [--threads 2] [--batch 1024] [--sample 200000] [--plain]

Bars: under 180 s on 2 cores; values equal to the plain module's to 1e-5. Without --weights (a state dict of
``zoo.networks.ToyCNN``) the network is trained first, untimed. --plain also times the module by itself on the sample,
in batches of the same size.
"""

import argparse
import time

import torch
from torch import nn

from theodolite.embedding import OneHot
from theodolite.network import Network
from theodolite.sampling.enumerate import Enumeration, fastest_values
from theodolite.space import Grid
from theodolite.zoo.datasets import bundled_digits, toy_images
from theodolite.zoo.networks import ToyCNN, initialised
from theodolite.zoo.training import PAPER_SETTINGS, train

SPACE = Grid((1, 5, 5), 2)
BAR_SECONDS = 180
BAR_DIFFERENCE = 1e-5


def toy_network(weights: str | None) -> nn.Module:
    module = initialised(ToyCNN, 0)
    if weights is not None:
        module.load_state_dict(torch.load(weights, weights_only=True))
    else:
        train(module, toy_images(bundled_digits()), PAPER_SETTINGS["CNN-Toy"])
    return module.eval()


def plain_values(module: nn.Module, index: torch.Tensor) -> torch.Tensor:
    bits = (index[:, None] >> torch.arange(25)) & 1
    planes = torch.stack([1 - bits, bits], 1).reshape(len(index), 2, 5, 5).float()
    with torch.no_grad():
        return module(planes)[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--sample", type=int, default=200_000)
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    module = toy_network(arguments.weights)
    field = Network(module, SPACE, embedding=OneHot(), classes=["0", "1"]).logit(1)

    sampler = Enumeration(field, bin_width=1.0, batch=arguments.batch)
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    state = sampler.init(generator)
    state, _ = sampler.step(state, generator)
    first = time.perf_counter() - began
    while not sampler.finished(state):
        state, _ = sampler.step(state, generator)
    seconds = time.perf_counter() - began
    estimate = sampler.estimate(state)
    print("bin  inputs")
    for edge, count in zip(estimate.level_edges, estimate.n_samples, strict=False):
        print(f"{edge:+4.0f} {count:9d}")
    print(f"{estimate.n_samples.sum()} of {2**25} inputs counted")
    print(
        f"{seconds:.1f} s (bar {BAR_SECONDS}), of which {first:.1f} s to fill the tables, {arguments.threads} threads"
    )
    print(f"{2**25 / seconds:,.0f} inputs/s")

    blocks = torch.randint(0, 2**25 // 1000, (arguments.sample // 1000,), generator=generator).tolist()
    values = fastest_values(field, arguments.batch)
    composed = torch.cat([values(1000 * block, 1000 * block + 1000) for block in blocks])
    plain = torch.cat([plain_values(module, torch.arange(1000 * block, 1000 * block + 1000)) for block in blocks])
    difference = float((composed - plain.double()).abs().max())
    print(f"largest difference to the plain module on {len(plain)} inputs: {difference:.2g} (bar {BAR_DIFFERENCE:g})")
    level, output = sampler.representatives(state)
    again = plain_values(module, (level * 2 ** torch.arange(25)).sum(1))
    print(
        f"{len(output)} representative inputs; largest difference: {float((output - again.double()).abs().max()):.2g}"
    )

    if arguments.plain:
        began = time.perf_counter()
        for index in torch.randint(0, 2**25, (arguments.sample,), generator=generator).split(arguments.batch):
            plain_values(module, index)
        rate = arguments.sample / (time.perf_counter() - began)
        print(f"plain module: {rate:,.0f} inputs/s, {2**25 / rate:.0f} s for all")


if __name__ == "__main__":
    main()
