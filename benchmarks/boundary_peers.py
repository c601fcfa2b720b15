"""Closest flips against the minimal-distance attacks of foolbox and adv-lib, in one run, forward and backward passes
counted.

    python benchmarks/boundary_peers.py --mnist mnist.npz [--weights DIR] [--images 100] [--out FILE]

`pip install foolbox adv-lib` beside Theodolite (adv-lib imports torchvision). The networks of `theodolite.zoo` are
trained on the bundled digits, or read from and kept in --weights; images are random ones of the test set of --mnist.
A peer's point counts if the answer there, or a hundred-thousandth of its distance farther out, is another class in
float64; ours must be exact. Peers get the settings of their papers or better; distances are L2.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from theodolite.instruments.homotopy import homotopy_starts
from theodolite.network import Network
from theodolite.outputs import Outputs
from theodolite.search.closest_flips import EFFORTS, closest_flips
from theodolite.search.flips import FLIP_TOLERANCE, Flips
from theodolite.zoo.flip_networks import FlipSubject, TunableErf, train_dense, train_erf, train_small_cnn

SEED = 4
BARS = {"784-200-200-10": (0.99, 0.98), "small CNN": (0.99, 0.98), "erf": (0.94, 0.91)}


class Counted(nn.Module):
    """Counts rows forward and rows backward through its outputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.n_units = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_units += len(x)
        output = self.module(x)
        if output.requires_grad:
            output.register_hook(self._backward)
        return output

    def _backward(self, gradient: Tensor) -> None:
        self.n_units += len(gradient)


@dataclass
class Case:
    """A network and the images its boundary is looked for from, with what both sides are measured by."""

    name: str
    network: Network
    module: nn.Module
    outputs: Outputs
    exact: Outputs
    x: Tensor
    own: Tensor
    reference: tuple[Tensor, Tensor]
    lines: list[str]

    def say(self, line: str) -> None:
        print(line, flush=True)
        self.lines.append(line)

    def ours(self, effort: str, starts: Tensor | None = None) -> Flips:
        begun = time.process_time()
        flips = closest_flips(
            self.outputs,
            self.exact,
            self.x.flatten(1),
            self.own,
            reference=self.reference,
            starts=starts,
            effort=effort,
            generator=torch.Generator().manual_seed(0),
        )
        seconds = (time.process_time() - begun) / len(self.x)
        units = flips.units.double()
        self.say(
            f"  {'ours, ' + effort:24s} mean {float(flips.distance.mean()):.5f}, found {share(flips.found)}, "
            f"units {float(units.mean()):.0f} (most {int(units.max())}), {1e3 * seconds:.0f} ms an image"
        )
        return flips

    def peer(self, name: str, attack: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> np.ndarray:
        """Distances ``(image,)``; inf where the attack failed."""
        torch.manual_seed(0)
        counted, begun = Counted(self.module).eval(), time.process_time()
        point = attack(counted, self.x, self.own).detach()
        seconds = (time.process_time() - begun) / len(self.x)
        way = (point - self.x).flatten(1).double()
        flipped = torch.zeros(len(way), dtype=torch.bool)
        for longer in (1.0, 1.0 + 1e-5):
            moved = (self.x.flatten(1).double() + longer * way).clamp(0, 1)
            flipped |= self.exact.value(moved).argmax(1) != self.own
        distance = torch.where(flipped, way.norm(dim=1), torch.inf)
        self.say(
            f"  {name:24s} mean {float(distance[flipped].mean()):.5f}, found {share(flipped)}, "
            f"units {counted.n_units / len(self.x):.0f}, {1e3 * seconds:.0f} ms an image"
        )
        return distance.numpy()


def share(which: Tensor) -> str:
    return f"{float(which.double().mean()):.0%}"


def foolbox_attack(name: str, **settings: object) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    import foolbox  # type: ignore[import-not-found]

    def run(module: nn.Module, x: Tensor, own: Tensor) -> Tensor:
        model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        attack = getattr(foolbox.attacks, name)(**settings)
        return attack.run(model, x, foolbox.criteria.Misclassification(own))

    return run


def adv_lib_attack(name: str, **settings: object) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    import adv_lib.attacks  # type: ignore[import-not-found]

    return lambda module, x, own: getattr(adv_lib.attacks, name)(module, x, own, **settings)


def other_peers() -> dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]]:
    """All but the DDN of equal units, well fed: their distances are compared image by image."""
    return {
        "adv-lib DDN 1000": adv_lib_attack("ddn", steps=1000, levels=None),
        "foolbox DeepFool 50": foolbox_attack("L2DeepFoolAttack", steps=50),
        "foolbox FMN 400": foolbox_attack("L2FMNAttack", steps=400),
        "adv-lib FMN 1000": adv_lib_attack("fmn", norm=2, steps=1000),
        "adv-lib FMN 1000 small": adv_lib_attack("fmn", norm=2, steps=1000, α_init=0.1),
        "adv-lib ALMA 400": adv_lib_attack("alma", num_steps=400),
        "adv-lib ALMA 1000": adv_lib_attack("alma", num_steps=1000),
        "adv-lib FAB 100": adv_lib_attack("fab", norm=2, n_iter=100),
    }


def check_exactness(case: Case, flips: Flips) -> None:
    x = case.x.flatten(1).double()
    found = flips.found
    behind = case.exact.value(flips.point[found]).argmax(1) != case.own[found]
    before = case.exact.value((x + (1 - 1e-5) * (flips.point - x))[found]).argmax(1) == case.own[found]
    residual = flips.residual[found]
    close = (residual >= 0) & (residual <= FLIP_TOLERANCE)
    case.say(
        f"  exactness: found {share(found)}; of these residual in [0, 1e-9] {share(close)} "
        f"(largest {float(residual.max()):.1e}), classes differ on the two sides {share(behind & before)}"
    )


def compare(case: Case, bars: tuple[float, float]) -> None:
    case.say(f"{case.name}: {len(case.x)} images")
    best = np.full(len(case.x), np.inf)
    ratios, ours = [], {}
    for effort in EFFORTS:
        flips = ours[effort] = case.ours(effort)
        steps = round(float(flips.units.double().mean()) / 2)
        rivals = {
            f"foolbox DDN {steps}": foolbox_attack("DDNAttack", steps=steps),
            f"adv-lib DDN {steps}": adv_lib_attack("ddn", steps=steps, levels=None),
        }
        means = []
        for name, attack in rivals.items():
            distance = case.peer(name, attack)
            best = np.minimum(best, distance)
            kept = np.isfinite(distance)
            means.append(float(flips.distance[torch.from_numpy(kept)].mean()) / float(distance[kept].mean()))
        ratios.append(f"{effort} {means[0]:.4f} (foolbox), {means[1]:.4f} (adv-lib)")
    for name, attack in other_peers().items():
        best = np.minimum(best, case.peer(name, attack))
    case.say(f"  mean distance / DDN at equal units: {'; '.join(ratios)}   [bar {bars[0]}, aim {bars[1]}]")
    for effort, flips in ours.items():
        ratio = flips.distance.numpy() / best
        case.say(
            f"  {effort}, image by image against the best of all peers: farther by > 0.1% on "
            f"{(ratio > 1.001).mean():.0%}, worst ratio {ratio.max():.4f}, nearer by > 0.1% on "
            f"{(ratio < 0.999).mean():.0%}   [bars 4%, 1.01; aims 0%, 1.001]"
        )
    check_exactness(case, ours["thorough"])


def compare_steep(case: Case) -> None:
    case.say(f"{case.name}: {len(case.x)} images")
    homotopy = homotopy_starts(case.network, case.x.flatten(1), case.own)
    case.say(f"  homotopy starts: units {float(homotopy.units.double().mean()):.0f}")
    fab = case.peer("adv-lib FAB 100", adv_lib_attack("fab", norm=2, n_iter=100))
    case.peer("adv-lib DDN 400", adv_lib_attack("ddn", steps=400, levels=None))
    kept = np.isfinite(fab)
    for effort in EFFORTS:
        flips = case.ours(effort, homotopy.point)
        distance = flips.distance.numpy()
        case.say(
            f"  {effort} / FAB-100: of means {distance[kept].mean() / fab[kept].mean():.3f}, of medians "
            f"{np.median(distance) / np.median(fab):.3f}   [bar .70, aim .60]"
        )
    check_exactness(case, flips)


def case_of(
    name: str, subject: FlipSubject, module: nn.Module, images: Tensor, n_images: int, lines: list[str]
) -> Case:
    network = Network(module, subject.space, classes=subject.classes, name=name)
    outputs, exact = network.all_outputs(), network.all_outputs(torch.float64)
    x = images if subject.wavelets is None else subject.wavelets.features(images).float()
    x = x.clamp(0, 1)[:n_images]
    known = subject.x_train.flatten(1)
    own = exact.value(x.flatten(1).double()).argmax(1)
    return Case(name, network, module, outputs, exact, x, own, (known, outputs.value(known).argmax(1)), lines)


def trained(train: Callable[..., FlipSubject], folder: Path | None, name: str) -> FlipSubject:
    file = None if folder is None else folder / f"{name}.safetensors"
    if file is not None and file.exists():
        return train(weights=file)
    subject = train()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        subject.save(file)
    return subject


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--only", choices=["dense", "cnn", "erf", "steep"], action="append")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with np.load(arguments.mnist) as file:
        x_test = file["x_test"]
    chosen = np.random.default_rng(SEED).permutation(len(x_test))[: arguments.images]
    images = torch.from_numpy(x_test[chosen]).reshape(-1, 1, 28, 28).float() / 255
    lines: list[str] = []
    wanted = arguments.only or ["dense", "cnn", "erf", "steep"]
    trainers = {"dense": train_dense, "cnn": train_small_cnn, "erf": train_erf}
    for name, train in trainers.items():
        if name not in wanted and not (name == "erf" and "steep" in wanted):
            continue
        subject = trained(train, arguments.weights, name)
        title = f"{subject.name} (test accuracy {subject.test_accuracy:.3f})"
        if name in wanted:
            compare(
                case_of(title, subject, subject.module, images, arguments.images, lines),
                BARS["erf" if name == "erf" else subject.name],
            )
        if name == "erf" and "steep" in wanted:
            for layer in subject.module:
                if isinstance(layer, TunableErf):
                    layer.sigma.mul_(0.3)
            title = f"{subject.name}, all sigmas x 0.3"
            compare_steep(case_of(title, subject, subject.module, images, arguments.images, lines))
    if arguments.out:
        arguments.out.write_text("\n".join((f"seed {SEED} of the choice of images", *lines)) + "\n")


if __name__ == "__main__":
    main()
