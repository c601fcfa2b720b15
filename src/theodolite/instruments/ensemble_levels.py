"""What the members say of the representatives of a density survey of the first one, level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from theodolite.instruments import calibration
from theodolite.instruments.calibration import Floats
from theodolite.instruments.ensemble_doubts import Variables, ends, share, sure_of, triple
from theodolite.instruments.ensemble_statistics import QUANTITIES, mean_log_probability, uncertainty
from theodolite.instruments.ensemble_task import EnsembleTask

if TYPE_CHECKING:
    from theodolite.instruments.ensemble import Ensemble

_EXAMPLES = 3  # of a level kept to be shown


def level_variables(settings: Ensemble, task: EnsembleTask, members: Floats, random: np.random.Generator) -> Variables:
    """From ``members (row, member, class)`` of the representatives reached; empty without a density survey.

    Representatives of a level count as independent draws from it, as `Density` keeps them.
    """
    if task.levels is None:
        return {}
    levels = task.levels
    level = levels.level.numpy()[: len(members)]
    n_levels = len(levels.centre)
    shape = task.network.space.shape
    axes = tuple(f"point_{axis}" for axis in range(len(shape)))
    means = np.full((n_levels, len(QUANTITIES), 3), np.nan)
    sure_shares, doubted_shares = np.full((2, n_levels, 3), np.nan)
    probability = np.full(n_levels, np.nan)
    example = np.full((n_levels, _EXAMPLES, *shape), np.nan, dtype=np.float32)
    said = np.full((n_levels, _EXAMPLES, members.shape[1] + 1), np.nan)
    answers = np.full((n_levels, _EXAMPLES, members.shape[1] + 1), -1)
    for number in range(n_levels):
        place = np.flatnonzero(level == number)
        if not len(place):
            continue
        rows = members[place]
        table = uncertainty(rows).table()
        drawn = calibration.drawn_again(len(rows), settings.resamples, random)
        means[number] = [triple(calibration.mean_interval(column, drawn)) for column in table.T]
        told = sure_of(rows, settings)
        sure_shares[number] = share(told.sure.sum(), len(rows))
        doubted_shares[number] = share(told.doubted.sum(), told.sure.sum())
        probability[number] = np.exp(rows[:, 0].max(-1)).mean()
        # Those the single network is sure of first, and of these the ones that most divide the members.
        chosen = np.lexsort((-table[:, 2], ~told.sure))[:_EXAMPLES]
        together = np.concatenate([rows, mean_log_probability(rows)[:, None]], 1)[chosen]
        example[number, : len(chosen)] = task.levels.point[place[chosen]].numpy().reshape(-1, *shape)
        said[number, : len(chosen)] = np.exp(together.max(-1))
        answers[number, : len(chosen)] = together.argmax(-1)
    shown = ("level", "example", "subject")
    return {
        "level": (("level",), levels.centre),
        "log_density_of_states": (("level",), levels.log_density),
        "level_count": (("level",), np.bincount(level, minlength=n_levels)),
        "level_probability": (("level",), probability),
        **ends("level_quantity_mean", ("level", "quantity"), means),
        **ends("level_sure_share", ("level",), sure_shares),
        **ends("level_doubted_share", ("level",), doubted_shares),
        "level_example": (("level", "example", *axes), example),
        "level_example_probability": (shown, said),
        "level_example_answer": (shown, answers),
    }
