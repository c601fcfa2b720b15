"""Ladder against `gwl` and `wang-landau` on one network in one run: levels reached and error, evaluations counted.

    python benchmarks/against_flat_histograms.py SURVEY.nc WEIGHTS.safetensors [--ladder 20000] [--times 10]

SURVEY.nc is a long ladder run (benchmarks/mnist_cnn.py --out), the reference; WEIGHTS are the network's. The ladder
surveys [-52, -6] with --ladder evaluations, the others get --times as many; errors are against the reference.
"""

import argparse

import numpy as np
import torch
import xarray
from safetensors.torch import load_file

from theodolite.embedding import OneHot
from theodolite.field import Field
from theodolite.instruments.density import Density
from theodolite.network import Network
from theodolite.run import Budget, Meter, drive
from theodolite.sampling.gradient_wang_landau import GradientWangLandau
from theodolite.sampling.wang_landau import WangLandau
from theodolite.space import Grid
from theodolite.zoo.networks import PaperCNN

LOW, HIGH = -52.0, -6.0


def reference_at(reference: xarray.Dataset, centres: np.ndarray) -> np.ndarray:
    """The reference's ln(number of inputs) at level centres, NaN where it has none."""
    known = reference.log_density_of_states.dropna("level")
    index = {round(float(level) * 2): float(value) for level, value in zip(known.level, known.values, strict=True)}
    return np.array([index.get(round(float(centre) * 2), np.nan) for centre in centres])


def compare(name: str, evaluations: int, centres: np.ndarray, density: np.ndarray, reference: xarray.Dataset) -> None:
    truth = reference_at(reference, centres)
    wanted = (centres > LOW) & (centres < HIGH) & np.isfinite(truth)
    reached = wanted & np.isfinite(density)
    # flat histograms know S up to a constant: aligned at the commonest level, where all know it best
    line = f"{name:28s} {evaluations:9d} evaluations, {reached.sum():3d} of {wanted.sum()} levels of [-52, -6]"
    if reached.any():
        deviation = np.abs(density - truth)[reached]
        line += f", deviation median {np.median(deviation):.1f}, largest {deviation.max():.1f} nats"
    print(line, flush=True)


def flat(field: Field, sampler, evaluations: int):
    generator = torch.Generator().manual_seed(0)
    field.evaluations = 0
    meter = Meter(Budget(evaluations=evaluations), lambda: field.evaluations)
    outcome = drive(sampler.step, sampler.init(generator), generator, meter=meter)
    return sampler.estimate(outcome.state), outcome.evaluations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("survey")
    parser.add_argument("weights")
    parser.add_argument("--ladder", type=int, default=20_000)
    parser.add_argument("--times", type=float, default=10.0)
    arguments = parser.parse_args()
    reference = xarray.open_dataset(arguments.survey, engine="h5netcdf").load()
    module = PaperCNN()
    module.load_state_dict(load_file(arguments.weights))
    field = Network(module, Grid((1, 28, 28), 256), OneHot(), classes=["0", "1"]).logit(1)
    digit = torch.as_tensor(reference.representative.values[-5, :1].astype(np.int64))
    survey = Density(
        seed=5, method="ladder", budget=f"{arguments.ladder} evaluations", level_width=1.0, low=LOW - 1, high=HIGH + 1
    ).measure(field, progress=False)
    compare("ladder", survey.attrs["evaluations"], survey.level.values, survey.log_density_of_states.values, reference)
    budget = int(arguments.times * arguments.ladder)
    runs = {
        "gwl (exponent 1, the paper's)": GradientWangLandau(field, digit, -100.5, 30.5),
        "gwl (exponent 1/2)": GradientWangLandau(field, digit, -100.5, 30.5, exponent=0.5),
        "wang-landau (flatness)": WangLandau(field, None, 1.0, n_walkers=1, schedule="flatness"),
    }
    for name, sampler in runs.items():
        found, evaluations = flat(field, sampler, budget)
        centres = 0.5 * (found.level_edges[1:] + found.level_edges[:-1])
        compare(name, evaluations, centres, found.log_density_of_states, reference)


if __name__ == "__main__":
    main()
