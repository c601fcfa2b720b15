"""ADELM: sort proposed minima into metastable basins by trials of Attraction-Diffusion.

Source: Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", section 4.2 and
Algorithm 3. Its loop over proposals is kept exactly, though proposals run in batches: see `Adelm.step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from theodolite.errors import UserError
from theodolite.sampling.attraction_diffusion import AttractionDiffusion, Trials, checked_alpha, checked_temperature
from theodolite.sampling.attraction_spins import mixed_keys

_ROUNDING = 1e-9  # relative: a minimum lower by less is the same minimum
VARIANTS = ("faithful", "fast", "mutual")
_PAIRS_A_STEP = 2048


@final
@dataclass(frozen=True)
class AdelmState:
    """A mapping under way.

    ``representative`` (basin, *shape) with ``energy`` (basin,): the lowest member of each basin. For each proposal so
    far: ``proposal_point`` X and ``member_point`` Y (proposal, *shape), ``member_energy``, ``label`` (its basin),
    ``level`` (the highest energy of the path that put it there; its own for the founder of a basin), ``reached`` (the
    number of basins reached; -1 where not counted) and ``discovered`` (basins known after it), all (proposal,).
    ``consolidations`` (n, 3): proposals made, basins before and after. ``links`` (n, 2): basins joined by the
    consolidation under way, whose next pair is ``next_pair`` (-1: none is). ``key`` seeds compiled trials.
    """

    key: int
    representative: Tensor
    energy: Tensor
    proposal_point: Tensor
    member_point: Tensor
    member_energy: Tensor
    label: Tensor
    level: Tensor
    reached: Tensor
    discovered: Tensor
    consolidations: Tensor
    links: Tensor
    next_pair: int
    trials: int

    @property
    def n_proposals(self) -> int:
        return len(self.label)

    @property
    def n_basins(self) -> int:
        return len(self.energy)


@final
@dataclass(frozen=True)
class AdelmMap:
    """A finished mapping, basins rising in energy: ``representative`` (basin, *shape), ``energy``, ``member_count``
    (basin,); for each proposal ``proposal_point``, ``member_point``, ``member_energy``, ``label`` (the basin),
    ``discovered``; ``leakage``, the share of proposals after the burn-in that reached more than one basin (NaN where
    not counted); basins before and after the last consolidation; ``trials`` made."""

    representative: Tensor
    energy: Tensor
    member_count: Tensor
    proposal_point: Tensor
    member_point: Tensor
    member_energy: Tensor
    label: Tensor
    discovered: Tensor
    leakage: float
    basins_before_consolidation: int
    basins_after_consolidation: int
    trials: int


@final
@dataclass(frozen=True)
class Adelm:
    """Algorithm 3: ``burn_in`` proposals, a consolidation, then ``test`` proposals; a state machine for `run.drive`.

    ``propose(n, generator)`` gives starting points (n, *shape), ``descend(points)`` their minima and energies
    (n, *shape), (n,). ``temperature`` in units of the field, ``alpha`` in 1 / distance.

    ``variant`` "faithful": trials between each minimum and every representative in both directions; the minimum
    joins the basin with the least barrier among those reached. "fast": representatives are tried from the nearest to
    the farthest, and the minimum joins the first that is reached, in either direction: far fewer trials, but the
    least-barrier assignment of Algorithm 3 and the count of leakage are dropped. "mutual": as faithful, but two minima
    are of one basin only where trials arrive in both directions, so that a deep basin does not swallow a shallow one
    whose barrier back is high: ours, not the paper's.

    A consolidation makes trials between all representatives in both directions; those that are linked, directly or
    by others, become one basin, represented by the lowest. It happens after the burn-in, every ``consolidate_every``
    proposals, and after the last proposal where ``consolidate_last``.

    ``batch``: proposals sorted in one step.

    Raises UserError: a temperature, an alpha or a number of proposals out of its range, an unknown variant.
    """

    diffusion: AttractionDiffusion
    temperature: float
    alpha: float
    propose: Callable[[int, torch.Generator], Tensor]
    descend: Callable[[Tensor], tuple[Tensor, Tensor]]
    burn_in: int = 500
    test: int = 2000
    variant: Literal["faithful", "fast", "mutual"] = "faithful"
    consolidate_every: int | None = None
    consolidate_last: bool = True
    batch: int = 128

    def __post_init__(self) -> None:
        checked_temperature(self.temperature)
        if not float(checked_alpha(self.alpha)) > 0:
            raise UserError("alpha", "a number above 0", f"{self.alpha:g}", "tune() proposes one")
        if self.variant not in VARIANTS:
            raise UserError("variant", f"one of {', '.join(VARIANTS)}", repr(self.variant), "'faithful' is Algorithm 3")
        if self.burn_in < 0 or self.test < 0 or self.burn_in + self.test < 1:
            raise UserError(
                "burn_in, test", "at least one proposal", f"{self.burn_in}, {self.test}", "500 and 2000 are the papers'"
            )
        for name in ("consolidate_every", "batch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(name, "at least 1 proposal", str(getattr(self, name)), "leave it out")

    @property
    def n_proposals(self) -> int:
        return self.burn_in + self.test

    # ------------------------------------------------------------------ state machine

    def init(self, generator: torch.Generator) -> AdelmState:
        """No proposals yet."""
        space = self.diffusion.field.space
        points, numbers = torch.empty((0, *space.shape), dtype=space.dtype), torch.empty(0, dtype=torch.float64)
        counts = torch.empty(0, dtype=torch.int64)
        return AdelmState(
            key=int(torch.randint(2**62, (), generator=generator)),
            representative=points,
            energy=numbers,
            proposal_point=points,
            member_point=points,
            member_energy=numbers,
            label=counts,
            level=numbers,
            reached=counts,
            discovered=counts,
            consolidations=counts.reshape(0, 3),
            links=counts.reshape(0, 2),
            next_pair=-1,
            trials=0,
        )

    def step(self, state: AdelmState, generator: torch.Generator) -> tuple[AdelmState, dict[str, float | str]]:
        """Sort the next batch of proposals, or make some trials of a consolidation.

        Exactness: all proposals of a batch are tried against the current representatives at once, but sorted one
        after another. Where one founds a basin or lowers a representative, the trials of all later proposals against
        the former one are discarded and made again against the new one before they are sorted, so that every
        decision rests on the representatives of its moment, as in Algorithm 3. Compiled trials are seeded by the
        number of the proposal, the basin and the direction, so that the batch changes no result.
        """
        if state.next_pair >= 0 or self._consolidation_due(state):
            state = self._consolidate(state, generator)
            return state, self._info(state, "consolidation")
        ends = [self.n_proposals]
        if state.n_proposals < self.burn_in:
            ends.append(self.burn_in)
        if self.consolidate_every:
            ends.append((state.n_proposals // self.consolidate_every + 1) * self.consolidate_every)
        points = self.propose(min(self.batch, min(ends) - state.n_proposals), generator)
        if len(points):
            state = self._sort(state, points, generator)
        return state, self._info(state, "burn-in" if state.n_proposals <= self.burn_in else "mapping")

    def finished(self, state: AdelmState) -> bool:
        """Whether all proposals are sorted and consolidated."""
        return state.n_proposals >= self.n_proposals and state.next_pair < 0 and not self._consolidation_due(state)

    def stop(self, state: AdelmState, info: object) -> str | None:
        """The stop rule for `run.drive`."""
        return f"All {self.n_proposals} proposals are sorted." if self.finished(state) else None

    def result(self, state: AdelmState) -> AdelmMap:
        """What is known so far, basins rising in energy."""
        order = state.energy.argsort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        label = rank[state.label]
        last = state.consolidations[-1].tolist() if len(state.consolidations) else None
        now = state.n_basins
        after_burn_in = state.reached[self.burn_in :] if state.n_proposals > self.burn_in else state.reached
        counted = after_burn_in[after_burn_in >= 0]
        return AdelmMap(
            state.representative[order],
            state.energy[order],
            torch.bincount(label, minlength=now),
            state.proposal_point,
            state.member_point,
            state.member_energy,
            label,
            state.discovered,
            float((counted > 1).double().mean()) if len(counted) else math.nan,
            last[1] if last and last[0] == state.n_proposals else now,
            now,
            state.trials,
        )

    def _info(self, state: AdelmState, phase: str) -> dict[str, float | str]:
        return {"phase": phase, "proposals": state.n_proposals, "basins": state.n_basins, "trials": state.trials}

    def _consolidation_due(self, state: AdelmState) -> bool:
        n = state.n_proposals
        if n == 0 or (len(state.consolidations) and int(state.consolidations[-1, 0]) == n):
            return False
        after_burn_in = n == self.burn_in
        regular = self.consolidate_every is not None and n % self.consolidate_every == 0
        return after_burn_in or regular or (self.consolidate_last and n >= self.n_proposals)

    # ------------------------------------------------------------------ trials

    def _trials(
        self,
        state: AdelmState,
        start: Tensor,
        target: Tensor,
        names: tuple[Tensor | int, Tensor, Tensor | int],
        generator: torch.Generator,
    ) -> Trials:
        """Trials whose compiled ones are seeded by ``names`` (proposal or pass, basin, basin or direction)."""
        parts = [part.numpy() if isinstance(part, Tensor) else part for part in names]
        keys = mixed_keys(state.key, *parts) if self.diffusion.compiled else None
        return self.diffusion.run_trials(start, target, self.temperature, self.alpha, generator, keys=keys)

    def _levels(
        self,
        state: AdelmState,
        minima: Tensor,
        representative: Tensor,
        numbers: Tensor,
        basins: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, int]:
        """Highest energies (pair,) of the better successful path between minima and representatives (pair, *shape),
        inf where none reached; and the number of trials."""
        n = len(minima)
        if self.variant != "fast":
            direction = torch.arange(2).repeat_interleave(n)
            both = torch.cat([minima, representative]), torch.cat([representative, minima])
            trials = self._trials(state, *both, (numbers.repeat(2), basins.repeat(2), direction), generator)
            found = reached_level(trials).reshape(2, n)
            one_way = torch.isinf(found).any(0) & (self.variant == "mutual")
            return torch.where(one_way, math.inf, found.amin(0)), 2 * n
        level = reached_level(self._trials(state, minima, representative, (numbers, basins, 0), generator))
        back = torch.isinf(level).nonzero()[:, 0]
        if len(back):
            names = (numbers[back], basins[back], 1)
            level[back] = reached_level(self._trials(state, representative[back], minima[back], names, generator))
        return level, n + len(back)

    # ------------------------------------------------------------------ sorting (Algorithm 3, step 3)

    def _sort(self, state: AdelmState, points: Tensor, generator: torch.Generator) -> AdelmState:
        minima, energy = self.descend(points)
        n, first = len(minima), state.n_proposals
        representative, lowest = state.representative, state.energy
        label, level, reached, discovered = [], [], [], []
        table = torch.full((n, len(lowest)), math.nan, dtype=torch.float64)
        made = state.trials
        row = 0
        while row < n:
            order = self._order(minima, representative)
            made += self._fill(state, table, order, row, minima, representative, first, generator)
            while row < n:
                hits = torch.isfinite(table[row])
                founded = not bool(hits.any())
                own = float(energy[row])
                if founded:
                    basin = len(lowest)
                    representative, lowest = (
                        torch.cat([representative, minima[[row]]]),
                        torch.cat([lowest, energy[[row]]]),
                    )
                    table = torch.cat([table, torch.full((n, 1), math.nan, dtype=torch.float64)], 1)
                    level.append(own)
                else:
                    basin = self._choice(table[row], order[row])
                    level.append(float(table[row, basin]))
                old = float(lowest[basin])
                lowered = own < old - _ROUNDING * max(1.0, abs(old))
                if lowered:
                    representative, lowest = representative.clone(), lowest.clone()
                    representative[basin], lowest[basin] = minima[row], own
                    table[:, basin] = math.nan
                label.append(basin)
                reached.append(-1 if self.variant == "fast" else int(hits.sum()))
                discovered.append(len(lowest))
                row += 1
                if founded or lowered:
                    break
        return replace(
            state,
            representative=representative,
            energy=lowest,
            proposal_point=torch.cat([state.proposal_point, points]),
            member_point=torch.cat([state.member_point, minima]),
            member_energy=torch.cat([state.member_energy, energy.double()]),
            label=torch.cat([state.label, torch.tensor(label)]),
            level=torch.cat([state.level, torch.tensor(level, dtype=torch.float64)]),
            reached=torch.cat([state.reached, torch.tensor(reached)]),
            discovered=torch.cat([state.discovered, torch.tensor(discovered)]),
            trials=made,
        )

    def _fill(
        self,
        state: AdelmState,
        table: Tensor,
        order: Tensor,
        row: int,
        minima: Tensor,
        representative: Tensor,
        first: int,
        generator: torch.Generator,
    ) -> int:
        """Make the trials that decide the rows from ``row`` on; NaN in the table is a trial not made."""
        made, ahead = 0, 1
        while True:
            missing = torch.isnan(table[row:])
            if self.variant == "fast" and len(representative):
                # Rows that go on for long go on ahead, ever further: trials are wasted, rounds are saved.
                missing = _next_in_order(table[row:], order[row:], ahead)
                ahead *= 2
            pairs = missing.nonzero()
            if not len(pairs):
                return made
            rows, basins = pairs[:, 0] + row, pairs[:, 1]
            level, n = self._levels(state, minima[rows], representative[basins], rows + first, basins, generator)
            table[rows, basins] = level
            made += n

    def _order(self, minima: Tensor, representative: Tensor) -> Tensor:
        """Basins (row, basin) in the order of trials: from the nearest representative to the farthest ("fast")."""
        if self.variant != "fast" or not len(representative):
            return torch.arange(len(representative)).expand(len(minima), -1)
        power = 1.0 if self.diffusion.chosen_norm == "L1" else 2.0
        far = torch.cdist(minima.flatten(1).double(), representative.flatten(1).double(), p=power)
        return far.sort(stable=True, dim=1).indices

    def _choice(self, levels: Tensor, order: Tensor) -> int:
        """The basin a minimum joins, of those with a finite level (basin,): that with the least, or the first in order
        ("fast", where trials made ahead may have reached others)."""
        if self.variant != "fast":
            return int(torch.where(torch.isnan(levels), math.inf, levels).argmin())
        return int(order[torch.isfinite(levels[order]).nonzero()[0, 0]])

    # ------------------------------------------------------------------ consolidation

    def _consolidate(self, state: AdelmState, generator: torch.Generator) -> AdelmState:
        """Some more ordered pairs of representatives; after the last, merge what is linked."""
        n = state.n_basins
        pair = torch.arange(max(state.next_pair, 0), n * n)
        pair = pair[pair // n != pair % n][:_PAIRS_A_STEP]
        if len(pair):
            first, second = pair // n, pair % n
            names = (-1 - state.n_proposals, first, second)
            representative = state.representative
            trials = self._trials(state, representative[first], representative[second], names, generator)
            found = torch.stack([first, second], 1)[trials.success]
            state = replace(
                state,
                links=torch.cat([state.links, found]),
                trials=state.trials + len(pair),
                next_pair=int(pair[-1]) + 1,
            )
            if int(pair[-1]) < n * n - 2:
                return state
        return _merged(_both_ways(state) if self.variant == "mutual" else state)


def reached_level(trials: Trials) -> Tensor:
    """Highest energy of each trial's path, inf where it failed: (trial,)."""
    return torch.where(trials.success, trials.highest, math.inf)


def _next_in_order(table: Tensor, order: Tensor, ahead: int) -> Tensor:
    """The entries of each row to try next, (row, basin) bool: up to ``ahead`` that were not tried, in order, before
    the first that was reached."""
    ordered = table.gather(1, order)
    open_still = torch.isfinite(ordered).cumsum(1) == 0
    untried = torch.isnan(ordered) & open_still
    chosen = torch.zeros_like(table, dtype=torch.bool)
    return chosen.scatter(1, order, untried & (untried.cumsum(1) <= ahead))


def _both_ways(state: AdelmState) -> AdelmState:
    """Only the links (link, 2) whose reverse was found as well."""
    n = state.n_basins
    there, back = state.links[:, 0] * n + state.links[:, 1], state.links[:, 1] * n + state.links[:, 0]
    return replace(state, links=state.links[torch.isin(there, back)])


def _merged(state: AdelmState) -> AdelmState:
    """Linked basins become one, in the order of their first; the lowest representative stays."""
    n = state.n_basins
    ones = torch.ones(len(state.links)).numpy()
    graph = coo_array((ones, (state.links[:, 0].numpy(), state.links[:, 1].numpy())), shape=(n, n))
    n_groups, found = connected_components(graph, directed=False)
    group = torch.from_numpy(found).long()
    by_energy = state.energy.argsort(stable=True)
    kept = torch.stack([by_energy[group[by_energy] == g][0] for g in range(n_groups)])
    event = torch.tensor([[state.n_proposals, n, n_groups]])
    return replace(
        state,
        representative=state.representative[kept],
        energy=state.energy[kept],
        label=group[state.label],
        consolidations=torch.cat([state.consolidations, event]),
        links=state.links[:0],
        next_pair=-1,
    )
