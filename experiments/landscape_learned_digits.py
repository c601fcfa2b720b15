"""The landscape of a learned energy of digits, after Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into
High-Dimensional Image Spaces", section 5.3, Figures 16 and 17: prints the paper's value beside ours.

    python experiments/landscape_learned_digits.py mnist.npz [--seeds 0 1 2] [--noise 0.4] [--out DIR]
    python experiments/landscape_learned_digits.py mnist.npz --model DIR/energy.safetensors [--starts noise data]

Each seed learns its own energy (`Learning`, 500 images of each of 0 to 3 at 16 x 16), or all look at the one given. Of
each: whether a chain from a minimum keeps its digit for 5,000 steps (retention, against what two independent draws
would agree on); the map by `Landscape` alone, from the starts named; the purity of its basins, beside that of chance
(the same sizes, labels shuffled) and of k-means on the same minima with as many clusters, which is no worse: what a map
adds are barriers. **No label is looked at when alpha is chosen**: it is the least of `PULLS` at which a further
proposal would found a new basin with probability of at most `UNSEEN` (Good 1953: the share of basins of one member).
The map at the next two pulls is printed beside it. With `--out` a page of the two maps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import xarray
from scipy.stats import beta
from sklearn.cluster import KMeans
from torch import Tensor

import theodolite as th
from theodolite.instruments.barriers import pair_barriers
from theodolite.instruments.learning import Learning
from theodolite.instruments.proposals import Descent, Propose, from_generator, from_reference
from theodolite.learning.generators import load_generator
from theodolite.learning.langevin import LangevinSettings, adapted, langevin, start
from theodolite.learning.latent_energy import points_of
from theodolite.learning.model import EnergyModel, load_energy
from theodolite.learning.naming import name_points
from theodolite.zoo.pictures import Pictures, PictureSettings, pictures_from

CLASSES = ("0", "1", "2", "3")
PULLS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # alpha T in nats per unit of distance
UNSEEN = 0.03
CHAINS, STEPS, TUNING = 200, 5000, 200
OFTEN = 3  # members of a basin that was found more than by chance


def retention(model: EnergyModel, minima: Tensor, named, temperature: float, seed: int) -> str:
    """Share of chains whose point is of the same digit after `STEPS` steps, with its 95% interval, and chance."""
    generator = torch.Generator().manual_seed(seed)
    begun = time.process_time()
    energy = model.energy.requires_grad_(False)
    first = minima[:CHAINS].float()
    chains, step = start(energy, first), 0.05
    for _ in range(TUNING // 10):
        settings = LangevinSettings(step, temperature=temperature)
        chains, moves = langevin(energy, chains, settings, 10, generator)
        step = adapted(step, moves.acceptance, 0.3)
    settings = LangevinSettings(step, temperature=temperature)
    chains, moves = langevin(energy, chains, settings, STEPS, generator)
    before, after = named(first).numpy(), named(chains.point).numpy()
    n, kept = len(before), int((before == after).sum())
    low, high = beta.ppf(0.025, kept, n - kept + 1), beta.ppf(0.975, kept + 1, max(n - kept, 1e-9))
    chance = sum((before == k).mean() * (after == k).mean() for k in range(len(CLASSES)))
    spent = time.process_time() - begun
    return (
        f"T = {temperature:g}: {kept / n:.3f} [{low:.3f}, {high:.3f}], chance {chance:.3f} "
        f"(step {step:.3f}, {moves.acceptance:.0%} accepted, {spent:.0f} CPU s)"
    )


def purity(basin: np.ndarray, digit: np.ndarray) -> float:
    """Share of members that are of the commonest digit of their basin."""
    return sum(np.bincount(digit[basin == k]).max() for k in np.unique(basin)) / len(basin)


def unseen(survey: xarray.Dataset) -> float:
    """Good's estimate of the probability that a further proposal would found a new basin."""
    return float((survey.member_count.values == 1).sum() / survey.member_count.values.sum())


def mapped(model: EnergyModel, starts: Propose, label, pull: float, chosen: argparse.Namespace, seed: int):
    """The map at alpha T = ``pull``, and its CPU seconds."""
    begun = time.process_time()
    survey = th.Landscape(
        method="adelm",
        variant=chosen.variant,
        temperature=chosen.temperature,
        alpha=pull / chosen.temperature,
        proposals=chosen.proposals,
        improvement_limit=chosen.limit,
        barriers="string" if chosen.string else "linear",
        budget="2 h",
        seed=seed,
    ).measure(model.field(), propose=starts, label=label, picture=model.images, progress=False)
    return survey, time.process_time() - begun


def told(survey: xarray.Dataset, model: EnergyModel) -> str:
    """A map in one paragraph."""
    basin, digit = survey.basin.values, survey.member_label.values.astype(int)
    n, count = survey.sizes["minimum"], survey.member_count.values
    lowest = survey.minimum_label.values.astype(int)
    generator = np.random.default_rng(0)
    chance = np.mean([purity(basin, generator.permutation(digit)) for _ in range(50)])
    flat = survey.member_point.values.reshape(len(basin), -1)
    clusters = KMeans(n, n_init="auto", random_state=0).fit_predict(flat)
    often = np.isin(basin, np.flatnonzero(count >= OFTEN))
    text = (
        f"{n} basins ({int((count >= OFTEN).sum())} of {OFTEN} members or more, which hold {often.mean():.0%}), "
        f"digits among their lowest minima {sorted(set(lowest.tolist()))}\n"
        f"      purity {purity(basin, digit):.3f} (chance {chance:.3f}, k-means with as many "
        f"{purity(clusters, digit):.3f}); of the often found {purity(basin[often], digit[often]):.3f}; "
        f"unseen {unseen(survey):.1%}\n"
        f"      members of each {count.tolist()} of {lowest.tolist()}"
    )
    if n < 2:
        return text
    upper, energy = survey.barrier_upper_bound.values.copy(), survey.energy.values
    straight = pair_barriers(model.field(), torch.from_numpy(survey.minimum_point.values), "linear", torch.Generator())
    above = np.maximum(energy[:, None], energy[None])
    pairs = np.triu_indices(n, 1)
    np.fill_diagonal(upper, np.inf)
    nearest = lowest[upper.argmin(1)] == lowest
    weighted = (nearest * count).sum() / count.sum()
    return text + (
        f"\n      nearest basin over the lowest barrier is of the same digit: {nearest.mean():.2f} of basins, "
        f"{weighted:.2f} of members\n"
        f"      barriers above the higher minimum, median: {np.median((upper - above)[pairs]):.1f} nats by paths, "
        f"{np.median((straight.direct - above)[pairs]):.1f} straight"
    )


def learned(given: Pictures, chosen: argparse.Namespace, seed: int) -> EnergyModel:
    if chosen.model is not None:
        return load_energy(chosen.model)
    begun = time.process_time()
    components = None if chosen.pixels else "auto"
    settings = Learning(seed=seed, data_noise=chosen.noise, components=components, budget="1 h")
    model, survey = settings.fit(given.train, labels=given.labels, held_out=given.held_out, progress=False)
    print(f"  learned in {time.process_time() - begun:.0f} CPU s: {survey.verdict_sentence.values}")
    if chosen.out is not None:
        model.save(chosen.out / f"energy_{seed}.safetensors")
    return model


def look(chosen: argparse.Namespace, seed: int) -> None:
    settings = PictureSettings(n_train=2000, n_held_out=2000, classes=CLASSES, seed=seed)
    given = pictures_from(chosen.file, settings)
    if given.labels is None:
        raise SystemExit(f"{chosen.file} holds no labels")
    model = learned(given, chosen, seed)
    points = model.points(given.train)
    named = name_points(points, given.labels, model.data_noise, seed)

    def label(new: Tensor) -> list[str]:
        return [CLASSES[int(k)] for k in named(new)]

    starts: dict[str, Propose] = {"noise": from_reference(model)}
    inside = points.clamp(*model.space.bounds())
    starts["data"] = lambda n, generator: (inside[torch.randint(0, len(inside), (n,), generator=generator)], None)
    if chosen.generator is not None:
        network = load_generator(chosen.generator)
        to_point = points_of(model, network)
        starts["generator"] = from_generator(model.field(), lambda z: to_point(z.double()).float(), network.latent)

    generator = torch.Generator().manual_seed(seed)
    minima = Descent(model.field())(starts["noise"](max(CHAINS, chosen.proposals), generator)[0].double())[0]
    minima = minima[torch.randperm(len(minima), generator=generator)]
    counts = torch.bincount(named(minima), minlength=len(CLASSES)).tolist()
    print(f"  minima below noise: {counts} of 0, 1, 2, 3; retention of the digit over {STEPS:,} steps from them:")
    for temperature in (0.1, 0.3):
        print(f"    {retention(model, minima, named, temperature, seed)}", flush=True)

    for kind in chosen.starts:
        shown: list[xarray.Dataset] = []
        for pull in PULLS if chosen.pull is None else (chosen.pull, 2 * chosen.pull):
            survey, spent = mapped(model, starts[kind], label, pull, chosen, seed)
            enough = chosen.pull is not None or unseen(survey) <= UNSEEN
            head = f"    from {kind}, alpha T = {pull:g} ({spent:.0f} CPU s)"
            if enough or shown:
                print(f"{head}, {'coarser' if shown else 'chosen'}: {told(survey, model)}", flush=True)
                shown.append(survey)
            else:
                print(f"{head}: {survey.sizes['minimum']} basins, unseen {unseen(survey):.1%}", flush=True)
            if len(shown) == chosen.resolutions:
                break
        if chosen.out is not None and shown:
            print(f"    {th.report(shown, chosen.out / f'learned_digits_{kind}_{seed}.html')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="full MNIST: an .npz file or a folder of IDX files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", type=Path, help="energy.safetensors of an earlier run, instead of learning one")
    parser.add_argument("--noise", type=float, default=0.4, help="data noise of what is learned")
    parser.add_argument("--pixels", action="store_true", help="learn in all 256 pixels, not in principal components")
    parser.add_argument("--temperature", type=float, default=0.1, help="nats, of the trials")
    parser.add_argument("--proposals", type=int, default=200)
    parser.add_argument("--limit", type=int, default=100, help="M, steps without coming closer that end a trial")
    parser.add_argument("--variant", choices=("fast", "faithful"), default="fast")
    parser.add_argument("--pull", type=float, help="alpha T, instead of the rule")
    parser.add_argument("--resolutions", type=int, default=2, help="maps shown, at rising alpha")
    parser.add_argument("--starts", nargs="+", default=["noise"], choices=("noise", "data", "generator"))
    parser.add_argument("--generator", type=Path, help="of `save_generator`, for proposals")
    parser.add_argument("--straight", dest="string", action="store_false", help="no paths but straight ones")
    parser.add_argument("--out", type=Path, help="folder for the pages and the models")
    chosen = parser.parse_args()
    if "generator" in chosen.starts and chosen.generator is None:
        parser.error("--starts generator needs --generator")
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
    print(
        "the paper, Figure 17 (8 grey levels, a ConvNet): 0 and 3 one basin each, 1 two by its tilt, 2 three, two mixed"
    )
    for seed in chosen.seeds:
        print(f"seed {seed}", flush=True)
        look(chosen, seed)


if __name__ == "__main__":
    main()
