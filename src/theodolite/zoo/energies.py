"""An energy whose basins a person recognises: how sure a classifier of digits is, held in place by a weak spring.

U(x) = -ln sum_k exp(logit_k(x)) + |x - black|^2 / (2 sigma^2), in nats, is low where the network is sure of some
digit; the spring keeps the minima near the images, since the logits alone grow without end. Trained with strong
noise, the network's slopes point at whole digits. **It is not a density of the data**: its depths say how sure the
network is, not how common an image is, and cross-entropy leaves open any function of x that is added to all logits.

Source: the energy of a classifier is that of Grathwohl et al. 2020, "Your classifier is secretly an energy based model
and you should treat it like one" (ICLR); the reference density is that of Hill, Nijkamp and Zhu 2019, "Building a
Telescope to Look Into High-Dimensional Image Spaces", eq. 5.3, with black for its centre.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.network import model_hash
from theodolite.space import Box
from theodolite.zoo.datasets import Digits
from theodolite.zoo.networks import initialised

SIDE = 16
BLACK = -1.0
SPRING = 3.0  # sigma: standard deviation of the reference density, in units of half the range of grey
# Wide enough to be no part of the landscape: in ten networks no pixel of a minimum left [-4.1, 4.1], and beyond that
# the spring drives all descents back. Narrower, at the range of grey itself, most minima would lie on the boundary.
BOUND = 6.0
NOISE = 1.5
FACTORY = "theodolite.zoo.energies:digit_classifier"
_REPORT_EVERY = 250


@dataclass(frozen=True)
class EnergyTraining:
    """How the classifier is trained: ``batches`` of ``batch_size`` images, each with Gaussian noise of a strength
    uniform between 0 and ``noise``, by Adam with a rate falling from ``learning_rate`` to a hundredth of it.

    Raises UserError for numbers out of their ranges.
    """

    batches: int = 2000
    batch_size: int = 128
    learning_rate: float = 1e-3
    noise: float = NOISE

    def __post_init__(self) -> None:
        for name in ("batches", "batch_size", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(name, "a finite number above 0", repr(getattr(self, name)), "leave it out")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise UserError("noise", "0 or more", repr(self.noise), f"{NOISE} makes the minima recognisable")


@final
@dataclass(frozen=True)
class DigitEnergy:
    """``field``: U over 16 x 16 images, black -1 and white +1, in a Box. ``module``: the classifier, in float32.
    ``data``: test images ``(n, 1, 16, 16)`` with ``labels`` ``(n,)``, positions in ``classes``; ``accuracy``: the
    share of them that the network names rightly. ``seconds`` of training."""

    field: Field
    module: nn.Module
    data: Tensor
    labels: Tensor
    classes: tuple[int, ...]
    accuracy: float
    seconds: float

    def words(self, points: Tensor) -> list[str]:
        """The digit the network sees in each of ``points`` ``(n, 1, 16, 16)``."""
        with torch.no_grad():
            seen = self.module(points.float()).argmax(1)
        return [str(self.classes[int(k)]) for k in seen]

    def save(self, path: str | Path) -> None:
        """Write the weights, safetensors, to be given as ``weights`` later; they name their factory."""
        tensors = {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}
        save_file(tensors, path, metadata={"factory": FACTORY})


def digit_classifier(n_classes: int = 4) -> nn.Sequential:
    """A small smooth network, ``(n, 1, 16, 16)`` -> ``(n, n_classes)``: two convolutions of stride 2, two layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 64),
        nn.SiLU(),
        nn.Linear(64, n_classes),
    )


def digit_energy(
    digits: Digits,
    seed: int = 0,
    training: EnergyTraining | None = None,
    *,
    weights: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> DigitEnergy:
    """Train the classifier on ``digits`` (28 x 28, of 256 levels), or read its ``weights``, and make its energy.

    ``progress`` is told how the training goes, in words. The same seed gives the same network on one machine. Raises
    UserError for digits of another size, and for weights that do not fit them.
    """
    if tuple(digits.x_train.shape[1:]) != (1, 28, 28) or digits.levels != 256:
        got = f"shape {tuple(digits.x_train.shape[1:])} of {digits.levels} levels"
        remedy = "use zoo.datasets.bundled_digits or mnist"
        raise UserError("digits", "grey images of 28 x 28 pixels of 256 levels", got, remedy)
    begun = time.perf_counter()
    if weights is not None:
        module = _loaded(weights, len(digits.classes))
    else:
        module = initialised(lambda: digit_classifier(len(digits.classes)), seed)
        _train(module, small_images(digits.x_train), digits.y_train, seed, training or EnergyTraining(), progress)
    module = module.eval().requires_grad_(False)
    seconds = time.perf_counter() - begun
    data = small_images(digits.x_test)
    with torch.no_grad():
        accuracy = float((module(data).argmax(1) == digits.y_test).double().mean())
    return DigitEnergy(energy_field(module), module, data, digits.y_test, digits.classes, accuracy, seconds)


def energy_field(module: nn.Module, sigma: float = SPRING, name: str = "energy of a digit classifier") -> Field:
    """U over the Box [-6, 6]^(1 x 16 x 16) of a ``module`` of logits ``(n, 1, 16, 16)`` -> ``(n, k)``, in nats.

    ``sigma`` in units of half the range of grey. Raises UserError where it is not above 0.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise UserError("sigma", "a finite number above 0", repr(sigma), f"{SPRING:g} is the demo's")
    # float64 throughout: descents end where the gradient is 1e-6, which float32 cannot tell from 0.
    precise = copy.deepcopy(module).double().eval().requires_grad_(False)

    def energy(x: Tensor) -> Tensor:
        z = x.double()
        return 0.5 * (z - BLACK).square().flatten(1).sum(1) / sigma**2 - precise(z).logsumexp(1)

    return Field(
        Box((1, SIDE, SIDE), -BOUND, BOUND),
        energy,
        name=name,
        module=precise,
        model_name="digit classifier",
        model_hash=model_hash(module),
        batch_size=1024,
    )


def small_images(levels: Tensor, side: int = SIDE) -> Tensor:
    """Images of 28 x 28 levels 0..255 -> ``(n, 1, side, side)`` float32 from -1 (black) to +1, bilinear."""
    grey = functional.interpolate(levels.float() / 127.5 - 1.0, (side, side), mode="bilinear", antialias=True)
    return grey.clamp(-1.0, 1.0)


def _loaded(weights: str | Path, n_classes: int) -> nn.Module:
    module = digit_classifier(n_classes)
    try:
        module.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        wanted = f"a .safetensors file of a digit classifier of {n_classes} classes"
        got = f"{weights}: {str(error).splitlines()[0]}"
        raise UserError("weights", wanted, got, "leave it out to train one") from error
    return module


def _train(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    seed: int,
    training: EnergyTraining,
    progress: Callable[[str], None] | None,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(module.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: max(0.01, 1.0 - t / training.batches))
    module.train()
    for batch in range(1, training.batches + 1):
        rows = torch.randint(0, len(x), (training.batch_size,), generator=generator)
        strength = training.noise * torch.rand((training.batch_size, 1, 1, 1), generator=generator)
        noisy = x[rows] + strength * torch.randn(x[rows].shape, generator=generator)
        loss = functional.cross_entropy(module(noisy), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if progress is not None and (batch % _REPORT_EVERY == 0 or batch == training.batches):
            progress(f"training, batch {batch} of {training.batches}, loss {float(loss.detach()):.3f} nats")
