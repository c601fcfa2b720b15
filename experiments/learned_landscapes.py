"""The steps that experiments on learned landscapes share: learn and judge, map by a rule that sees no label, tell.

After Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", section 5, and
Hill 2020 (PhD thesis, UCLA), section 5.2. **No label is looked at when alpha is chosen**: it is the least of the pulls
(alpha T, nats per unit of distance) at which a further proposal would found a new basin with probability of at most
`UNSEEN` (Good 1953: the share of basins of one member). Purity stands beside that of chance (the same sizes, labels
shuffled) and of k-means on the same members with as many clusters.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray
from scipy.stats import beta
from sklearn.cluster import KMeans
from torch import Tensor

import theodolite as th
from theodolite.field import Field
from theodolite.instruments.landscape_pictures import Picture
from theodolite.instruments.proposals import Propose
from theodolite.learning.model import EnergyModel, load_energy
from theodolite.learning.naming import name_points
from theodolite.zoo.pictures import Pictures

PULLS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # alpha T in nats per unit of distance, at T = .1
UNSEEN = 0.03
OFTEN = 3  # members of a basin that was found more than by chance


@dataclass(frozen=True)
class Rule:
    """How a learned energy is mapped: the same numbers for every energy that is compared.

    ``temperature`` in nats; ``pulls``: alpha T, tried as they rise; ``limit``: M; ``resolution``: delta (None: a
    quarter of the median distance between minima); ``minima`` and ``barriers`` as in `Landscape`;
    ``all_pulls``: a map at every pull, not only up to the one chosen; ``resolutions``: maps shown, from the chosen on.
    """

    temperature: float = 0.1
    pulls: Sequence[float] = PULLS
    proposals: int = 200
    limit: int = 100
    resolution: float | None = None
    minima: str = "descent"
    barriers: str = "string"
    variant: str = "fast"
    all_pulls: bool = False
    resolutions: int = 1


@dataclass(frozen=True)
class Mapped:
    """A map at one pull, its CPU seconds, and whether it is the one that the rule chose."""

    pull: float
    survey: xarray.Dataset
    seconds: float
    chosen: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that all these experiments have."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=2000, help="to learn from")
    parser.add_argument("--noise", type=float, default=0.4, help="data noise")
    parser.add_argument("--warm-updates", type=int, default=1500, help="of score matching")
    parser.add_argument("--updates", type=int, default=2000, help="of maximum likelihood")
    parser.add_argument("--long-steps", type=int, default=10_000, help="of the runs that judge; 0: no judging")
    parser.add_argument("--long-chains", type=int, default=400)
    parser.add_argument("--proposals", type=int, default=200)
    parser.add_argument("--limit", type=int, default=100, help="M, steps without coming closer that end a trial")
    parser.add_argument("--model", type=Path, help="an energy that --out kept, instead of learning one")
    parser.add_argument("--straight", action="store_true", help="barriers along straight paths only")
    parser.add_argument("--out", type=Path, help="folder for a report of each landscape, and the models")


def learned(given: Pictures, arguments: argparse.Namespace, seed: int, **settings) -> tuple[EnergyModel, str]:
    """An energy of ``given`` by `Learning`, and its verdict in words; ``settings``: further ones of `Learning`."""
    if arguments.model is not None:
        return load_energy(arguments.model), f"read from {arguments.model.name}"
    begun = time.process_time()
    asked = {
        "seed": seed,
        "data_noise": arguments.noise,
        "warm_updates": arguments.warm_updates,
        "updates": arguments.updates,
        "long_steps": arguments.long_steps,
        "long_chains": arguments.long_chains,
        "budget": "1 h",
    } | settings
    labels = {} if given.labels is None else {"labels": given.labels, "class_names": given.classes}
    held_out = given.held_out if len(given.held_out) > 1 else None
    model, survey = th.Learning(**asked).fit(given.train, held_out=held_out, progress=False, **labels)
    return model, f"learned in {time.process_time() - begun:.0f} CPU s: {survey.verdict_sentence.values}"


def namer(model: EnergyModel, given: Pictures, seed: int) -> tuple[Callable[[Tensor], list[str]] | None, str]:
    """Names of points by a classifier of the labelled images (None without labels), and how often it is right on a
    fifth of them that it did not see, without noise."""
    if given.labels is None or len(given.classes) < 2:
        return None, "no labels"
    points, few = model.points(given.train), len(given.train) // 5
    trial = name_points(points[few:], given.labels[few:], model.data_noise, seed)
    right = float((trial(points[:few]) == given.labels[:few]).double().mean())
    named = name_points(points, given.labels, model.data_noise, seed)
    return (lambda new: [given.classes[int(k)] for k in named(new)]), f"the naming classifier is right on {right:.1%}"


def maps(
    field: Field,
    picture: Picture,
    starts: Propose | None,
    label: Callable[[Tensor], list[str]] | None,
    rule: Rule,
    seed: int,
) -> list[Mapped]:
    """Maps by `Landscape` at rising pulls, until enough were seen; the last pull is chosen where none is enough.

    ``picture``: images of points; ``starts``: None draws them from the space.
    """
    made: list[Mapped] = []
    shown = 0
    for pull in rule.pulls:
        survey, seconds = mapped(field, picture, starts, label, pull, rule, seed)
        first = not shown and (unseen(survey) <= UNSEEN or pull == rule.pulls[-1])
        made.append(Mapped(pull, survey, seconds, first))
        shown += bool(shown or first)
        if shown >= rule.resolutions and not rule.all_pulls:
            break
    return made


def mapped(
    field: Field,
    picture: Picture,
    starts: Propose | None,
    label: Callable[[Tensor], list[str]] | None,
    pull: float,
    rule: Rule,
    seed: int,
) -> tuple[xarray.Dataset, float]:
    """The map at alpha T = ``pull``, and its CPU seconds."""
    begun = time.process_time()
    survey = th.Landscape(
        method="adelm",
        variant=rule.variant,
        temperature=rule.temperature,
        alpha=pull / rule.temperature,
        proposals=rule.proposals,
        improvement_limit=rule.limit,
        resolution=rule.resolution,
        minima=rule.minima,
        barriers=rule.barriers,
        budget="2 h",
        seed=seed,
    ).measure(field, propose=starts, label=label, picture=picture, progress=False)
    return survey, time.process_time() - begun


def each_seed(arguments: argparse.Namespace, claim: str, look: Callable[[argparse.Namespace, int], None]) -> None:
    """The paper's claim, then ``look(arguments, seed)`` for every seed asked for."""
    print(claim)
    for seed in arguments.seeds:
        print(f"seed {seed}", flush=True)
        look(arguments, seed)


# -------- figures of a map --------


def purity(basin: np.ndarray, label: np.ndarray) -> float:
    """Share of members that are of the commonest label of their basin."""
    numbers = np.unique(label, return_inverse=True)[1]
    return sum(np.bincount(numbers[basin == k]).max() for k in np.unique(basin)) / len(basin)


def purity_interval(basin: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """95% interval (Clopper and Pearson) of `purity`, the basins and their commonest labels taken as they are."""
    n = len(basin)
    kept = round(purity(basin, label) * n)
    low = beta.ppf(0.025, kept, n - kept + 1) if kept else 0.0
    return float(low), float(beta.ppf(0.975, kept + 1, n - kept)) if kept < n else 1.0


def chance_purity(basin: np.ndarray, label: np.ndarray) -> float:
    """Mean purity of basins of the same sizes with labels shuffled."""
    generator = np.random.default_rng(0)
    return float(np.mean([purity(basin, generator.permutation(label)) for _ in range(50)]))


def clusters(survey: xarray.Dataset, n: int) -> np.ndarray:
    """Which of ``n`` k-means clusters each member is in."""
    points = survey.member_point.values.reshape(survey.sizes["member"], -1)
    return KMeans(n, n_init="auto", random_state=0).fit_predict(points)


def unseen(survey: xarray.Dataset) -> float:
    """Good's estimate of the probability that a further proposal would found a new basin."""
    return float((survey.member_count.values == 1).sum() / survey.member_count.values.sum())


def often(survey: xarray.Dataset) -> int:
    """Basins of `OFTEN` members or more."""
    return int((survey.member_count.values >= OFTEN).sum())


def effective(survey: xarray.Dataset) -> float:
    """Number of basins that count: exp of the entropy of the members' shares."""
    share = survey.member_count.values / survey.member_count.values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def tree_told(survey: xarray.Dataset) -> str:
    """The tree in a line: how high its barriers are, whether it is one branch, and how many members lie above the
    barrier at which their basin merges (Hill 2020, section 5.2.2.5)."""
    n = survey.sizes["minimum"]
    if n < 2:
        return "one basin, no barriers"
    upper, energy = survey.barrier_upper_bound.values.copy(), survey.energy.values
    above = (upper - np.maximum(energy[:, None], energy[None]))[np.triu_indices(n, 1)]
    np.fill_diagonal(upper, np.inf)
    leaves = upper.min(1)
    over = float((survey.member_energy.values > leaves[survey.basin.values]).mean())
    combs = _lone_merges(survey.disconnectivity.values, n)
    return (
        f"barriers above the higher minimum {np.median(above):.1f} nats (median; deepest basin "
        f"{float((leaves - energy).max()):.1f}), energies of minima over {np.ptp(energy):.1f} nats; {combs:.0%} of "
        f"merges are of a lone basin (100%: one branch); {over:.0%} of members lie above their basin's barrier"
    )


def _lone_merges(merges: np.ndarray, n: int) -> float:
    """Share of the merges in which a basin that is alone takes part."""
    alone = (merges[:, :2] < n).any(1)
    return float(alone.mean())


def told(survey: xarray.Dataset) -> str:
    """A map in one paragraph: basins, purity beside chance and k-means, what is nearest, the tree."""
    n, count = survey.sizes["minimum"], survey.member_count.values
    text = (
        f"{n} basins ({often(survey)} of {OFTEN} members or more, effectively {effective(survey):.1f}); members of "
        f"each {count.tolist()}; unseen {unseen(survey):.1%}; {survey.verdict.values}"
    )
    if "member_label" in survey:
        basin, label = survey.basin.values, survey.member_label.values
        low, high = purity_interval(basin, label)
        by_chance, by_clusters = chance_purity(basin, label), purity(clusters(survey, n), label)
        lowest = survey.minimum_label.values
        met = {str(name): int((label == name).sum()) for name in np.unique(label)}
        text += (
            f"\n      purity {purity(basin, label):.3f} [{low:.3f}, {high:.3f}] (chance {by_chance:.3f}, k-means with "
            f"as many {by_clusters:.3f}); lowest minima are of {sorted(set(lowest.tolist()))}, members of {met}"
        )
        if len(met) == 1:
            text += " (all of one kind: the purity says nothing)"
        if n > 1:
            upper = survey.barrier_upper_bound.values.copy()
            np.fill_diagonal(upper, np.inf)
            same = lowest[upper.argmin(1)] == lowest
            text += f"\n      nearest basin over the lowest barrier is of the same kind: {same.mean():.2f} of basins, "
            text += f"{(same * count).sum() / count.sum():.2f} of members"
    return f"{text}\n      {tree_told(survey)}"


def shown(made: Sequence[Mapped], indent: str = "    ") -> None:
    """Print each map: those before the chosen in brief."""
    passed = False
    for each in made:
        passed = passed or each.chosen
        head = f"{indent}alpha T = {each.pull:g} ({each.seconds:.0f} CPU s)"
        if passed:
            print(f"{head}, {'chosen' if each.chosen else 'coarser'}: {told(each.survey)}", flush=True)
        else:
            n = each.survey.sizes["minimum"]
            print(f"{head}: {n} basins, {often(each.survey)} often found, unseen {unseen(each.survey):.1%}", flush=True)


def kept(made: Sequence[Mapped], model: EnergyModel, folder: Path | None, name: str) -> None:
    """The report of the chosen map and those after it, and the model, where a folder was given."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / f"{name}.safetensors")
    first = next(k for k, each in enumerate(made) if each.chosen)
    print(f"    {th.report([each.survey for each in made[first:]], folder / f'{name}.html')}", flush=True)
