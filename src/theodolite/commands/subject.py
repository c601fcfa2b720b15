"""What a command works on: the field, its network and the data, loaded and checked as the flags say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from theodolite.commands.arguments import LandscapeCommand, ModelFlags, Subject
from theodolite.commands.learned_subject import Learned, holds_energy, load_learned
from theodolite.embedding import OneHot
from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.learning.frame import PixelFrame
from theodolite.loading import Labelled, choose_classes, load_data, load_model, parse_embedding
from theodolite.network import Network
from theodolite.space import DiscreteSpace, parse_space
from theodolite.zoo.datasets import Digits, bundled_digits, mnist, toy_images
from theodolite.zoo.energies import DigitEnergy, digit_energy
from theodolite.zoo.flip_networks import (
    TEN_DIGITS,
    FlipSubject,
    erf_network,
    narrow_dense_network,
    small_cnn,
    train_dense,
    train_erf,
    train_small_cnn,
)
from theodolite.zoo.networks import PaperCNN, ToyCNN, initialised
from theodolite.zoo.stability_networks import STABILITY_RECIPES
from theodolite.zoo.training import PAPER_ACCURACY, PAPER_SETTINGS, train

Names = Callable[[Tensor], list[str]]
DATA_LIMIT = 1000
DIGIT_ENERGY = "zoo:digits"  # the energy of a classifier of digits, made for landscapes


@dataclass(frozen=True)
class ZooModel:
    """A network of the zoo that trains in seconds: how it is built, what it reads, the paper's accuracy
    and name for it.
    """

    factory: Callable[[], nn.Sequential]
    images: Callable[[Digits], Digits]
    paper_name: str


ZOO = {
    "zoo:cnn": ZooModel(PaperCNN, lambda digits: digits, "CNN"),
    "zoo:toy": ZooModel(ToyCNN, toy_images, "CNN-Toy"),
}


@dataclass(frozen=True)
class DigitClassifier:
    """A classifier of all ten digits, on which boundaries are shown: how it is built, and trained or, with a file of
    weights, filled.
    """

    factory: Callable[[], nn.Sequential]
    train: Callable[[Digits, int, Path | None], FlipSubject]
    name: str
    words: str


DIGIT_CLASSIFIERS = {
    "zoo:dense": DigitClassifier(
        narrow_dense_network,
        lambda digits, seed, weights: train_dense((50, 50), digits, seed, weights=weights),
        "784-50-50-10",
        "a ReLU network of two layers of 50 neurons",
    ),
    "zoo:conv": DigitClassifier(
        small_cnn,
        lambda digits, seed, weights: train_small_cnn(digits, seed, weights=weights),
        "small CNN",
        "a small convolutional network",
    ),
    "zoo:erf": DigitClassifier(
        erf_network,
        lambda digits, seed, weights: train_erf(digits, seed, weights=weights),
        "erf network of 12 layers",
        "an erf network of 12 layers of wavelet features",
    ),
    **{
        # A quotation mark means something else to a shell.
        "zoo:" + recipe.name.lower().replace("'", "-prime"): DigitClassifier(
            recipe.factory, recipe.train, recipe.name, recipe.words
        )
        for recipe in STABILITY_RECIPES.values()
    },
}


@dataclass(frozen=True)
class Loaded:
    """A field ready to be surveyed; `network` is None for a system. `sets`: name -> (inputs, labels or
    None).
    """

    field: Field
    network: Network | None
    sets: dict[str, Labelled]
    labels: tuple[str, ...]
    energy: DigitEnergy | None = None
    learned: Learned | None = None
    picture: Callable[[Tensor], Tensor] | None = None  # points -> images, where points are none themselves
    names: Names | None = None  # of points of another space, that of a generator

    def by_class(self, seed: int) -> dict[str, Tensor]:
        """The data as an instrument takes it, a set a class ("test: 1"), up to 1,000 inputs of each drawn
        by `seed`.
        """
        parts: dict[str, Tensor] = {}
        for name, (x, y) in self.sets.items():
            if y is None:
                parts[name] = _drawn(x, seed)
                continue
            for label in y.unique().tolist():
                parts[f"{name}: {self.label(label)}"] = _drawn(x[y == label], seed)
        return parts

    @property
    def namer(self) -> Names | None:
        """Points ``(n, *shape)`` -> the class a network sees in each, by name; None where there is no network."""
        if self.names is not None:
            return self.names
        if self.energy is not None:
            return self.energy.words
        if self.learned is not None and self.learned.named is not None:
            named = self.learned.named
            return lambda points: [self.label(int(k)) for k in named(points)]
        network = self.network
        if network is None or max(len(self.labels), network.n_outputs) < 2:
            return None
        return lambda points: [self.label(int(k)) for k in network.predictions(points)[0]]

    def label(self, position: int) -> str:
        """The name of a class."""
        return self.labels[position] if position < len(self.labels) else str(position)


def load(subject: Subject, seed: int, console: Console, weights: Path | None = None) -> Loaded:
    """Load what `subject` names; `weights`, saved by an earlier run, take the place of training a network
    of the zoo.

    Raises `UserError` for every flag that is missing, unreadable or does not fit the others.
    """
    if (subject.system is None) == (subject.model is None):
        got = "both" if subject.system is not None else "neither"
        raise UserError("model", "--system or --model", got, "for example --system ising:12 or --model pkg.mod:factory")
    if subject.system is not None:
        return _load_system(subject)
    if subject.model == DIGIT_ENERGY:
        return _load_digit_energy(subject, seed, console, weights)
    if subject.model in DIGIT_CLASSIFIERS:
        return _load_digit_classifier(subject, seed, console, weights)
    if str(subject.model).startswith("zoo:"):
        return _load_zoo(subject, seed, console, weights)
    if holds_energy(str(subject.model)):
        return _load_learned(subject, seed)
    return _load_network(subject)


def _load_learned(subject: Subject, seed: int) -> Loaded:
    _refuse_beside(subject, "a learned energy", "weights", "space", "embedding")
    if subject.observable not in ("energy", Subject.observable):
        raise UserError("observable", "energy for a learned energy", subject.observable, "leave --observable out")
    classes = None if subject.classes is None else tuple(subject.classes.replace(",", " ").split())
    learned = load_learned(Path(str(subject.model)), subject.data, classes, seed)
    model = learned.model
    picture = None if isinstance(model.frame, PixelFrame) else model.images
    return Loaded(model.field(), None, learned.sets, learned.classes, None, learned, picture)


def _load_system(subject: Subject) -> Loaded:
    from theodolite.systems import parse_system

    _refuse_beside(subject, "--system", "weights", "space", "embedding", "classes")
    field = parse_system(str(subject.system))
    sets = {} if subject.data is None else load_data(subject.data, field.space)
    return Loaded(field, None, sets, ())


def _refuse_beside(subject: Subject, what: str, *names: str) -> None:
    """Raise `UserError` for the first of the flags ``names`` that is given though ``what`` leaves no room for it."""
    for name in names:
        if getattr(subject, name) is not None:
            raise UserError(name, f"nothing beside {what}", str(getattr(subject, name)), f"leave --{name} out")


def _load_network(subject: Subject) -> Loaded:
    if subject.space is None:
        raise UserError("space", "the space of the network's inputs", "none", "for example --space grid:1x28x28:256")
    space = parse_space(subject.space)
    embedding = parse_embedding(subject.embedding or "none")
    sets = {} if subject.data is None else load_data(subject.data, space)
    classes = parse_classes(subject.classes)
    model = load_model(str(subject.model), subject.weights)
    # Descents on real inputs end where the gradient is 1e-6, which float32 cannot tell from 0.
    precise = isinstance(subject, LandscapeCommand) and not isinstance(space, DiscreteSpace)
    module = model.module.double() if precise else model.module
    network = Network(module, space, embedding=embedding, classes=classes, name=model.name)
    if classes is None and network.n_outputs == 1 and subject.observable != "logit:0":
        classes = ["0", "1"]
        network = Network(module, space, embedding=embedding, classes=classes, name=model.name)
    if subject.classes is not None and classes is not None:
        sets = choose_classes(sets, tuple(map(int, classes)))
    n_classes = max(2, network.n_outputs)
    for name, (_, y) in sets.items():
        if y is not None and int(y.max()) >= n_classes:
            got = f"label {int(y.max())} in the set {name!r}"
            raise UserError("data", f"labels 0..{n_classes - 1}, one an output", got, "name the classes by --classes")
    return Loaded(network.observable(subject.observable), network, sets, tuple(classes or ()))


def _load_zoo(subject: Subject, seed: int, console: Console, weights: Path | None) -> Loaded:
    if subject.model not in ZOO:
        raise UserError(
            "model",
            f"one of {', '.join([*ZOO, *DIGIT_CLASSIFIERS, DIGIT_ENERGY])}",
            repr(subject.model),
            "others are made by pkg.mod:factory",
        )
    _refuse_beside(subject, "a network of the zoo", "weights", "space", "embedding")
    chosen = ZOO[subject.model]
    classes = tuple(int(label) for label in parse_classes(subject.classes) or ("0", "1"))
    if len(classes) != 2:
        raise UserError("classes", "two digits for this network", subject.classes or "", "for example --classes 0,1")
    digits = bundled_digits(classes) if subject.data is None else mnist(subject.data, classes)
    images = chosen.images(digits)
    module = initialised(chosen.factory, seed)
    if weights is not None:
        module = load_model(_factory_name(chosen), weights).module
    else:
        console.print(
            f"Training {chosen.paper_name} of Liu et al. 2023 on {len(images.y_train):,} images ({images.source})."
        )
        paper = PAPER_ACCURACY[chosen.paper_name]
        result = train(module, images, replace(PAPER_SETTINGS[chosen.paper_name], seed=seed))
        console.print(
            f"Trained in {result.seconds:.0f} s: accuracy {result.test_accuracy:.1%} on {len(images.y_test)} "
            f"test images (the paper's network: {paper:.1%})."
        )
    names = tuple(map(str, classes))
    network = Network(module, images.space, embedding=OneHot(), classes=list(names), name=chosen.paper_name)
    sets: dict[str, Labelled] = {
        "train": (images.x_train, images.y_train),
        "test": (images.x_test, images.y_test),
    }
    return Loaded(network.observable(subject.observable), network, sets, names)


def _load_digit_energy(subject: Subject, seed: int, console: Console, weights: Path | None) -> Loaded:
    _refuse_beside(subject, "a network of the zoo", "weights", "space", "embedding")
    if subject.observable != "energy":
        raise UserError("observable", "energy for zoo:digits", subject.observable, "leave --observable out")
    classes = tuple(int(label) for label in parse_classes(subject.classes) or ("0", "1", "2", "3"))
    digits = bundled_digits(classes) if subject.data is None else mnist(subject.data, classes)
    if weights is None:
        console.print(f"Training a classifier of noisy digits on {len(digits.y_train):,} images ({digits.source}).")
    made = digit_energy(digits, seed, weights=weights)
    if weights is None:
        told = f"accuracy {made.accuracy:.1%} on {len(made.labels)} test images"
        console.print(f"Trained in {made.seconds:.0f} s: {told}.")
    return Loaded(made.field, None, {"test": (made.data, made.labels)}, tuple(map(str, classes)), made)


def _load_digit_classifier(subject: Subject, seed: int, console: Console, weights: Path | None) -> Loaded:
    _refuse_beside(subject, "a classifier of all ten digits", "weights", "space", "embedding", "classes")
    kind = DIGIT_CLASSIFIERS[str(subject.model)]
    digits = bundled_digits(TEN_DIGITS) if subject.data is None else mnist(subject.data, TEN_DIGITS)
    if weights is None:
        console.print(f"Training {kind.words} on {len(digits.y_train):,} images ({digits.source}).")
    made = kind.train(digits, seed, weights)
    if weights is None:
        told = f"accuracy {made.test_accuracy:.1%} on {len(made.y_test):,} test images"
        console.print(f"Trained in {made.seconds:.0f} s: {told}.")
    network = Network(made.module, made.space, classes=list(made.classes), name=kind.name)
    sets: dict[str, Labelled] = {"train": (made.x_train, made.y_train), "test": (made.x_test, made.y_test)}
    return Loaded(network.observable(subject.observable), network, sets, made.classes)


def save_zoo_weights(subject: ModelFlags, loaded: Loaded, path: Path) -> None:
    """Keep the weights of a network of the zoo, trained on the spot, with the name of its factory; for
    others, nothing.
    """
    from safetensors.torch import save_file

    if loaded.energy is not None:
        loaded.energy.save(path)
    kind = {**ZOO, **DIGIT_CLASSIFIERS}.get(str(subject.model))
    if loaded.network is None or kind is None:
        return
    tensors = {name: tensor.contiguous() for name, tensor in loaded.network.module.state_dict().items()}
    save_file(tensors, path, metadata={"factory": _factory_name(kind)})


def parse_classes(text: str | None) -> list[str] | None:
    """ "0,1" -> ["0", "1"]; the labels that the data give the classes, in the order of the outputs."""
    if text is None:
        return None
    labels = text.replace(",", " ").split()
    if not labels or not all(label.isdecimal() for label in labels) or len(set(labels)) != len(labels):
        raise UserError("classes", "different labels, numbers from 0", repr(text), "for example --classes 0,1")
    return labels


def _factory_name(chosen: ZooModel | DigitClassifier) -> str:
    return f"{chosen.factory.__module__}:{chosen.factory.__qualname__}"


def _drawn(x: Tensor, seed: int) -> Tensor:
    if len(x) <= DATA_LIMIT:
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:DATA_LIMIT]]
