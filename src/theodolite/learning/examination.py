"""Everything that is asked of the long runs of an energy, in one record: what a verdict is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from theodolite.learning.agreement import NOTHING, Agreement, Statistic, agreement, energies
from theodolite.learning.energy import Energy
from theodolite.learning.long_runs import STARTS, LongRun, LongRuns, LongRunState
from theodolite.learning.mixing import Mixing, drift, mixing
from theodolite.learning.reference import Reference

_RESAMPLES = 500


@final
@dataclass(frozen=True)
class Examination:
    """``runs``: agreement of each run ("data", "noise", by where it began) with the noisy training data; ``held_out``:
    their energy difference from the held-out data, in the deviations of those (NaN where nothing is held out);
    ``apart``: agreement of the run from noise with the run from data; ``drift`` of each; ``mixing`` of that from data.

    ``share_done``: of the steps asked for. ``finite``: where it is False the other fields are empty.
    """

    finite: bool
    share_done: float
    n_chains: int
    labelled: bool
    class_names: tuple[str, ...]
    runs: Mapping[str, Agreement]
    held_out: Mapping[str, Statistic]
    drift: Mapping[str, Statistic]
    apart: Agreement | None = None
    mixing: Mixing | None = None


def examine(
    energy: Energy, reference: Reference, settings: LongRuns, state: LongRunState, generator: torch.Generator
) -> Examination:
    """Of the runs as far as they were made; the generator is used for resampling alone."""
    share = min(state.done / settings.n_blocks, 1.0)
    known = (len(state.data.value), reference.classes.labelled, reference.classes.names)
    if state.diverged or not state.done:
        return Examination(not state.diverged, share, *known, {}, {}, {})
    both = dict(zip(STARTS, (state.data, state.noise), strict=True))
    deviation = float(energies(energy, reference.noisy).std())
    runs = {name: agreement(energy, reference, run.kept(), generator) for name, run in both.items()}
    began = reference.classes.of(reference.features(state.data.first))
    return Examination(
        True,
        share,
        *known,
        runs,
        {name: _held_out(energy, reference.held_out, run, generator) for name, run in both.items()},
        {name: drift(run.trace().double().numpy(), deviation) for name, run in both.items()},
        agreement(energy, reference, state.noise.kept(), generator, against=state.data.kept()),
        mixing(began, runs["data"].last_classes, state.data.trace().double().numpy(), deviation),
    )


def lost_class(found: Agreement) -> tuple[int, float, float] | None:
    """The class whose share fell most: its position, its share over the data's, and the end of that ratio's interval,
    widened for the number of classes; None where nothing fell."""
    shares = found.reference_share
    ratio = np.divide(found.class_share, shares, out=np.ones_like(shares), where=shares > 0)
    worst = int(ratio.argmin())
    if ratio[worst] >= 1:
        return None
    return worst, float(ratio[worst]), float(found.class_high[worst] / shares[worst])


def _held_out(energy: Energy, held_out: Tensor | None, run: LongRun, generator: torch.Generator) -> Statistic:
    if held_out is None or len(held_out) < 2:
        return NOTHING
    random = np.random.default_rng(int(torch.randint(2**31 - 1, (), generator=generator)))
    states = run.kept()
    mine = energies(energy, states.flatten(0, 1)).reshape(states.shape[:2]).mean(1)
    its = energies(energy, held_out)
    mean = [
        random.multinomial(len(values), np.full(len(values), 1 / len(values)), _RESAMPLES) @ values / len(values)
        for values in (mine, its)
    ]
    low, high = np.quantile((mean[0] - mean[1]) / its.std(), [0.025, 0.975])
    return Statistic(float((mine.mean() - its.mean()) / its.std()), float(low), float(high))
