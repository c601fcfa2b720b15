"""The verdict of a map: is the list of minima stable, is every barrier known, and is it proven?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from theodolite.instruments.landscape_findings import Barriers, is_exact
from theodolite.instruments.verdict import Check, Judgement

HILL = "Hill, Nijkamp, Zhu (2019). Building a Telescope to Look Into High-Dimensional Image Spaces. Q. Appl. Math. 77."
BECKER = "Becker, Karplus (1997). The topology of multidimensional potential energy surfaces. J. Chem. Phys. 106, 1495."

_EXACT = "barriers are exact"


def stable_list(n_searches: int, last_new: int) -> Check:
    """Nothing new among the listed minima in the last half of the searches (``last_new``: the last that found one)."""
    share = last_new / n_searches if n_searches else 1.0
    return Check(
        "list of minima is stable",
        share,
        "<= 0.5",
        f"the last new one came after {share:.0%} of {n_searches:,} searches",
        np.array(n_searches > 0 and share <= 0.5),
    )


def searches_agree(agreed: bool, n_sweeps: int) -> Check:
    """Two searches from different seeds list the same minima, none of them new in the last half of either."""
    told = f"after {n_sweeps:,} sweeps two seeds {'list the same minima' if agreed else 'list different minima'}"
    return Check("two searches agree", float(agreed), "agree", told, np.array(agreed))


def fresh_searches(n_fresh: int, share_new: float) -> Check:
    """No minimum that is not known yet, from fresh random starts."""
    told = f"{share_new:.1%} of {n_fresh:,} fresh searches found one" if n_fresh else "no fresh searches were made"
    return Check("no minimum is missing", share_new, "0 new", told, np.array(n_fresh > 0 and share_new == 0))


def whole_grid(n_points: int, total: int) -> Check:
    """The whole grid was evaluated."""
    told = f"{n_points:,} of {total:,} points were evaluated"
    return Check("whole grid evaluated", float(n_points), f"{total:,} points", told, np.array(n_points == total))


def all_joined(upper: np.ndarray) -> Check:
    """Every pair of minima has a path."""
    apart = int(np.isinf(upper).sum() // 2)
    sentence = f"{apart} pairs without"
    return Check("every pair has a path", float(apart), "0 pairs without", sentence, np.array(apart == 0))


def little_leakage(leakage: float, most: float) -> Check:
    """Few proposals reach more than one basin: else temperature or magnetisation is too high."""
    return Check(
        "little leakage",
        leakage,
        f"<= {most}",
        f"{leakage:.0%} of proposals reached more than one basin",
        np.array(leakage <= most),
    )


def proven(tree: np.ndarray) -> Check:
    """How many merges of the tree are exact; not a condition of the list or the paths."""
    exact = int(is_exact(tree[:, 3], tree[:, 2]).sum()) if len(tree) else 0
    return Check(
        _EXACT,
        float(exact),
        f"of {len(tree)} merges",
        f"{exact} of {len(tree)} merges are proven exact, the others are intervals",
        np.array(exact == len(tree)),
    )


def judged(first: Check, barriers: Barriers, minima: str, *, proven_list: bool) -> Judgement:
    """The checks of a map, ``first`` being the one of its list of ``minima``, and its verdict."""
    checks = (first, all_joined(barriers.upper), proven(barriers.tree))
    return Judgement(checks, *_verdict(checks, barriers.tree, minima, proven_list))


def judged_basins(checks: Sequence[Check], n_basins: int, temperature: float, alpha: float) -> Judgement:
    """The verdict of a map of metastable basins: estimates at a temperature and a magnetisation."""
    basins = "1 basin is" if n_basins == 1 else f"{n_basins} basins are"
    what = f"{basins} metastable at T = {temperature:.3g}, alpha = {alpha:.3g}"
    failed = _failed(checks)
    if failed:
        return Judgement(checks, "not converged", f"Not converged: {what}, but {_reasons(failed)}.")
    return Judgement(checks, "converged", f"Converged: {what}; barriers between them are upper bounds.")


def counted(n: int) -> str:
    """ "1 minimum", "7 minima"."""
    return f"{n:,} minimum" if n == 1 else f"{n:,} minima"


def _verdict(checks: Sequence[Check], tree: np.ndarray, minima: str, proven_list: bool) -> tuple[str, str]:
    """The word and the sentence. Failing any check but exactness: not converged; else exact, bracketed or converged.

    ``minima`` says, in words, which are listed. ``proven_list``: that they are the lowest is proven, or found twice
    alike; a list by one search is never called exact.
    """
    failed = [check for check in _failed(checks) if check.name != _EXACT]
    if failed:
        return "not converged", f"Not converged: {_reasons(failed)}."
    open_merges = tree[~is_exact(tree[:, 3], tree[:, 2])] if len(tree) else tree
    if not len(open_merges):
        if not proven_list:
            return "converged", f"Converged: {minima} found, and later searches find no other."
        return "exact", f"Exact: {minima}; every barrier between them is proven."
    widest = float((open_merges[:, 2] - open_merges[:, 3]).max())
    return (
        "bracketed",
        f"Bracketed: {minima}; {len(tree) - len(open_merges)} of {len(tree)} merges of the tree are proven exact, "
        f"the others lie in intervals at most {widest:.3g} wide.",
    )


def _failed(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.passed is not None and not np.all(check.passed)]


def _reasons(failed: Sequence[Check]) -> str:
    return "; ".join(f"{check.name}: {check.sentence}" for check in failed)
