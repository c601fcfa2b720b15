"""The landscape of digits over grey levels, learned by Gibbs sampling, after Hill, Nijkamp and Zhu 2019, "Building a
Telescope to Look Into High-Dimensional Image Spaces", section 5.3, Figures 17 and 19: prints the paper's claim beside
ours.

    python experiments/landscape_grey_digits.py mnist.npz [--images 500] [--updates 350] [--out DIR]
    python experiments/landscape_grey_digits.py mnist.npz --model DIR/grey_digits.safetensors [--starts noise generator]

The digits 0 to 3 at 16 x 16 pixels of 8 levels. An energy is learned (the recipe "gibbs", far smaller than the
paper's: an MLP, one sweep an update) and mapped in image space by `Landscape(method="adelm")`, from uniform white noise
("noise") and from a generator of 2 latent numbers fitted to the images ("generator"). The paper's T = 30 and alpha =
1.05 belong to its energy, whose scale is not given; here the temperature is in nats of the learned energy, and alpha is
the least of `PULLS` at which a further proposal would found a new basin with probability of at most `UNSEEN` (Good
1953: the share of basins of one member), without a look at any label. Purity is printed beside that of chance (labels
shuffled).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import xarray
from learned_landscapes import chance_purity, purity, unseen
from torch import Tensor

import theodolite as th
from theodolite.instruments.proposals import Propose, from_generator, from_space_and_data
from theodolite.learning.bank import NoisyData
from theodolite.learning.generator_fit import GeneratorSettings, fit_generator
from theodolite.learning.gibbs import LevelEnergy, gibbs_sweep
from theodolite.learning.model import EnergyModel, load_energy
from theodolite.learning.naming import name_points
from theodolite.learning.networks import network_generator
from theodolite.learning.recipes import recipe
from theodolite.zoo.pictures import Pictures, PictureSettings, pictures_from

CLASSES = ("0", "1", "2", "3")
PULLS = (2.0, 4.0, 8.0, 16.0, 32.0)  # alpha T in nats per level of Euclidean distance
UNSEEN = 0.1
LATENT = 2
QUENCH, COLD = 30, 0.02  # sweeps, and their temperature in nats


def told(survey: xarray.Dataset) -> str:
    """A map in a few lines."""
    basin, digit = survey.basin.values, survey.member_label.values.astype(int)
    chance = chance_purity(basin, digit)
    rows = [
        f"{survey.sizes['minimum']} basins; purity {purity(basin, digit):.2f} (chance {chance:.2f}), "
        f"unseen {unseen(survey):.0%}; {survey.verdict_sentence.item()}"
    ]
    for place in range(survey.sizes["minimum"]):
        counts = np.bincount(digit[basin == place], minlength=len(CLASSES)).tolist()
        rows.append(
            f"      basin {place}: lowest minimum {float(survey.energy[place]):.1f} nats, a "
            f"{survey.minimum_label.values[place]}; members {counts} of {', '.join(CLASSES)}"
        )
    return "\n".join(rows)


def quenched(model: EnergyModel, propose: Propose) -> Propose:
    """``propose`` after `QUENCH` cold Gibbs sweeps, as the paper finds its minima (Figure 18); without them a descent
    by single pixels from white noise asks for a million energies."""
    energy = model.energy
    if not isinstance(energy, LevelEnergy):
        raise SystemExit("the model is not over grey levels")

    def cold(n: int, source: torch.Generator) -> tuple[Tensor, Tensor | None]:
        points, latent = propose(n, source)
        level = points.long()
        for _ in range(QUENCH):
            level, _ = gibbs_sweep(energy, level, source, COLD)
        return level, latent

    return cold


def learned(given: Pictures, chosen: argparse.Namespace) -> EnergyModel:
    if chosen.model is not None:
        return load_energy(chosen.model)
    settings = {**recipe("gibbs"), "updates": chosen.updates, "data_noise": chosen.noise}
    learning = th.Learning(seed=chosen.seed, budget="1 h", **settings)
    begun = time.process_time()
    model, survey = learning.fit(
        given.train, labels=given.labels, class_names=given.classes, held_out=given.held_out, progress=False
    )
    print(f"learned in {time.process_time() - begun:.0f} CPU s: {survey.verdict_sentence.item()}", flush=True)
    if chosen.out is not None:
        model.save(chosen.out / "grey_digits.safetensors")
        th.report(survey, chosen.out / "grey_digits.html")
    return model


def generator_proposals(model: EnergyModel, images: Tensor, seed: int) -> Propose:
    """Draws of a generator fitted to the images, on the nearest levels."""
    network = network_generator(LATENT, NoisyData(images, 0.0), seed)
    source = torch.Generator().manual_seed(seed)
    fitted = fit_generator(network, images, GeneratorSettings(updates=500, start="principal"), source).network
    return from_generator(model.field(), lambda latent: model.points(fitted(latent)).float(), LATENT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="full MNIST: an .npz file or a folder of IDX files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="grey_digits.safetensors of an earlier run, instead of learning one")
    parser.add_argument("--images", type=int, default=500, help="learned from; the paper has 2,000")
    parser.add_argument("--updates", type=int, default=350)
    parser.add_argument("--noise", type=float, default=0.3, help="data noise, in grey values from -1 to 1")
    parser.add_argument("--starts", nargs="+", default=["noise", "generator"], choices=("noise", "generator", "data"))
    parser.add_argument("--temperature", type=float, default=0.5, help="nats, of the trials")
    parser.add_argument("--pull", type=float, help="alpha T, instead of the rule")
    parser.add_argument("--proposals", type=int, default=40, help="the papers' are thousands")
    parser.add_argument("--limit", type=int, default=20, help="M, sweeps without coming closer that end a trial")
    parser.add_argument("--out", type=Path, help="folder for the pages and the model")
    chosen = parser.parse_args()
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
    given = pictures_from(chosen.file, PictureSettings(n_train=chosen.images, classes=CLASSES, seed=chosen.seed))
    if given.labels is None:
        raise SystemExit(f"{chosen.file} holds no labels")
    print("the paper, from noise (Figure 17): 0 and 3 one basin each, 1 two by its tilt, 2 three, and two of no digit")
    print("the paper, from a generator (Figure 19): all basins but one are recognisable digits, the same groups")
    model = learned(given, chosen)
    model.requires_grad_(False)
    points = model.points(given.train)
    named = name_points(points.float(), given.labels, model.data_noise, chosen.seed)
    starts: dict[str, Propose] = {
        "noise": from_space_and_data(model.field(), None),
        "data": lambda n, source: (points[torch.randint(0, len(points), (n,), generator=source)], None),
    }
    if "generator" in chosen.starts:
        starts["generator"] = generator_proposals(model, given.train, chosen.seed)
    for kind in chosen.starts:
        for pull in PULLS if chosen.pull is None else (chosen.pull,):
            field, begun = model.field(), time.process_time()
            survey = th.Landscape(
                method="adelm",
                variant="fast",
                temperature=chosen.temperature,
                alpha=pull / chosen.temperature,
                norm="L2",
                proposals=chosen.proposals,
                improvement_limit=chosen.limit,
                barriers="greedy",
                budget="1 h",
                seed=chosen.seed,
            ).measure(
                field,
                propose=quenched(model, starts[kind]),
                label=lambda new: [CLASSES[int(k)] for k in named(new)],
                picture=model.images,
                progress=False,
            )
            spent = time.process_time() - begun
            print(f"  from {kind}, alpha T = {pull:g} ({spent:.0f} CPU s, {field.evaluations:,} energies): ", end="")
            if chosen.pull is None and unseen(survey) > UNSEEN:
                print(f"{survey.sizes['minimum']} basins, unseen {unseen(survey):.0%}", flush=True)
                continue
            print(told(survey), flush=True)
            if chosen.out is not None:
                th.report(survey, chosen.out / f"landscape_grey_digits_{kind}.html")
            break


if __name__ == "__main__":
    main()
