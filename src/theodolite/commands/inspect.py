"""`theodolite inspect`: what a network or system offers, before anything is surveyed."""

from __future__ import annotations

from rich.console import Console

from theodolite.commands import predictions
from theodolite.commands.arguments import InspectCommand
from theodolite.commands.rate import measure_rate
from theodolite.commands.subject import Loaded, load
from theodolite.field import Field
from theodolite.space import DiscreteSpace


def run(settings: InspectCommand) -> None:
    """Print outputs, layers, capabilities and speed, and the predictions on the data."""
    console = Console(highlight=False)
    loaded = load(settings, settings.seed, console)
    for sentence in [*_of_network(loaded), *_of_learned(loaded), *_of_field(loaded.field)]:
        console.print(sentence, markup=False)
    rate = measure_rate(loaded.field, settings.seed)
    slope = "no gradient" if rate.gradient is None else f"{rate.gradient:,.0f} with the gradient"
    console.print(f"Speed here: {rate.value:,.0f} evaluations a second, {slope}.")
    predictions.show(loaded, settings.seed, console)


def _of_network(loaded: Loaded) -> list[str]:
    network = loaded.network
    if network is None:
        return []
    parameters = sum(parameter.numel() for parameter in network.module.parameters())
    layers = [name for name, layer in network.module.named_modules() if name and not list(layer.children())]
    classes = f", classes {', '.join(network.classes)}" if network.classes else ""
    return [
        f"Network: {network.name}, {parameters:,} parameters, hash {network.hash[:12]}.",
        f"Outputs: {network.n_outputs}{classes}.",
        f"Layers: {', '.join(layers)}.",
    ]


def _of_learned(loaded: Loaded) -> list[str]:
    if loaded.learned is None:
        return []
    model = loaded.learned.model
    images, points = ("x".join(map(str, shape)) for shape in (model.frame.image_shape, model.space.shape))
    learned = f"Learned energy: {model.name}, of images {images}"
    learned += "" if images == points else f" in {points} coordinates"
    sentences = [f"{learned}, with noise of deviation {model.data_noise:g}, hash {loaded.field.model_hash[:12]}."]
    if model.generator is not None:
        sentences.append(f"It learned with a generator of {model.generator.latent} latent numbers.")
    return sentences


def _of_field(field: Field) -> list[str]:
    sentences = [f"Space: {field.space.describe()}.", f"Observable: {field.name}."]
    if field.level_spacing is not None:
        sentences.append(f"Its values are multiples of {field.level_spacing:g}.")
    if field.level_differences is not None:
        sentences.append("One gradient tells the linearised change for every level of every coordinate.")
    if field.terms is not None:
        (rows, columns), radius = field.terms.grid, field.terms.radius
        sentences.append(
            f"A sum of {rows} x {columns} local terms; a coordinate changes only those within {radius}: "
            "many coordinates can move at once."
        )
    if field.single_site is not None:
        sentences.append("The exact change for one coordinate costs no evaluation of the whole input.")
    if field.table is not None:
        sentences.append(f"The values of all {len(field.table):,} points are known.")
    if len(sentences) == 2 and isinstance(field.space, DiscreteSpace):
        sentences.append("It offers values alone; proposals will be made without a gradient.")
    return sentences
