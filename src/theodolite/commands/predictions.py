"""What the network says about the data, shown before a survey, so that wrong preprocessing is seen before
it costs time.
"""

from __future__ import annotations

import math

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from theodolite.commands.subject import Loaded

SHOWN_INPUTS = 500
SHOWN_ROWS = 6


def show(loaded: Loaded, seed: int, console: Console) -> None:
    """Print accuracy and outputs by set and class, a few inputs one by one, and a warning where accuracy
    is at chance.
    """
    field = loaded.field
    generator = torch.Generator().manual_seed(seed)
    table = Table(title=f"Outputs ({field.name}) before the survey", title_justify="left")
    for heading in ("inputs", "number", "right", "lowest", "mean", "highest"):
        table.add_column(heading, justify="left" if heading == "inputs" else "right", overflow="fold")
    rows = Table(title="A few inputs", title_justify="left")
    for heading in ("set", "label", "predicted", "probability", field.name):
        rows.add_column(heading, justify="left" if heading == "set" else "right")
    warnings: list[str] = []
    for name, (x, y) in loaded.sets.items():
        chosen = torch.randperm(len(x), generator=generator)[:SHOWN_INPUTS]
        images, labels = x[chosen], None if y is None else y[chosen]
        outputs = field.value(images)
        predicted, probability = _predictions(loaded, images)
        if labels is None:
            table.add_row(name, str(len(images)), "", *_figures(outputs))
        else:
            right = None if predicted is None else predicted == labels
            for label in labels.unique().tolist():
                of_class = labels == label
                share = "" if right is None else f"{float(right[of_class].double().mean()):.1%}"
                named = f"{name}: {loaded.label(label)}"
                table.add_row(named, str(int(of_class.sum())), share, *_figures(outputs[of_class]))
            if right is not None:
                warnings += _at_chance(name, right, labels, loaded)
        for row in range(min(SHOWN_ROWS, len(images))):
            told = "" if labels is None else loaded.label(int(labels[row]))
            guess = "" if predicted is None else loaded.label(int(predicted[row]))
            sure = "" if probability is None else f"{float(probability[row]):.3f}"
            rows.add_row(name, told, guess, sure, f"{float(outputs[row]):.2f}")
    noise = field.space.draw(64, generator)
    table.add_row("drawn at random", "64", "", *_figures(field.value(noise)))
    console.print(table)
    if rows.row_count:
        console.print(rows)
    for warning in warnings:
        console.print(f"[bold]Warning[/bold]: {warning}")


def _predictions(loaded: Loaded, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if loaded.network is None else loaded.network.predictions(x)


def _figures(outputs: Tensor) -> tuple[str, str, str]:
    return f"{float(outputs.min()):.2f}", f"{float(outputs.mean()):.2f}", f"{float(outputs.max()):.2f}"


def _at_chance(name: str, right: Tensor, labels: Tensor, loaded: Loaded) -> list[str]:
    """A sentence where accuracy is no better than always saying the most frequent class, within two
    standard errors.
    """
    classes = max(2, loaded.network.n_outputs) if loaded.network is not None else 2
    chance = max(1 / classes, float(labels.bincount().max()) / len(labels)) if len(labels.unique()) > 1 else 1 / classes
    accuracy = float(right.double().mean())
    if accuracy > chance + 2 * math.sqrt(chance * (1 - chance) / len(labels)):
        return []
    return [
        f"accuracy on {name!r} is {accuracy:.1%}, no better than chance ({chance:.1%}); "
        "check --embedding, --classes, --weights and the preprocessing before you trust a survey of it."
    ]
