"""Landscapes of a texture at four scales, after Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into
High-Dimensional Image Spaces", section 5.4, Figures 3 and 26 to 28 (also Hill 2020, PhD thesis, UCLA, section
5.2.2.4): prints the paper's claim beside ours.

    python experiments/landscape_textures.py brick.png [--scales 8 24 72 216] [--together] [--seeds 0 1 2] [--out DIR]

The paper learned one energy (with a generator) of 1,000 patches of ivy from each of four scales and mapped it: patches
of scale 1, mostly of one colour, form a few strong basins; scale 2 accounts for most basins; scales 3 and 4, beyond
what people can tell apart, are one region each with little substructure. Here windows of any image file (or of a
texture that scikit-image ships: brick, grass, gravel) of `--scales` pixels a side are brought to 16 x 16. Each scale
has an energy of its own, and all are mapped by one rule at the same temperature and pulls (`learned_landscapes`), so
that numbers of basins can be compared at equal alpha and at the alpha that the rule chooses; with `--together` one
energy learns all four scales as in the paper, and basins are counted by the scale that most of their members are of.
`--equal` brings every window to one mean and contrast: without it a flat grey, the mean image, is often the densest of
all, and the only minimum.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from learned_landscapes import Mapped, Rule, add_arguments, effective, kept, learned, maps, namer, often, shown
from torch import Tensor

from theodolite.instruments.proposals import from_reference
from theodolite.learning.model import EnergyModel
from theodolite.zoo.pictures import TEXTURES, Pictures, PictureSettings, pictures_from, zoo_pictures

CLAIM = (
    "the paper: scale 1 a few strong basins, scale 2 most of all basins, scales 3 and 4 one region each with little "
    "substructure"
)

LEAST_CONTRAST = 1 / 255


@dataclass(frozen=True)
class Row:
    """What is told of a scale: its verdict, the standard deviation of its windows, and the maps."""

    patch: int
    verdict: str
    contrast: float
    made: list[Mapped]


def windows(source: str, patches: tuple[int, ...], arguments: argparse.Namespace, seed: int) -> Pictures:
    settings = PictureSettings(n_train=arguments.images, n_held_out=400, patches=patches, seed=seed)
    return zoo_pictures(source, settings) if source in TEXTURES else pictures_from(source, settings)


def of_equal_contrast(given: Pictures) -> Pictures:
    """Each window about a mean of 0 with a standard deviation of .5, so that a flat grey is no longer among them."""

    def scaled(images: Tensor) -> Tensor:
        centred = images - images.mean((1, 2, 3), keepdim=True)
        deviation = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
        return 0.5 * centred / deviation.clamp(min=LEAST_CONTRAST)

    return Pictures(scaled(given.train), scaled(given.held_out), given.labels, given.classes, given.source)


def energy(given: Pictures, arguments: argparse.Namespace, seed: int) -> tuple[EnergyModel, str]:
    model, verdict = learned(given, arguments, seed, components=arguments.components)
    spread = float((given.train - given.train.mean(0)).square().mean().sqrt())
    print(f"    {verdict}\n    contrast of the windows {spread:.2f} (noise {arguments.noise:g})", flush=True)
    return model, verdict


def apart(arguments: argparse.Namespace, rule: Rule, seed: int) -> None:
    """One energy a scale."""
    rows: list[Row] = []
    for patch in arguments.scales:
        given = windows(arguments.source, (patch,), arguments, seed)
        if arguments.equal:
            given = of_equal_contrast(given)
        print(f"  windows of {patch} pixels, {len(given.train):,} of them", flush=True)
        model, verdict = energy(given, arguments, seed)
        made = maps(model.field(), model.images, from_reference(model, model.points(given.train)), None, rule, seed)
        shown(made)
        kept(made, model, arguments.out, f"texture_{Path(arguments.source).stem}_{patch}_{seed}")
        contrast = float((given.train - given.train.mean(0)).square().mean().sqrt())
        rows.append(Row(patch, verdict.partition(": ")[2], contrast, made))
    print(f"  {CLAIM}\n  ours, basins (of 3 members or more; effectively), at each alpha T and at the rule's choice:")
    pulls = sorted({each.pull for row in rows for each in row.made})
    for row in rows:
        by_pull = {each.pull: each for each in row.made}
        cells = [_cell(by_pull[pull]) if pull in by_pull else "-" for pull in pulls]
        chosen = next(each for each in row.made if each.chosen)
        table = ", ".join(f"{pull:g}: {cell}" for pull, cell in zip(pulls, cells, strict=True))
        print(
            f"    {row.patch:4d} pixels, contrast {row.contrast:.2f}: {table}; chosen {chosen.pull:g}: "
            f"{_cell(chosen)}; {row.verdict.partition(':')[0]}",
            flush=True,
        )


def together(arguments: argparse.Namespace, rule: Rule, seed: int) -> None:
    """One energy of all scales, as in the paper."""
    given = windows(arguments.source, tuple(arguments.scales), arguments, seed)
    if arguments.equal:
        given = of_equal_contrast(given)
    print(f"  windows of all scales, {len(given.train):,} of them", flush=True)
    model, _ = energy(given, arguments, seed)
    label, words = namer(model, given, seed)
    print(f"    {words}")
    made = maps(model.field(), model.images, from_reference(model, model.points(given.train)), label, rule, seed)
    shown(made)
    kept(made, model, arguments.out, f"texture_{Path(arguments.source).stem}_together_{seed}")
    print(f"  {CLAIM}\n  ours, basins by the scale of most of their members:")
    for each in made:
        basins, members = Counter[str](), Counter[str]()
        basin, scale = each.survey.basin.values, each.survey.member_label.values
        for k in range(each.survey.sizes["minimum"]):
            basins[Counter(scale[basin == k].tolist()).most_common(1)[0][0]] += 1
        members.update(scale.tolist())
        told = ", ".join(f"{name}: {basins[name]} ({members[name]} members)" for name in given.classes)
        print(f"    alpha T = {each.pull:g}{' (chosen)' if each.chosen else ''}: {told}", flush=True)


def _cell(each: Mapped) -> str:
    return f"{each.survey.sizes['minimum']} ({often(each.survey)}; {effective(each.survey):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source", help=f"an image file, or one of {', '.join(TEXTURES)} where scikit-image is installed"
    )
    parser.add_argument("--scales", type=int, nargs="+", default=[8, 24, 72, 216], help="pixels of a window's side")
    parser.add_argument("--together", action="store_true", help="one energy of all scales")
    parser.add_argument("--equal", action="store_true", help="every window of one mean and contrast")
    parser.add_argument("--components", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=0.1, help="nats, of the trials")
    parser.add_argument("--pulls", type=float, nargs="+", default=[0.35, 0.7, 1.4, 2.8], help="alpha T")
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.model is not None and not arguments.together and len(arguments.scales) > 1:
        parser.error("--model is of one scale: name it by --scales, or give --together")
    print(CLAIM)
    rule = Rule(
        temperature=arguments.temperature,
        pulls=sorted(arguments.pulls),
        proposals=arguments.proposals,
        limit=arguments.limit,
        barriers="linear" if arguments.straight else "string",
        all_pulls=True,
    )
    for seed in arguments.seeds:
        begun = time.process_time()
        print(f"seed {seed}", flush=True)
        (together if arguments.together else apart)(arguments, rule, seed)
        print(f"  {time.process_time() - begun:.0f} CPU s in all", flush=True)


if __name__ == "__main__":
    main()
