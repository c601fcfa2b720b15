"""The classifiers that adversarial examples are made for and passed between: softmax, sigmoid networks, autoencoder.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4.2; the numbers are those of Komati
2022, review, Fig. 6 and 8. Images are grey, in [0, 1]; networks give logits. The objective is the mean cross-entropy
plus lambda / 2 times the squared weights of each layer, biases left out: docs/data.md tells why.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from theodolite.errors import UserError
from theodolite.zoo.autoencoder import SparseCoding, encoder_of, epochs_for
from theodolite.zoo.datasets import Digits, bundled_digits
from theodolite.zoo.flip_networks import (
    TEN_DIGITS,
    FlipSubject,
    FlipTraining,
    dense_network,
    fit,
    grey_images,
    read_weights,
    trained_subject,
)
from theodolite.zoo.networks import initialised

N_PIXELS, N_CLASSES = 784, 10
ALL, FIRST_HALF, SECOND_HALF = "all", "first half", "second half"
_HISTORY = 20  # past steps of L-BFGS
_LEAST_STEPS = 3000  # batches of a sigmoid network, however few the images


def softmax_classifier() -> nn.Sequential:
    """784-10: one linear layer."""
    return dense_network((N_PIXELS, N_CLASSES))


def sigmoid_network(widths: Sequence[int]) -> nn.Sequential:
    """Images are flattened; a sigmoid after every linear layer but the last. Glorot's uniform weights."""
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in itertools.pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def sigmoid_100_100() -> nn.Sequential:
    """784-100-100-10."""
    return sigmoid_network((N_PIXELS, 100, 100, N_CLASSES))


def sigmoid_200_200() -> nn.Sequential:
    """784-200-200-10."""
    return sigmoid_network((N_PIXELS, 200, 200, N_CLASSES))


def sigmoid_123_456() -> nn.Sequential:
    """784-123-456-10."""
    return sigmoid_network((N_PIXELS, 123, 456, N_CLASSES))


def encoder_400() -> nn.Sequential:
    """784-400-10: the autoencoder's features and a softmax classifier of them."""
    return sigmoid_network((N_PIXELS, 400, N_CLASSES))


@final
@dataclass(frozen=True)
class StabilityRecipe:
    """How a network of the paper's tables is made, and what the paper measured on its own.

    ``factory`` builds it untrained. ``decays``: a lambda for each linear layer trained by its class, first to last.
    ``part`` of the training images: "all", "first half" or "second half". ``coding`` of the first layer, where it is an
    autoencoder's. Errors are shares of images; ``paper_other_error`` is on the half it was not trained on;
    ``paper_distortion``: mean minimal distortion, on grey levels in [0, 1].
    """

    name: str
    words: str
    factory: Callable[[], nn.Sequential]
    decays: tuple[float, ...]
    paper_train_error: float
    paper_test_error: float
    paper_distortion: float
    paper_other_error: float | None = None
    part: str = ALL
    coding: SparseCoding | None = None
    iterations: int = 100
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 5e-3

    def train(self, digits: Digits, seed: int, weights: str | Path | None = None) -> FlipSubject:
        """The network trained on its part of the training images of ``digits`` (all ten classes), or read."""
        return train_stability_network(self.name, digits, seed, weights=weights)


_SIGMOID_DECAYS = (1e-5, 1e-6, 1e-6)
STABILITY_RECIPES = {
    recipe.name: recipe
    for recipe in (
        StabilityRecipe(
            "softmax1",
            "a softmax classifier with weight decay 1e-4",
            softmax_classifier,
            (1e-4,),
            0.067,
            0.074,
            0.062,
        ),
        StabilityRecipe(
            "softmax2", "a softmax classifier with weight decay 0.01", softmax_classifier, (1e-2,), 0.10, 0.094, 0.1
        ),
        StabilityRecipe(
            "softmax3", "a softmax classifier with weight decay 1", softmax_classifier, (1.0,), 0.212, 0.20, 0.14
        ),
        StabilityRecipe(
            "N100-100-10",
            "a sigmoid network of two layers of 100 units",
            sigmoid_100_100,
            _SIGMOID_DECAYS,
            0.0,
            0.0164,
            0.058,
        ),
        StabilityRecipe(
            "N200-200-10",
            "a sigmoid network of two layers of 200 units",
            sigmoid_200_200,
            (1e-5, 1e-5, 1e-6),
            0.0,
            0.0154,
            0.065,
        ),
        StabilityRecipe(
            "AE400-10",
            "a sparse autoencoder of 400 units with a softmax classifier",
            encoder_400,
            (1e-6,),
            0.0057,
            0.019,
            0.086,
            coding=SparseCoding(),
            iterations=300,
        ),
        StabilityRecipe(
            "M1",
            "a sigmoid network of two layers of 100 units, of the first half of the images",
            sigmoid_100_100,
            _SIGMOID_DECAYS,
            0.0,
            0.02,
            0.062,
            0.024,
            part=FIRST_HALF,
        ),
        StabilityRecipe(
            "M1'",
            "a sigmoid network of layers of 123 and 456 units, of the first half of the images",
            sigmoid_123_456,
            _SIGMOID_DECAYS,
            0.0,
            0.021,
            0.059,
            0.025,
            part=FIRST_HALF,
        ),
        StabilityRecipe(
            "M2",
            "a sigmoid network of two layers of 100 units, of the second half of the images",
            sigmoid_100_100,
            _SIGMOID_DECAYS,
            0.0,
            0.021,
            0.058,
            0.023,
            part=SECOND_HALF,
        ),
    )
}
# The networks of one table take each other's examples.
CROSS_MODEL = ("softmax1", "softmax2", "softmax3", "N100-100-10", "N200-200-10", "AE400-10")
CROSS_TRAINING_SET = ("M1", "M1'", "M2")


def train_stability_network(
    name: str, digits: Digits | None = None, seed: int = 0, *, weights: str | Path | None = None
) -> FlipSubject:
    """The network ``name`` of `STABILITY_RECIPES`, trained on the bundled digits or others; same seed, same weights.

    Its ``x_train`` are the images that it was trained on: a half of them, where the recipe says so. ``weights``: a file
    to read in place of training. Raises UserError, before any work, for other names, digits that are not 28x28 of ten
    classes, or a file that does not fit.
    """
    recipe = stability_recipe(name)
    digits = training_part(bundled_digits(TEN_DIGITS) if digits is None else digits, recipe.part)
    _check_digits(digits)
    inputs = grey_images(digits.x_train, digits.levels), grey_images(digits.x_test, digits.levels)
    module = initialised(recipe.factory, seed)
    begun = time.perf_counter()
    if weights is not None:
        read_weights(module, weights)
    else:
        _train(recipe, module, inputs[0], digits.y_train, seed)
    return trained_subject(name, module, digits, inputs, time.perf_counter() - begun)


def stability_recipe(name: str) -> StabilityRecipe:
    """The recipe of a network of the tables; raises UserError for other names."""
    if name not in STABILITY_RECIPES:
        raise UserError("name", f"one of {', '.join(STABILITY_RECIPES)}", repr(name), "choose one of them")
    return STABILITY_RECIPES[name]


def training_part(digits: Digits, part: str) -> Digits:
    """The same digits with "all", the "first half" or the "second half" of the training images, in their order."""
    half = len(digits.y_train) // 2
    parts = {ALL: slice(None), FIRST_HALF: slice(half), SECOND_HALF: slice(half, None)}
    if part not in parts:
        raise UserError("part", f"one of {', '.join(parts)}", repr(part), "choose one of them")
    return replace(digits, x_train=digits.x_train[parts[part]], y_train=digits.y_train[parts[part]])


def decay_penalty(layers: Sequence[nn.Linear], decays: Sequence[float]) -> Tensor:
    """Sum over layers of lambda / 2 times the sum of squared weights, nats; biases are free."""
    terms = [decay / 2 * layer.weight.square().sum() for layer, decay in zip(layers, decays, strict=True)]
    return torch.stack(terms).sum()


def minimise_all_at_once(parameters: Sequence[Tensor], objective: Callable[[], Tensor], iterations: int) -> float:
    """Minimise ``objective`` of ``parameters``, in place, by L-BFGS with strong Wolfe line searches on all images at
    once: at most ``iterations``, fewer where no step leads further; gives the norm of the gradient at the end."""
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=_HISTORY,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    closure()
    squared = sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None)
    return math.sqrt(squared)


def _train(recipe: StabilityRecipe, module: nn.Sequential, x: Tensor, y: Tensor, seed: int) -> None:
    linear = [layer for layer in module if isinstance(layer, nn.Linear)]
    if recipe.coding is not None:
        encoder = encoder_of(x.flatten(1), linear[0].out_features, replace(recipe.coding, seed=seed))
        linear[0].load_state_dict(encoder.state_dict())
    if len(recipe.decays) == 1:
        with torch.no_grad():
            features = module[:-1](x)
        _train_linear(linear[-1], features, y, recipe)
        module.eval().requires_grad_(False)
        return
    epochs = epochs_for(len(y), recipe.epochs, _LEAST_STEPS, recipe.batch_size)
    training = FlipTraining(epochs, recipe.batch_size, recipe.learning_rate, seed=seed)
    fit(module, x, y, training, penalty=lambda: decay_penalty(linear, recipe.decays))


def _train_linear(layer: nn.Linear, features: Tensor, y: Tensor, recipe: StabilityRecipe) -> None:
    """A softmax classifier of fixed features: convex, so that its start does not matter."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    def objective() -> Tensor:
        return functional.cross_entropy(layer(features), y) + decay_penalty([layer], recipe.decays)

    minimise_all_at_once(list(layer.parameters()), objective, recipe.iterations)


def _check_digits(digits: Digits) -> None:
    shape, n_classes = tuple(digits.x_train.shape[1:]), len(digits.classes)
    if math.prod(shape) != N_PIXELS or n_classes != N_CLASSES:
        got = f"{'x'.join(map(str, shape))} and {n_classes} classes"
        raise UserError("digits", "28x28 pixels and ten classes", got, "give bundled_digits(tuple(range(10)))")
