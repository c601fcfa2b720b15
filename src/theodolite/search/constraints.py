"""What a flip point may change and what it must keep: a user's constraints, checked as a whole, in words, from text.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", section 2:
"other constraints can be added as well ... fix certain patches ... only certain colors ... discrete features".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.search.constraint_rules import Rules
from theodolite.search.linear_equalities import LinearEquality, LuminanceKept, Sum
from theodolite.search.regions import Region

Features = Sequence[int] | Tensor  # indices of the flat point, or a boolean tensor of the point's shape
Bound = float | Tensor | Mapping[int, float]  # for all, for each, or for the features named

_TEXT_KEYS = (
    "fixed mask patch channels low high increasing decreasing whole one_hot sum luminance_kept (several apart by ;)"
)


@final
@dataclass(frozen=True, eq=False)
class Constraints:
    """Each names features by indices of the flat point or by a boolean tensor of the point's shape.

    ``fixed``: these stay. ``mask``: only these change. ``patch``: only these (rows, columns) of an image change, such
    as ``(range(4, 20), range(8, 12))``. ``channels``: only these channels of an image ``(channels, rows, columns)``
    change. ``low``, ``high``: bounds beside those of the space, one number, one a feature, or ``{feature: bound}``.
    ``increasing``, ``decreasing``: these never fall, never rise. ``whole``: these take whole numbers. ``one_hot``:
    groups of features of which one is 1 and the others 0. ``equalities``: `Equalities`, `Sum`, `LuminanceKept`.

    Raises UserError where they contradict each other whatever the input: features outside the point, crossed bounds,
    nothing left to change, no whole number within bounds, equalities that no point of the box satisfies.
    """

    fixed: Features | None = None
    mask: Features | None = None
    patch: tuple[Sequence[int], Sequence[int]] | None = None
    channels: Sequence[int] | None = None
    low: Bound | None = None
    high: Bound | None = None
    increasing: Features | None = None
    decreasing: Features | None = None
    whole: Features | None = None
    one_hot: Sequence[Features] | None = None
    equalities: LinearEquality | Sequence[LinearEquality] | None = None

    @property
    def empty(self) -> bool:
        """Nothing is asked for."""
        return all(getattr(self, name) is None for name in self.__dataclass_fields__)

    def rules(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Rules:
        """The constraints on points of ``shape`` in the box ``low``, ``high`` ``(n,)`` (an `Outputs` has all three)."""
        n = math.prod(shape)
        movable = self._movable(shape)
        increasing, decreasing = (_chosen(self, name, shape) for name in ("increasing", "decreasing"))
        both = increasing & decreasing
        if bool(both.any()):
            first = int(both.nonzero()[0])
            raise UserError("increasing", "features apart from decreasing", f"{first} in both", "name it in fixed")
        low = torch.maximum(low.double(), _bound("low", self.low, shape, -math.inf))
        high = torch.minimum(high.double(), _bound("high", self.high, shape, math.inf))
        whole = _chosen(self, "whole", shape)
        groups = self._groups(shape)
        for group in groups:
            whole[group] = True
            low[group], high[group] = low[group].clamp(min=0.0), high[group].clamp(max=1.0)
        low, high = torch.where(whole, low.ceil(), low), torch.where(whole, high.floor(), high)
        if bool((low > high).any()):
            first = int((low > high).nonzero()[0])
            kind = "a whole number" if bool(whole[first]) else "a value"
            raise UserError("constraints", f"{kind} within the bounds of feature {first}", "none", "widen its bounds")
        if not bool((movable & (low < high)).any()):
            raise UserError("constraints", "some feature that may change", "none", "free some")
        rows = [equality.rows(shape) for equality in self._equalities()]
        for group in groups:
            member = torch.zeros((1, n), dtype=torch.float64)
            member[0, group] = 1.0
            rows.append((member, torch.ones(1, dtype=torch.float64)))
        matrix = torch.cat([row[0] for row in rows]) if rows else None
        offset = torch.cat([row[1] for row in rows]) if rows else None
        rules = Rules(movable, low, high, increasing, decreasing, whole, groups, matrix, offset)
        _refuse_unreachable(rules)
        return rules

    def region(self, low: Tensor, high: Tensor, shape: tuple[int, ...], inputs: Tensor, norm: str = "L2") -> Region:
        """Where flip points of ``inputs (image, n)`` may lie, whole numbers aside; see `Rules.region`."""
        return self.rules(low, high, shape).region(inputs, norm)

    def describe(self) -> str:
        """The constraints in words."""
        parts = [
            f"{sentence} {_named(getattr(self, name))}"
            for name, sentence in (
                ("fixed", "fixed:"),
                ("mask", "only these change:"),
                ("channels", "only these channels change:"),
                ("increasing", "may only grow:"),
                ("decreasing", "may only shrink:"),
                ("whole", "whole numbers:"),
            )
            if getattr(self, name) is not None
        ]
        if self.patch is not None:
            parts.append(f"only the patch of rows {_named(self.patch[0])}, columns {_named(self.patch[1])} changes")
        for name, sign in (("low", ">="), ("high", "<=")):
            if (bound := getattr(self, name)) is not None:
                parts.append(f"{_bound_words(bound, sign)}")
        parts += [f"one of these is 1, the others 0: {_named(group)}" for group in self.one_hot or ()]
        parts += [equality.words() for equality in self._equalities()]
        return "; ".join(parts) if parts else "none"

    def _equalities(self) -> tuple[LinearEquality, ...]:
        if self.equalities is None:
            return ()
        return tuple(self.equalities) if isinstance(self.equalities, Sequence) else (self.equalities,)

    def _movable(self, shape: tuple[int, ...]) -> Tensor:
        movable = ~_chosen(self, "fixed", shape)
        if self.mask is not None:
            movable &= _chosen(self, "mask", shape)
        grid = torch.ones(shape, dtype=torch.bool)
        if self.patch is not None:
            if len(shape) < 2:
                raise UserError("patch", "images with rows and columns", f"points {shape}", "use mask")
            rows, columns = (_indices("patch", part, size) for part, size in zip(self.patch, shape[-2:], strict=True))
            inside = torch.zeros(shape, dtype=torch.bool)
            inside[..., rows[:, None], columns] = True
            grid &= inside
        if self.channels is not None:
            if len(shape) != 3:
                raise UserError("channels", "images (channels, rows, columns)", f"points {shape}", "use mask")
            named = torch.zeros(shape, dtype=torch.bool)
            named[_indices("channels", self.channels, shape[0])] = True
            grid &= named
        return movable & grid.flatten()

    def _groups(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        groups = tuple(_features("one_hot", group, shape) for group in self.one_hot or ())
        seen = torch.zeros(math.prod(shape), dtype=torch.bool)
        for group in groups:
            if len(group) < 2 or bool(seen[group].any()):
                raise UserError(
                    "one_hot", "two or more features, each in one group", f"{group.tolist()}", "list each feature once"
                )
            seen[group] = True
        return groups


def parse_constraints(text: str) -> Constraints:
    """Constraints from text: ``"fixed=0-27;whole=3,4;one_hot=5-8;one_hot=9-11;low=0.1;high=3:0.5"``.

    Items are separated by ``;``. ``fixed``, ``mask``, ``channels``, ``increasing``, ``decreasing``, ``whole``: features
    such as ``0-27,30`` (both ends included). ``patch=4-19x8-11``: rows x columns. ``low``, ``high``: a number for all,
    or ``features:number``, repeated at will. ``one_hot``: a group, repeated at will. ``sum=0-9``: this sum is kept;
    ``sum=0-9:1.5``: it is 1.5. ``luminance_kept``. Raises UserError for any other text.
    """
    given: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        key, separator, value = (part.strip() for part in item.partition("="))
        if key == "luminance_kept" and not separator:
            _collect(given, "equalities", LuminanceKept())
        elif key == "sum":
            features, colon, total = value.partition(":")
            _collect(given, "equalities", Sum(_parsed(item, features), _number(item, total) if colon else None))
        elif key == "one_hot":
            _collect(given, "one_hot", _parsed(item, value))
        elif key in ("low", "high"):
            _collect_bound(given, key, item, value)
        elif key in ("fixed", "mask", "channels", "increasing", "decreasing", "whole", "patch") and key not in given:
            if key == "patch":
                rows, cross, columns = value.partition("x")
                given[key] = (_parsed(item, rows), _parsed(item, columns if cross else ""))
            else:
                given[key] = _parsed(item, value)
        else:
            raise UserError("constraints", _TEXT_KEYS, repr(item), "for example fixed=0-27;whole=3,4")
    return Constraints(**given)  # type: ignore[arg-type]


def _collect(given: dict[str, object], key: str, value: object) -> None:
    kept = given.setdefault(key, [])
    if isinstance(kept, list):
        kept.append(value)


def _collect_bound(given: dict[str, object], key: str, item: str, value: str) -> None:
    features, colon, number = value.rpartition(":")
    known = given.setdefault(key, {} if colon else _number(item, number))
    if colon and isinstance(known, dict):
        known.update(dict.fromkeys(_parsed(item, features), _number(item, number)))
    elif colon or isinstance(known, dict) or known != _number(item, number):
        raise UserError("constraints", f"one {key} for all features, or one for each named", repr(item), "give one")


def _number(item: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError("constraints", "a number", repr(item), "for example high=3:0.5") from None


def _parsed(item: str, text: str) -> list[int]:
    """``0-3,7`` -> 0, 1, 2, 3, 7."""
    features: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
            raise UserError("constraints", "features such as 0-27,30", repr(item), "count from 0")
        features += range(int(first), (int(last) if dash else int(first)) + 1)
    return features


def _chosen(constraints: Constraints, name: str, shape: tuple[int, ...]) -> Tensor:
    """``(n,)`` bool: the features named."""
    chosen = torch.zeros(math.prod(shape), dtype=torch.bool)
    features = getattr(constraints, name)
    if features is not None:
        chosen[_features(name, features, shape)] = True
    return chosen


def _features(name: str, features: Features, shape: tuple[int, ...]) -> Tensor:
    """Indices ``(k,)`` of the flat point."""
    given = torch.as_tensor(features)
    if given.dtype == torch.bool:
        if tuple(given.shape) not in (shape, (math.prod(shape),)):
            raise UserError(name, f"a boolean mask of shape {shape}", f"{tuple(given.shape)}", "one value a feature")
        return given.flatten().nonzero()[:, 0]
    return _indices(name, features, math.prod(shape))


def _indices(name: str, features: Features, n: int) -> Tensor:
    given = torch.as_tensor(features)
    if given.numel() == 0:
        return torch.zeros(0, dtype=torch.long)
    if given.is_floating_point() or given.dtype == torch.bool or given.ndim != 1:
        raise UserError(name, "whole numbers or a boolean mask", f"{given.dtype} {tuple(given.shape)}", "count from 0")
    if not 0 <= int(given.min()) <= int(given.max()) < n:
        raise UserError(name, f"indices 0 to {n - 1}", f"{int(given.min())} to {int(given.max())}", "count from 0")
    return given.long()


def _bound(name: str, bound: Bound | None, shape: tuple[int, ...], default: float) -> Tensor:
    """``(n,)`` float64."""
    n = math.prod(shape)
    full = torch.full((n,), default, dtype=torch.float64)
    if bound is None:
        return full
    if isinstance(bound, Mapping):
        full[_indices(name, list(bound), n)] = torch.tensor(list(bound.values()), dtype=torch.float64)
    else:
        given = torch.as_tensor(bound, dtype=torch.float64)
        if given.ndim and tuple(given.shape) not in (shape, (n,)):
            raise UserError(name, f"a number or numbers of shape {shape}", f"{tuple(given.shape)}", "one a feature")
        full = given.flatten().expand(n).clone()
    if bool(full.isnan().any()):
        raise UserError(name, "numbers", "NaN", "leave out features without a bound")
    return full


def _refuse_unreachable(rules: Rules) -> None:
    if rules.matrix is None or rules.offset is None:
        return
    given = ~rules.offset.isnan()
    if not bool(given.any()):
        return
    kept = Rules(
        rules.movable, rules.low, rules.high, rules.increasing, rules.decreasing, rules.whole, rules.groups,
        rules.matrix[given], rules.offset[given],
    )  # fmt: skip
    if not kept.reachable(rules.low, rules.high, rules.offset[given]):
        raise UserError(
            "constraints", "equalities that some point within the bounds satisfies", "none does", "widen the bounds"
        )


def _named(features: Features) -> str:
    """Features as runs, ``0-27, 30``; a long list by its size."""
    given = torch.as_tensor(features)
    index = given.flatten().nonzero()[:, 0] if given.dtype == torch.bool else given
    numbers = sorted(set(index.tolist()))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    if len(runs) > 8:
        return f"{len(numbers)} features"
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs) or "none"


def _bound_words(bound: Bound, sign: str) -> str:
    if isinstance(bound, Mapping):
        if len(bound) > 8:
            return f"{len(bound)} features {sign} their own bounds"
        return ", ".join(f"feature {feature} {sign} {value:g}" for feature, value in bound.items())
    given = torch.as_tensor(bound)
    return f"all features {sign} {float(given):g}" if given.ndim == 0 else f"each feature {sign} its own bound"
