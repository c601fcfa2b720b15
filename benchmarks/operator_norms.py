"""How close proven operator norms come, and what they cost: 200 random small layers, and layers of AlexNet's size.

    python benchmarks/operator_norms.py [--threads 2]

Small layers (all strides, paddings, dilations, groups, odd sizes) against dense singular values; large ones have random
weights of AlexNet's shapes, since only their size matters for the time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import torch

from theodolite.instruments.bounds.norm_estimates import operator_norm
from theodolite.instruments.bounds.operator_norms import affine_norm, cholesky_norm, matrix_of, sums_norms, torus_norm

sys.path.insert(0, str(Path(__file__).parents[1]))

CONVOLUTIONS = ((3, 96, 11, 4, 2, 224), (96, 256, 5, 1, 2, 27), (256, 384, 3, 1, 1, 13), (384, 384, 3, 1, 1, 13),
                (384, 256, 3, 1, 1, 13))  # fmt: skip
DENSE = ((9216, 4096), (4096, 4096), (4096, 1000))


def small() -> None:
    """Estimates and bounds of random layers against the truth."""
    from tests.instruments.random_layers import random_layers

    worst, ratios = 0.0, {name: [] for name in ("reported", "torus", "Cholesky", "sums")}
    for node, matrix in random_layers():
        truth = float(torch.linalg.svdvals(matrix)[0])
        worst = max(worst, *(abs(operator_norm(node, "L2", whole=way).value / truth - 1) for way in (True, False)))
        column, row = sums_norms(node)
        ratios["reported"].append(affine_norm(node, "L2") / truth)
        ratios["Cholesky"].append(cholesky_norm(matrix_of(node)) / truth)
        ratios["sums"].append(math.sqrt(column * row) / truth)
        if node.kind == "convolution" and node.weight is not None:
            size, settings = node.input_shapes[0][1:], (node.stride, node.padding, node.dilation)
            ratios["torus"].append(torus_norm(node.weight, size, *settings, groups=node.groups) / truth)
    print(f"estimate against dense singular values: worst relative error {worst:.1e}")
    for name, values in ratios.items():
        below = sum(value < 1 for value in values)
        print(
            f"{name:9s} bound / norm: {len(values)} layers, {below} below, median {statistics.median(values):.4f}, "
            f"worst {max(values):.4f}"
        )


def large() -> None:
    """Time of the bounds of AlexNet's layers."""
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for n_in, n_out, kernel, stride, padding, side in CONVOLUTIONS:
        weight = torch.randn((n_out, n_in, kernel, kernel), generator=generator) / math.sqrt(n_in * kernel**2)
        start, used = time.perf_counter(), time.process_time()
        bound = torus_norm(weight, (side, side), (stride, stride), (padding, padding))
        seconds, used = time.perf_counter() - start, time.process_time() - used
        total += seconds
        print(
            f"{n_in}x{kernel}x{kernel}x{n_out} at {side}x{side}: bound {bound:.4f}, {seconds:.1f} s, CPU {used:.1f} s"
        )
    print(f"five convolutions: {total:.1f} s")
    for n_in, n_out in DENSE:
        weight = torch.randn((n_out, n_in), generator=generator) / math.sqrt(n_in)
        start, used = time.perf_counter(), time.process_time()
        bound = cholesky_norm(weight)
        print(
            f"{n_in}x{n_out}: bound {bound:.6f}, {time.perf_counter() - start:.1f} s, "
            f"CPU {time.process_time() - used:.1f} s"
        )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(arguments.parse_args().threads)
    small()
    large()
