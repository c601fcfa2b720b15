"""The classifiers that flip points are looked for in: the paper's 12-layer erf network, and ReLU networks of digits.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", section 3.2
(equations 7 to 10: error functions whose width is trained, one a layer) and Table A1. All give logits: the softmax of
equation 10 changes no class. ReLU networks take grey images in [0, 1], the erf network their wavelet features.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from theodolite.errors import UserError
from theodolite.network import Network
from theodolite.space import Box
from theodolite.zoo.datasets import Digits, bundled_digits
from theodolite.zoo.networks import initialised
from theodolite.zoo.wavelets import WaveletFeatures, choose_wavelets

# Table A1: neurons from the input layer over 12 hidden layers to the output.
ERF_WIDTHS = {
    "MNIST": (100, 500, 500, 500, 400, 300, 250, 250, 250, 200, 150, 150, 100, 10),
    "CIFAR-10": (2500, 1000, 500, 455, 410, 365, 320, 275, 230, 185, 140, 95, 50, 2),
}
TEN_DIGITS = tuple(range(10))
_ROWS_AT_ONCE = 1000


@final
class TunableErf(nn.Module):
    """y = erf(c / sigma), equation 7; one trained ``sigma`` for all neurons of a layer."""

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor(float(sigma)))

    def forward(self, c: Tensor) -> Tensor:
        """Any shape."""
        return torch.erf(c / self.sigma)


def erf_network(widths: Sequence[int] = ERF_WIDTHS["MNIST"], sigma: float = 1.0) -> nn.Sequential:
    """Linear layers with tunable error functions between them; the last is linear. Glorot's uniform weights."""
    _check_widths(widths)
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, TunableErf(sigma)]
    return nn.Sequential(*layers[:-1])


def dense_network(widths: Sequence[int] = (784, 200, 200, 10)) -> nn.Sequential:
    """Images are flattened; ReLU after every linear layer but the last."""
    _check_widths(widths)
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def narrow_dense_network() -> nn.Sequential:
    """784-50-50-10: small enough that nearly every flip point can be proven the closest to a per cent."""
    return dense_network((784, 50, 50, 10))


def small_cnn(n_classes: int = 10) -> nn.Sequential:
    """``(n, 1, 28, 28)`` -> ``(n, n_classes)``: two convolutions of stride 2 (16 and 32 channels), two layers, ReLU."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 100),
        nn.ReLU(),
        nn.Linear(100, n_classes),
    )


@dataclass(frozen=True)
class FlipTraining:
    """Adam on the cross-entropy over ``epochs`` of batches drawn without replacement, the rate falling from
    ``learning_rate`` to 0 as half a cosine; the paper gives Adam and 0.001 (appendix A), and no more.

    Raises UserError for numbers out of their ranges.
    """

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(name, "a finite number above 0", repr(getattr(self, name)), "leave it out")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UserError("weight_decay", "0 or more", repr(self.weight_decay), "leave it out")


@final
@dataclass(frozen=True)
class FlipSubject:
    """A trained classifier and what it was trained on, all as its ``space`` holds it.

    ``x_train``, ``x_test`` ``(n, *space.shape)`` float32 with classes ``y_train``, ``y_test`` ``(n,)`` int64, names in
    ``classes``; shares of them named rightly; ``seconds`` of training. ``wavelets`` of an erf network lead back to
    images ``(n, 1, 28, 28)``.
    """

    name: str
    module: nn.Sequential = field(repr=False)
    space: Box
    classes: tuple[str, ...]
    x_train: Tensor = field(repr=False)
    y_train: Tensor = field(repr=False)
    x_test: Tensor = field(repr=False)
    y_test: Tensor = field(repr=False)
    train_accuracy: float
    test_accuracy: float
    seconds: float
    wavelets: WaveletFeatures | None = None

    def network(self) -> Network:
        """What instruments measure."""
        return Network(self.module, self.space, classes=self.classes, name=self.name)

    def save(self, path: str | Path) -> None:
        """Write the weights, safetensors, to be given as ``weights`` later."""
        save_file({name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}, path)


def train_dense(
    hidden: Sequence[int] = (200, 200),
    digits: Digits | None = None,
    seed: int = 0,
    training: FlipTraining | None = None,
    *,
    weights: str | Path | None = None,
) -> FlipSubject:
    """A ReLU network of grey images with ``hidden`` neurons in each layer, on the bundled digits or others.

    ``weights``: a file to read in place of training; UserError where it does not fit. So for the other networks.
    """
    digits = digits or bundled_digits(TEN_DIGITS)
    widths = (math.prod(digits.x_train.shape[1:]), *hidden, len(digits.classes))
    training = training or FlipTraining(weight_decay=1e-5)
    name = "-".join(map(str, widths))
    return _of_images(name, lambda: dense_network(widths), digits, replace(training, seed=seed), weights)


def train_small_cnn(
    digits: Digits | None = None,
    seed: int = 0,
    training: FlipTraining | None = None,
    *,
    weights: str | Path | None = None,
) -> FlipSubject:
    """The small convolutional network of grey images, on the bundled digits or others."""
    digits = digits or bundled_digits(TEN_DIGITS)
    training = training or FlipTraining(epochs=25, weight_decay=1e-5)
    name = "small CNN"
    return _of_images(name, lambda: small_cnn(len(digits.classes)), digits, replace(training, seed=seed), weights)


def train_erf(
    digits: Digits | None = None,
    seed: int = 0,
    training: FlipTraining | None = None,
    widths: Sequence[int] | None = None,
    *,
    weights: str | Path | None = None,
) -> FlipSubject:
    """The paper's erf network of wavelet features in [0, 1], on the bundled digits (half a minute) or others.

    As many features as ``widths`` begins with, chosen on the training images; None: the widths of Table A1. Raises
    UserError where PyWavelets is missing or ``widths`` do not end with the number of classes.
    """
    digits = digits or bundled_digits(TEN_DIGITS)
    widths = widths or (*ERF_WIDTHS["MNIST"][:-1], len(digits.classes))
    if widths[-1] != len(digits.classes):
        raise UserError("widths", f"{len(digits.classes)} neurons at the end", str(widths[-1]), "one a class")
    wavelets = choose_wavelets(grey_images(digits.x_train, digits.levels), widths[0])
    x_train, x_test = (
        wavelets.features(grey_images(x, digits.levels)).float() for x in (digits.x_train, digits.x_test)
    )
    begun = time.perf_counter()
    if weights is None:
        settings = replace(training or FlipTraining(), seed=seed)
        module = train_erf_features(x_train, digits.y_train, wavelets, widths, settings)
    else:
        module = read_weights(erf_network(widths), weights)
    seconds = time.perf_counter() - begun
    return trained_subject(
        f"erf network of {len(widths) - 2} layers", module, digits, (x_train, x_test), seconds, wavelets
    )


def train_erf_features(
    features: Tensor,
    labels: Tensor,
    wavelets: WaveletFeatures,
    widths: Sequence[int],
    training: FlipTraining,
    *,
    standardised: bool = False,
) -> nn.Sequential:
    """An erf network of ``features`` ``(n, k)`` in [0, 1], trained on them in the units of the wavelets.

    In these units the inputs of a layer spread by about 1 for digits, as Glorot's weights want; those of natural
    images, which spread less about means that are not 0, want to be ``standardised``: less their means, over their root
    mean square. The scaling is then made part of the first layer, so that the network is linear layers and error
    functions alone.
    """
    module = initialised(lambda: erf_network(widths), training.seed)
    inputs = features * wavelets.scale + wavelets.low
    centre, spread = torch.zeros(()), torch.ones(())
    if standardised:
        centre = inputs.mean(0)
        spread = (inputs - centre).square().mean().sqrt()
    fit(module, ((inputs - centre) / spread).float(), labels, training)
    first = module[0]
    with torch.no_grad():
        first.weight /= spread  # type: ignore[operator]
        first.bias += ((wavelets.low - centre) * first.weight).sum(1)  # type: ignore[operator, union-attr]
        first.weight *= wavelets.scale  # type: ignore[operator]
    return module


def fit(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    training: FlipTraining,
    penalty: Callable[[], Tensor] | None = None,
) -> None:
    """Train ``module`` in place on inputs ``(n, ...)`` of classes ``(n,)``, and freeze it; by ``training.seed``.

    ``penalty`` of the weights, in nats, joins the cross-entropy.
    """
    generator = torch.Generator().manual_seed(training.seed)
    optimiser = torch.optim.Adam(module.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.epochs)
    module.train().requires_grad_(True)
    for _ in range(training.epochs):
        for rows in torch.randperm(len(y), generator=generator).split(training.batch_size):
            loss = functional.cross_entropy(module(x[rows]), y[rows])
            if penalty is not None:
                loss = loss + penalty()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    module.eval().requires_grad_(False)


@torch.no_grad()
def share_right(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of inputs ``(n, ...)`` that the module gives their class ``(n,)``."""
    right = sum(
        int((module(part).argmax(1) == labels).sum())
        for part, labels in zip(x.split(_ROWS_AT_ONCE), y.split(_ROWS_AT_ONCE), strict=True)
    )
    return right / max(len(y), 1)


def grey_images(levels: Tensor, n_levels: int = 256) -> Tensor:
    """Whole levels 0..n_levels - 1 -> float32 in [0, 1], any shape."""
    return levels.float() / (n_levels - 1)


def _of_images(
    name: str,
    factory: Callable[[], nn.Sequential],
    digits: Digits,
    training: FlipTraining,
    weights: str | Path | None,
) -> FlipSubject:
    x_train, x_test = grey_images(digits.x_train, digits.levels), grey_images(digits.x_test, digits.levels)
    module = initialised(factory, training.seed)
    begun = time.perf_counter()
    if weights is None:
        fit(module, x_train, digits.y_train, training)
    else:
        read_weights(module, weights)
    return trained_subject(name, module, digits, (x_train, x_test), time.perf_counter() - begun)


def read_weights(module: nn.Sequential, weights: str | Path) -> nn.Sequential:
    """Fill ``module`` from a ``.safetensors`` file and freeze it; UserError where the file does not fit."""
    try:
        module.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        got = f"{weights}: {str(error).splitlines()[0]}"
        raise UserError("weights", "a .safetensors file of this network", got, "leave it out to train one") from error
    return module.eval().requires_grad_(False)


def trained_subject(
    name: str,
    module: nn.Sequential,
    digits: Digits,
    inputs: tuple[Tensor, Tensor],
    seconds: float,
    wavelets: WaveletFeatures | None = None,
) -> FlipSubject:
    """A trained module with the digits as it reads them, ``inputs`` for training and test, and its accuracies."""
    x_train, x_test = inputs
    return FlipSubject(
        name=name,
        module=module,
        space=Box(tuple(x_train.shape[1:]), 0.0, 1.0),
        classes=tuple(map(str, digits.classes)),
        x_train=x_train,
        y_train=digits.y_train,
        x_test=x_test,
        y_test=digits.y_test,
        train_accuracy=share_right(module, x_train, digits.y_train),
        test_accuracy=share_right(module, x_test, digits.y_test),
        seconds=seconds,
        wavelets=wavelets,
    )


def _check_widths(widths: Sequence[int]) -> None:
    if len(widths) < 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in widths):
        raise UserError("widths", "two or more numbers of neurons", repr(tuple(widths)), "for example (784, 200, 10)")
