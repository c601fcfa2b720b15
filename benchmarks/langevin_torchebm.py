"""Langevin steps beside torchebm 0.8.9: the same networks, weights, batches, steps and numbers of steps, turn about.

    python benchmarks/langevin_torchebm.py --torchebm PYTHON [--rounds 9] [--only NAME ...]

PYTHON is the interpreter of an environment that has the peer, apart from this one:

    python -m venv torchebm-env && torchebm-env/bin/pip install torch==2.13.0 torchebm==0.8.9 numpy

Set OMP_NUM_THREADS=1. Both run in processes of their own that stay alive and take turns; a round times the same number
of steps, of the processor, in each, and gives one ratio. torchebm moves by its LangevinDynamics (Euler and Maruyama,
without correction) on the network as an `nn.Sequential`; ours moves without correction, so that both compute the same,
and beside that with correction. "products" are the matrix products of a step alone (MLPs): what no arrangement in
single precision gets under, and so the largest ratio that there could be.
First both must have the same slopes, and sample the same density: means and variances of a quadratic well and a small
MLP within 4 standard errors of each other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

NETWORKS = {
    "2-128-128-1": ((2,), (128, 128)),
    "40-192-192-1": ((40,), (192, 192)),
    "256-256-256-1": ((256,), (256, 256)),
}
IMAGES = {
    "conv 16x16": ("conv", (1, 16, 16), (64, 256)),
    "conv 3x32x32": ("conv", (3, 32, 32), (64,)),
    "deepframe 3x32x32": ("deepframe", (3, 32, 32), (64,)),
}
BATCHES = (64, 256, 1024)
STEP = 0.02  # epsilon; torchebm's step is half its square


def weights_of(name: str) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> tuple[Tensor, Tensor]:
        fan = int(torch.Size(shape[1:]).numel())
        return torch.randn(shape, generator=generator) / fan**0.5, 0.1 * torch.randn(shape[0], generator=generator)

    return [drawn(*shape) for shape in shapes_of(name)]


def shapes_of(name: str) -> list[tuple[int, ...]]:
    if name in NETWORKS or name == "check":
        shape, widths = NETWORKS.get(name, ((3,), (16, 16)))
        sizes = [*shape, *widths, 1]
        return list(zip(sizes[1:], sizes, strict=False))
    if name == "conv 16x16":
        return [(50, 1, 5, 5), (100, 3200), (1, 100)]
    if name == "conv 3x32x32":
        return [(100, 3, 5, 5), (200, 100, 5, 5), (1, 12800)]
    return [(32, 3, 3, 3), (64, 32, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (1, 6400)]


def sequential(name: str) -> nn.Sequential:
    """The network as its user would write it: SiLU between the layers of MLPs, ReLU between those of the papers'."""
    made: list[nn.Module] = []
    images = name in IMAGES
    for weight, bias in weights_of(name):
        if made:
            made.append(nn.ReLU() if images else nn.SiLU())
        if weight.ndim == 4:
            units, channels, side, _ = weight.shape
            layer: nn.Module = nn.Conv2d(channels, units, side, 1 if side == 3 else 2, side // 2)
        else:
            if images and not any(isinstance(module, nn.Flatten) for module in made):
                made.append(nn.Flatten())
            layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data.copy_(weight)  # type: ignore[union-attr,operator]
        layer.bias.data.copy_(bias)  # type: ignore[union-attr,operator]
        made.append(layer)
    return nn.Sequential(*made)


def starts(name: str, batch: int) -> Tensor:
    shape = (3,) if name in ("check", "well") else NETWORKS[name][0] if name in NETWORKS else IMAGES[name][1]
    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(1))


def bowl(x: Tensor) -> Tensor:
    """Added to the checked energies, so that they have a density."""
    return 0.5 * x.flatten(1).square().sum(1)


def timed(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


# ---------------------------------------------------------------------- torchebm, in its own interpreter


def serve() -> None:
    """Answer lines of JSON (name, batch, steps, step, what) by lines of JSON."""
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Network(BaseModel):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name
            self.network = None if name == "well" else sequential(name)

        def forward(self, x: Tensor) -> Tensor:
            if self.network is None:
                return bowl(x)
            value = self.network(x)[:, 0]
            return value + bowl(x) if self.name == "check" else value

    torch.set_num_threads(1)
    known: dict[str, Network] = {}
    for line in sys.stdin:
        request = json.loads(line)
        network = known.setdefault(request["name"], Network(request["name"]))
        x = starts(request["name"], request["batch"])
        answer: dict[str, object]
        if request["what"] == "slope":
            answer = {"slope": network.gradient(x).flatten().tolist()}
        else:
            sampler = LangevinDynamics(network, step_size=request["step"] ** 2 / 2, noise_scale=1.0)
            ends = []
            seconds = timed(lambda: ends.append(sampler.sample(x=x, n_steps=request["steps"])))  # noqa: B023
            answer = {"seconds": seconds}
            if request["what"] == "sample":
                answer["point"] = ends[0].tolist()
        print(json.dumps(answer), flush=True)


class Peer:
    def __init__(self, python: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [python, os.path.abspath(__file__), "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, name: str, batch: int, steps: int, what: str = "time", step: float = STEP) -> dict:
        if self.process.stdin is None or self.process.stdout is None:
            raise SystemExit("the peer has no pipes")
        request = {"name": name, "batch": batch, "steps": steps, "what": what, "step": step}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the peer's process ended: can its interpreter import torchebm?")
        return json.loads(line)

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()


# ---------------------------------------------------------------------- this program


def ours(name: str):
    from theodolite.learning.convolutions import by_name
    from theodolite.learning.energy import GaussianEnergy, MLPEnergy, SumEnergy

    if name == "well":
        return GaussianEnergy((3,))
    if name in IMAGES:
        kind, shape, _ = IMAGES[name]
        energy = by_name(kind, shape, None, "relu")
    else:
        shape, widths = NETWORKS.get(name, ((3,), (16, 16)))
        energy = MLPEnergy(shape, widths, "silu")
    with torch.no_grad():
        for layer, (weight, bias) in zip(energy.layers, weights_of(name), strict=True):
            layer.weight.copy_(weight)  # type: ignore[operator,union-attr]
            layer.bias.copy_(bias)  # type: ignore[operator,union-attr]
    return SumEnergy([energy, GaussianEnergy((3,))]) if name == "check" else energy


def products(name: str, batch: int) -> Callable[[], None]:
    """The matrix products of one step, forth and back."""
    buffers = []
    for weight, _ in weights_of(name):
        units, inputs = weight.shape
        buffers.append((weight, torch.randn(batch, inputs), torch.randn(batch, units)))

    def multiply() -> None:
        for weight, forth, back in buffers:
            torch.mm(forth, weight.t(), out=back)
        for weight, forth, back in buffers:
            torch.mm(back, weight, out=forth)

    return multiply


def check(peer: Peer) -> None:
    """Both see one energy and sample one density."""
    from theodolite.learning.langevin import LangevinSettings, langevin, start

    for name in ("check", *NETWORKS, *IMAGES):
        x = starts(name, 8)
        theirs = torch.tensor(peer.ask(name, 8, 1, "slope")["slope"]).reshape(x.shape)
        found = ours(name).evaluator(8, torch.float32)(x)[1]
        if not torch.allclose(theirs, found, atol=1e-5 * float(theirs.abs().max())):
            raise SystemExit(f"{name}: the slopes differ")
    n, step, steps = 20_000, 0.4, 100
    for name in ("well", "check"):
        theirs = torch.tensor(peer.ask(name, n, steps, "sample", step)["point"]).double()
        energy, settings = ours(name), LangevinSettings(step, metropolis=False)
        chains, _ = langevin(energy, start(energy, starts(name, n)), settings, steps, torch.Generator().manual_seed(2))
        point = chains.point.double()
        error = ((theirs.var(0) + point.var(0)) / n).sqrt()
        means = (theirs.mean(0) - point.mean(0)) / error
        spread = theirs.var(0)
        variances = (spread - point.var(0)) / (spread * (4 / n) ** 0.5)
        worst = float(torch.cat([means, variances]).abs().max())
        print(f"{name}: means and variances of {n} chains within {worst:.1f} standard errors of torchebm's", flush=True)
        if worst > 4:
            raise SystemExit(f"{name}: the densities differ")


def measure(peer: Peer, name: str, batch: int, rounds: int) -> dict:
    from theodolite.learning.langevin import LangevinSettings, langevin, start

    energy, generator = ours(name), torch.Generator().manual_seed(0)
    chains = start(energy, starts(name, batch))
    plain, corrected = LangevinSettings(STEP, metropolis=False), LangevinSettings(STEP)

    def run(settings: LangevinSettings, steps: int) -> float:
        return timed(lambda: langevin(energy, chains, settings, steps, generator)) / steps

    run(plain, 5)
    run(corrected, 5)
    rate = peer.ask(name, batch, 5)["seconds"] / 5
    steps = max(5, min(400, int(0.25 / rate)))
    multiply = products(name, batch) if name in NETWORKS else None
    taken: dict[str, list[float]] = {"torchebm": [], "ours": [], "corrected": [], "products": []}
    for _ in range(rounds):
        taken["ours"].append(run(plain, steps))
        taken["torchebm"].append(peer.ask(name, batch, steps)["seconds"] / steps)
        taken["corrected"].append(run(corrected, steps))
        if multiply is not None:
            taken["products"].append(timed(lambda: [multiply() for _ in range(steps)]) / steps)
    found: dict = {"network": name, "batch": batch, "steps": steps}
    for key in ("ours", "corrected", "products"):
        if taken[key]:
            ratio = torch.tensor(taken["torchebm"]) / torch.tensor(taken[key])
            found[key] = {
                "microseconds": 1e6 * float(torch.tensor(taken[key]).median()),
                "ratio": [float(ratio.median()), float(ratio.min()), float(ratio.max())],
            }
    found["torchebm"] = {"microseconds": 1e6 * float(torch.tensor(taken["torchebm"]).median())}
    return found


def line_of(found: dict) -> str:
    words = [f"{found['network']:18s} batch {found['batch']:4d}: torchebm {found['torchebm']['microseconds']:8.0f} us"]
    for key in ("ours", "corrected", "products"):
        if key in found:
            median, low, high = found[key]["ratio"]
            words.append(f"{key} {found[key]['microseconds']:8.0f} us, {median:.1f} times ({low:.1f} to {high:.1f})")
    return "; ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchebm", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=[*NETWORKS, *IMAGES], default=[*NETWORKS, *IMAGES])
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the figures there as JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    if arguments.torchebm is None:
        raise SystemExit("name torchebm's interpreter: --torchebm PYTHON (see --help for how to install it)")
    torch.set_num_threads(1)
    peer = Peer(arguments.torchebm)
    check(peer)
    figures = []
    for name in arguments.only:
        for batch in BATCHES if name in NETWORKS else IMAGES[name][2]:
            figures.append(measure(peer, name, batch, arguments.rounds))
            print(line_of(figures[-1]), flush=True)
    peer.close()
    if arguments.save:
        arguments.save.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
