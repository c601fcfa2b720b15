"""How fast weights are learned, as data: phases of an optimiser whose rate falls geometrically.

"adam:1e-3:1e-4:0.5,sgd:1e-2:1e-3:0.5" is Adam for the first half of the updates, then plain descent. Source: Hill 2020
(PhD thesis, UCLA), section 3.1.1 (a rate that decays exponentially) and section 3.4.2 (Adam first, then SGD).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from theodolite.errors import UserError

OPTIMISERS = ("adam", "sgd")
_EXPECTED = 'phases "optimiser:first rate:last rate[:share]", comma-separated'
_REMEDY = 'for example "adam:1e-3:1e-5", or "adam:1e-3:1e-4:0.5,sgd:1e-2:1e-3:0.5"'


@dataclass(frozen=True)
class Phase:
    """``optimiser`` "adam" or "sgd" (no momentum), its ``first`` and ``last`` rate, its ``share`` of all updates."""

    optimiser: str
    first: float
    last: float
    share: float


@final
@dataclass(frozen=True)
class Schedule:
    """Phases one after the other; their shares sum to 1."""

    phases: tuple[Phase, ...]

    @classmethod
    def parse(cls, text: str, argument: str = "schedule") -> Schedule:
        """Read the text above; shares that are left out divide what is left equally, and all are scaled to sum to 1.

        Raises UserError, naming ``argument``, for anything else.
        """
        parts = [part.strip().split(":") for part in str(text).split(",")]
        if not all(len(part) in (3, 4) and part[0].strip().lower() in OPTIMISERS for part in parts):
            raise UserError(argument, _EXPECTED, repr(text), _REMEDY)
        rates = [[_number(text, argument, number) for number in part[1:]] for part in parts]
        given = [rate[2] for rate in rates if len(rate) == 3]
        n_open = len(parts) - len(given)
        if n_open and sum(given) >= 1:
            raise UserError(argument, "shares below 1 in total where one is left out", repr(text), _REMEDY)
        rest = (1 - sum(given)) / n_open if n_open else 0.0
        shares = [rate[2] if len(rate) == 3 else rest for rate in rates]
        return cls(
            tuple(
                Phase(part[0].strip().lower(), rate[0], rate[1], share / sum(shares))
                for part, rate, share in zip(parts, rates, shares, strict=True)
            )
        )

    def at(self, fraction: float) -> tuple[int, float]:
        """The place of the phase and its rate where ``fraction`` of the updates, from 0 to 1, are done."""
        begun = 0.0
        for place, phase in enumerate(self.phases):
            # Shares are rounded numbers: the last phase takes what their sum leaves.
            if fraction < begun + phase.share or place == len(self.phases) - 1:
                within = min(1.0, max(0.0, (fraction - begun) / phase.share))
                return place, phase.first * (phase.last / phase.first) ** within
            begun += phase.share
        raise UserError("phases", "at least one", "none", _REMEDY)


def _number(text: str, argument: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(argument, f"{_EXPECTED}, finite numbers above 0", repr(text), _REMEDY)
    return value
