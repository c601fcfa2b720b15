"""What commands that compare several networks share: the networks that the flags name, loaded one by one, and shown."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor

from theodolite.commands import survey_folder
from theodolite.commands.arguments import NetworksFlags, Subject
from theodolite.commands.classifier import choose_inputs
from theodolite.commands.job import Job
from theodolite.commands.subject import DIGIT_ENERGY, Loaded, load, save_zoo_weights
from theodolite.errors import UserError
from theodolite.network import Network

_ZOO = "zoo:"


@dataclass(frozen=True)
class Named:
    """A network of a command: its name, what it was loaded from, and what that gave."""

    name: str
    subject: Subject
    loaded: Loaded

    @property
    def network(self) -> Network:
        if self.loaded.network is None:
            raise UserError("networks", "networks with classes", self.name, "choose others")
        return self.loaded.network


def parse_named(argument: str, text: str) -> dict[str, str]:
    """ "a=x,b=y" -> {"a": "x", "b": "y"}; `UserError` naming the flag where it is no such list."""
    pairs = [part.partition("=") for part in text.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    if not all(name and sign and value.strip() for name, (_, sign, value) in zip(names, pairs, strict=True)):
        raise UserError(argument, "NAME=..., one or more, with commas between", repr(text), "for example a=zoo:dense")
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(argument, "different names", f"{twice!r} twice", "name each network")
    return dict(zip(names, (value.strip() for _, _, value in pairs), strict=True))


def check_networks(flags: NetworksFlags) -> None:
    """Raise `UserError` for flags that name no networks, before anything is loaded."""
    if flags.networks is None:
        raise UserError("networks", "--networks", "none", "for example --networks a=pkg.mod:factory,b=zoo:dense")
    models = parse_named("networks", flags.networks)
    for name in parse_named("network_weights", flags.network_weights) if flags.network_weights else {}:
        if name not in models:
            raise UserError("network_weights", f"names of --networks ({', '.join(models)})", repr(name), "correct it")
    for model in models.values():
        if model == DIGIT_ENERGY:
            raise UserError("networks", "networks with classes", DIGIT_ENERGY, "choose others")


def load_networks(flags: NetworksFlags, seed: int, console: Console, folder: Path | None) -> list[Named]:
    """The networks in the order of the flags; ``folder``: of an earlier run, whose weights take the place of
    training."""
    models = parse_named("networks", flags.networks or "")
    weights = parse_named("network_weights", flags.network_weights) if flags.network_weights else {}
    trained: Counter[str] = Counter()
    found = []
    for place, (name, model) in enumerate(models.items()):
        zoo = model.startswith(_ZOO)
        subject = Subject(
            model=model,
            weights=Path(weights[name]) if name in weights else None,
            # The zoo's networks bring a space of their own.
            space=None if zoo else flags.space,
            embedding=None if zoo else flags.embedding,
            data=flags.data,
            classes=flags.classes,
            observable="energy",
        )
        kept = None if folder is None else _weights_file(folder, place)
        loaded = load(subject, seed + trained[model], console, kept if kept is not None and kept.exists() else None)
        trained[model] += zoo
        found.append(Named(name, subject, loaded))
    return found


def choose_labelled(named: Sequence[Named], data_set: str | None, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs ``(image, *shape)`` and labels ``(image,)`` of the set named, drawn by ``seed`` for all networks alike."""
    first = next((one.loaded for one in named if one.loaded.sets), named[0].loaded)
    chosen = choose_inputs(first, data_set, images, seed)
    if chosen.labels is None:
        raise UserError("data", "inputs with labels", f"none in {chosen.set_name!r}", "give x and y in --data")
    return chosen.inputs, chosen.labels


class NetworksJob(Job):
    """A survey of several networks on labelled inputs."""

    def __init__(self, named: Sequence[Named], inputs: Tensor, labels: Tensor) -> None:
        self._named, self._inputs, self._labels = named, inputs, labels

    @property
    def networks(self) -> Mapping[str, Network]:
        """By name, as instruments take them."""
        return networks_of(self._named)

    @property
    def model_hash(self) -> str:
        return hashlib.sha256(repr([(one.name, one.network.hash) for one in self._named]).encode()).hexdigest()

    def show(self, console: Console) -> None:
        inputs, labels = self._inputs, self._labels
        table = Table(title=f"{len(inputs):,} inputs before the survey", title_justify="left")
        for heading in ("network", "model", "classes", "right"):
            table.add_column(heading, justify="right" if heading in ("classes", "right") else "left", overflow="fold")
        for one in self._named:
            right = float((one.network.predictions(inputs)[0] == labels).double().mean())
            table.add_row(one.name, str(one.subject.model), str(max(2, one.network.n_outputs)), f"{right:.1%}")
        console.print(table)

    def save(self, folder: Path) -> None:
        for place, one in enumerate(self._named):
            if str(one.subject.model).startswith(_ZOO):
                (folder / survey_folder.MODELS).mkdir(exist_ok=True)
                save_zoo_weights(one.subject, one.loaded, _weights_file(folder, place))


def networks_of(named: Sequence[Named]) -> Mapping[str, Network]:
    """By name, as instruments take them."""
    return {one.name: one.network for one in named}


def _weights_file(folder: Path, place: int) -> Path:
    return folder / survey_folder.MODELS / f"{place}.safetensors"
