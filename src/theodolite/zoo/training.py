"""Train the zoo's classifiers: plain Adam on the (binary) cross-entropy, the same numbers for the same seed.

The stem of a zoo network is linear in the one-hot planes, so a batch of integer images passes it as a
table look-up and a fold (`stem_of_levels`): 256 times less memory than the planes, and the gradients of
the stem's own weights stay exact.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from theodolite.errors import UserError
from theodolite.zoo.datasets import Digits, bundled_digits
from theodolite.zoo.networks import PaperCNN, initialised

# Paper 000, section 5.1: test accuracies of the networks it surveys.
PAPER_ACCURACY = {"CNN": 0.978, "CNN-Toy": 0.997, "ResNet-18": 1.0, "ResNet-AUG": 0.9995}


@dataclass(frozen=True)
class TrainingSettings:
    """How `train` trains.

    `noise`: each training image gets Gaussian noise of its own strength, uniform between 0 and `noise`
    times the range of the levels, rounded and clipped to the levels. `stop_accuracy`: training ends when
    this share of the test images is right, looked at every `check_every` batches and at the end of an
    epoch (first on 500 of them); None trains all epochs. Stopping there is how a network of a *stated*
    test accuracy is made; it is no unbiased estimate of that accuracy.
    """

    epochs: int = 12
    learning_rate: float = 1e-3
    batch_size: int = 50
    noise: float = 0.0
    stop_accuracy: float | None = None
    seed: int = 0
    check_every: int = 16

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size", "check_every"):
            if getattr(self, name) <= 0:
                raise UserError(name, "a number above 0", repr(getattr(self, name)), f"give {name} a value above 0")
        if self.noise < 0:
            raise UserError(
                "noise", "0 or more", repr(self.noise), "give the noise as a share of the range of the levels"
            )


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave: shares of images labelled right, epochs begun, seconds spent, the loss of
    every batch (nats).
    """

    train_accuracy: float
    test_accuracy: float
    epochs: int
    seconds: float
    losses: tuple[float, ...] = field(repr=False)


def stem_of_levels(stem: nn.Conv2d, x: Tensor) -> Tensor:
    """What `stem` makes of the one-hot planes of integer images `x`, (n, 1, rows, columns) -> (n,
    channels, rows, columns).

    A pixel of value v adds `weight[:, v]`, turned by 180 degrees, to its neighbourhood: fold sums these
    patches.
    """
    n, _, rows, columns = x.shape
    levels, kernel = stem.in_channels, stem.kernel_size
    table = stem.weight.flip(2, 3).permute(1, 0, 2, 3).reshape(levels, -1)
    patches = functional.embedding(x.reshape(n, rows * columns), table).transpose(1, 2)
    planes = functional.fold(patches, (rows, columns), kernel, padding=1)
    return planes if stem.bias is None else planes + stem.bias.view(1, -1, 1, 1)


def outputs_of_levels(module: nn.Sequential, x: Tensor) -> Tensor:
    """`module(one_hot(x))` of a zoo network without the planes: (n, 1, rows, columns) integers -> (n,
    outputs).
    """
    stem, *rest = module.children()
    if not isinstance(stem, nn.Conv2d) or stem.kernel_size != (3, 3) or stem.padding != (1, 1) or stem.stride != (1, 1):
        raise UserError(
            "module",
            "a network of the zoo, whose first layer is a 3x3 convolution of one-hot planes",
            f"first layer {stem}",
            "train other networks with your own loop",
        )
    if x.shape[1] != 1:
        raise UserError(
            "x", "images of one channel", f"{x.shape[1]} channels", "give grey images (n, 1, rows, columns)"
        )
    hidden = stem_of_levels(stem, x).contiguous(memory_format=torch.channels_last)
    for layer in rest:
        hidden = layer(hidden)
    return hidden


def _loss(outputs: Tensor, labels: Tensor) -> Tensor:
    if outputs.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs.dtype))
    return functional.cross_entropy(outputs, labels)


def predicted_classes(outputs: Tensor) -> Tensor:
    """(n, outputs) logits -> (n,) class indices; one output is the log-odds of class 1 against class 0."""
    return (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(dim=1)


@torch.no_grad()
def accuracy(module: nn.Sequential, x: Tensor, y: Tensor, batch_size: int = 250) -> float:
    """Share of the integer images `x`, (n, 1, rows, columns), that `module` in eval mode gives their class
    `y`, (n,).
    """
    training = module.training
    module.eval()
    right = 0
    for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
        right += int((predicted_classes(outputs_of_levels(module, images)) == labels).sum())
    module.train(training)
    return right / max(len(y), 1)


def _with_noise(x: Tensor, strength: float, levels: int, generator: torch.Generator) -> Tensor:
    if strength == 0:
        return x
    deviation = torch.rand(len(x), *[1] * (x.ndim - 1), generator=generator) * strength * (levels - 1)
    noisy = x + deviation * torch.randn(x.shape, generator=generator)
    return noisy.round().clamp(0, levels - 1).to(x.dtype)


def train(module: nn.Sequential, digits: Digits, settings: TrainingSettings) -> TrainingResult:
    """Train a zoo network in place with Adam (Kingma and Ba 2015) and leave it in eval mode.

    One output learns the binary cross-entropy of the log-odds of class 1, more outputs the cross-entropy.
    Batches are drawn without replacement from a generator seeded with `settings.seed`. Raises `UserError`
    where the network's outputs or stem do not fit the digits, before any step.
    """
    _check_fit(module, digits)
    generator = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.Adam(module.parameters(), lr=settings.learning_rate)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    held_out = torch.randperm(len(digits.y_test), generator=generator)[:500]
    x_check, y_check = digits.x_test[held_out], digits.y_test[held_out]
    begun = time.perf_counter()
    losses: list[float] = []
    epoch, reached = 0, False
    while epoch < settings.epochs and not reached:
        epoch += 1
        module.train()
        batches = torch.randperm(len(digits.y_train), generator=generator).split(settings.batch_size)
        for number, rows in enumerate(batches, start=1):
            images = _with_noise(digits.x_train[rows], settings.noise, digits.levels, generator)
            loss = _loss(outputs_of_levels(module, images), digits.y_train[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            looks = number % settings.check_every == 0 or number == len(batches)
            if settings.stop_accuracy is not None and looks:
                _settle_normalisation(module, digits.x_train)
                reached = accuracy(module, x_check, y_check) >= settings.stop_accuracy
                if reached and len(held_out) < len(digits.y_test):
                    reached = accuracy(module, digits.x_test, digits.y_test) >= settings.stop_accuracy
                if reached:
                    break
                module.train()
    # Weights stay in the layout that safetensors and most other readers take.
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    _settle_normalisation(module, digits.x_train)
    module.eval()
    seconds = time.perf_counter() - begun
    return TrainingResult(
        train_accuracy=accuracy(module, digits.x_train, digits.y_train),
        test_accuracy=accuracy(module, digits.x_test, digits.y_test),
        epochs=epoch,
        seconds=seconds,
        losses=tuple(losses),
    )


@torch.no_grad()
def _settle_normalisation(module: nn.Sequential, x: Tensor) -> None:
    """Average batch normalisation's statistics over 500 training images under the present weights.

    Its running averages begin at variance 1, where the stem's small outputs have 1e-4, and reach them only
    after hundreds of steps: until then the network in eval mode is another than the one being trained.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # type: ignore[assignment]
    module.train()
    for images in x[:500].split(100):
        outputs_of_levels(module, images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    module.eval()


def _check_fit(module: nn.Sequential, digits: Digits) -> None:
    was_training = module.training
    module.eval()
    with torch.no_grad():
        outputs = outputs_of_levels(module, digits.x_train[:1]).shape[1]
    module.train(was_training)
    stem = next(module.children())
    if isinstance(stem, nn.Conv2d) and stem.in_channels != digits.levels:
        raise UserError(
            "module",
            f"{digits.levels} input planes, one a level",
            f"{stem.in_channels}",
            f"build it with levels={digits.levels}",
        )
    classes = len(digits.classes)
    if outputs != classes and not (outputs == 1 and classes == 2):
        expected = "1 or 2 outputs" if classes == 2 else f"{classes} outputs"
        raise UserError("module", f"{expected} for {classes} classes", f"{outputs}", f"build it with outputs={classes}")


# How each network of the paper is trained; the paper gives neither optimiser nor schedule.
PAPER_SETTINGS = {
    "CNN": TrainingSettings(epochs=20, stop_accuracy=PAPER_ACCURACY["CNN"]),
    "CNN-Toy": TrainingSettings(epochs=12, learning_rate=3e-3, stop_accuracy=PAPER_ACCURACY["CNN-Toy"]),
    "ResNet-18": TrainingSettings(epochs=3, stop_accuracy=PAPER_ACCURACY["ResNet-18"], check_every=40),
    "ResNet-AUG": TrainingSettings(epochs=8, noise=1.0, stop_accuracy=PAPER_ACCURACY["ResNet-AUG"], check_every=40),
}


def demo_classifier(seed: int = 0, digits: Digits | None = None) -> tuple[PaperCNN, Digits, TrainingResult]:
    """The paper's CNN for 0 against 1, trained to its 97.8% on the bundled digits, or on `digits`."""
    digits = bundled_digits() if digits is None else digits
    module = initialised(PaperCNN, seed)
    return module, digits, train(module, digits, replace(PAPER_SETTINGS["CNN"], seed=seed))
