"""The paper's CNN on MNIST-0/1 over its whole input space, from noise, black and digit starts.

    python benchmarks/mnist_cnn.py MNIST.npz [--budget "10 min"] [--seed 0] [--out survey_folder]

MNIST.npz is a full MNIST file (x_train, y_train, x_test, y_test). The network is trained to the paper's accuracy.
"""

import argparse
from pathlib import Path

import numpy as np
from verdict_text import print_verdict

from theodolite.embedding import OneHot
from theodolite.instruments.density import Density
from theodolite.network import Network
from theodolite.report.page import write_report
from theodolite.space import Grid
from theodolite.zoo import datasets, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist")
    parser.add_argument("--budget", default="10 min")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    digits = datasets.mnist(arguments.mnist, classes=(0, 1))
    module, digits, trained = training.demo_classifier(seed=0, digits=digits)
    print(f"test accuracy {trained.test_accuracy:.4f} (paper 0.978)")
    field = Network(module, Grid((1, 28, 28), 256), OneHot(), classes=["0", "1"], name="PaperCNN").logit(1)
    data = {f"test: {k}": digits.x_test[digits.y_test == k] for k in (0, 1)}
    survey = Density(seed=arguments.seed, budget=arguments.budget, level_width=1.0, target_error=0.5).measure(
        field, data
    )
    print_verdict(survey)
    density, error = survey.log_density_of_states.values, survey.log_density_error.values
    share = density - survey.attrs["log_volume"]
    known = np.flatnonzero(np.isfinite(share))
    for level in known[:: max(1, len(known) // 16)]:
        print(f"  {survey.level.values[level]:8.1f}  ln share {share[level]:10.2f} +- {error[level]:.2f}")
    print(
        f"{survey.attrs['evaluations']} evaluations in {survey.attrs['seconds']:.0f} s, {survey.sizes['rung']} rungs, "
        f"{survey.sizes['ladder']} ladders; largest standard error {np.nanmax(error):.2f} nats, median "
        f"{np.nanmedian(error):.2f}; levels {survey.level.values[known[0]]:g} to {survey.level.values[known[-1]]:g}"
    )
    if arguments.out is not None:
        arguments.out.mkdir(parents=True)
        survey.to_netcdf(arguments.out / "density.nc", engine="h5netcdf")
        write_report(survey, arguments.out / "report.html")


if __name__ == "__main__":
    main()
