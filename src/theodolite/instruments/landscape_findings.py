"""What a landscape survey found, whatever the method, and how it becomes a labelled dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite import disconnectivity
from theodolite.errors import UserError
from theodolite.instruments.landscape_pictures import Picture, pictures
from theodolite.instruments.surveying import check_variables
from theodolite.instruments.verdict import Judgement
from theodolite.result import validate
from theodolite.space import DiscreteSpace, Space

Label = Callable[[Tensor], Sequence[str]]

_LARGEST_LISTED = 4000  # minima whose barrier matrices (128 MB each) are still worth keeping
_FEWEST_EMBEDDED = 10  # members that are worth a picture of where they lie
_ROUNDING = 1e-9  # of the scale of the energies


@dataclass(frozen=True)
class LandscapePath:
    """A path between the minima ``first`` and ``second``: ``point`` ``(step, *point)``, ``energy`` ``(step,)``."""

    first: int
    second: int
    point: np.ndarray
    energy: np.ndarray


@dataclass(frozen=True)
class Members:
    """Minima found on the way: ``point`` ``(member, *point)``, ``energy`` and ``basin`` ``(member,)``; ``latent``
    ``(member, axis)`` where they were proposed from a latent space."""

    point: np.ndarray
    energy: np.ndarray
    basin: np.ndarray
    latent: np.ndarray | None = None


@dataclass(frozen=True)
class Barriers:
    """``lower`` and ``upper`` ``(minimum, minimum)`` bounds, symmetric and closed under min-max, the energies on the
    diagonal; ``tree`` their disconnectivity graph, which ``paths`` span where they are known."""

    upper: np.ndarray
    lower: np.ndarray
    tree: np.ndarray
    paths: Sequence[LandscapePath]


@dataclass(frozen=True)
class LandscapeFindings:
    """``point`` ``(minimum, *point)`` rising in ``energy`` ``(minimum,)``; ``variables``: the method's own, name to
    (dims, values)."""

    method: str
    point: np.ndarray
    energy: np.ndarray
    barriers: Barriers
    judgement: Judgement
    citations: Sequence[str]
    member_count: np.ndarray | None = None
    members: Members | None = None
    variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict)


def to_dataset(
    found: LandscapeFindings,
    space: Space,
    label: Label | None,
    attributes: Mapping[str, str | int | float],
    picture: Picture | None = None,
) -> xarray.Dataset:
    """The landscape dataset of docs/architecture.md, validated against the schema; with what its points look like
    where ``picture`` maps them ``(n, *shape)`` to images.

    Raises UserError where more minima are listed than their barrier matrices are worth keeping, and what
    `landscape_pictures.pictures` raises.
    """
    if len(found.energy) > _LARGEST_LISTED:
        raise UserError(
            "n_minima", f"at most {_LARGEST_LISTED} minima in a result", f"{len(found.energy)}", "list fewer minima"
        )
    point_dims = tuple(f"point_{axis}" for axis in range(len(space.shape)))
    variables: dict[str, tuple] = {
        "minimum_point": (("minimum", *point_dims), _stored(found.point, space)),
        "energy": (("minimum",), found.energy),
        "barrier_upper_bound": (("minimum", "other_minimum"), found.barriers.upper),
        "barrier_lower_bound": (("minimum", "other_minimum"), found.barriers.lower),
        "disconnectivity": (("merge", "merge_part"), found.barriers.tree),
        **check_variables(found.judgement.checks),
        "verdict": ((), found.judgement.word),
        "verdict_sentence": ((), found.judgement.sentence),
        **found.variables,
    }
    if found.member_count is not None:
        variables["member_count"] = (("minimum",), found.member_count)
    if label is not None:
        variables["minimum_label"] = (("minimum",), _labels(label, found.point))
    if found.barriers.paths:
        variables |= _path_variables(found.barriers.paths, space, point_dims)
    if found.members is not None and len(found.members.energy):
        variables |= _member_variables(found.members, space, label, point_dims)
    coordinates = {"merge_part": (("merge_part",), np.array(disconnectivity.MERGE_PARTS))}
    if picture is not None:
        variables |= pictures(picture, space, variables)
    return validate(xarray.Dataset(variables, coordinates, dict(attributes)))


def least_lower_bounds(energy: np.ndarray) -> np.ndarray:
    """The bound that needs no search: every path includes both of its ends. ``(minimum, minimum)``."""
    return np.maximum(energy[:, None], energy[None, :])


def unknown_barriers(energy: np.ndarray) -> Barriers:
    """What is known of the barriers between minima before any path is."""
    upper = np.full((len(energy), len(energy)), np.inf)
    np.fill_diagonal(upper, energy)
    lower = least_lower_bounds(energy)
    return Barriers(upper, lower, disconnectivity.tree(energy, upper, lower), [])


def is_exact(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Where an interval is a point, up to the rounding of sums of energies."""
    scale = max(1.0, float(np.abs(upper[np.isfinite(upper)]).max(initial=0.0)))
    return upper - lower <= _ROUNDING * scale


def _in_the_plane(point: np.ndarray) -> np.ndarray:
    """Members ``(n, 2)`` by t-SNE of van der Maaten and Hinton 2008; near members stay near, distances mean little."""
    from sklearn.manifold import TSNE

    flat = point.reshape(len(point), -1).astype(np.float64)
    # Members of one minimum coincide; a jitter far below any distance keeps t-SNE's neighbourhoods defined.
    flat = flat + 1e-6 * np.random.default_rng(0).normal(size=flat.shape)
    perplexity = min(30.0, (len(flat) - 1) / 3)
    return TSNE(init="pca" if flat.shape[1] > 1 else "random", perplexity=perplexity, random_state=0).fit_transform(
        flat
    )


def _labels(label: Label, point: np.ndarray) -> np.ndarray:
    return np.array([str(word) for word in label(torch.as_tensor(point))])


def _stored(point: np.ndarray, space: Space) -> np.ndarray:
    """Points in the least type that holds them: a spin is a byte."""
    if not isinstance(space, DiscreteSpace):
        return np.asarray(point, dtype=np.float64)
    return np.asarray(point, dtype=np.int8 if space.levels <= 128 else np.int16)


def _path_variables(paths: Sequence[LandscapePath], space: Space, point_dims: tuple[str, ...]) -> dict[str, tuple]:
    longest = max(len(path.energy) for path in paths)
    point = np.stack([_padded(_stored(path.point, space), longest) for path in paths])
    energy = np.full((len(paths), longest), np.nan)
    for row, path in zip(energy, paths, strict=True):
        row[: len(path.energy)] = path.energy
    return {
        "path_minimum": (("path", "path_end"), np.array([(path.first, path.second) for path in paths])),
        "path_length": (("path",), np.array([len(path.energy) for path in paths])),
        "path_point": (("path", "path_step", *point_dims), point),
        "path_energy": (("path", "path_step"), energy),
    }


def _padded(point: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([point, np.repeat(point[-1:], length - len(point), axis=0)])


def _member_variables(
    members: Members, space: Space, label: Label | None, point_dims: tuple[str, ...]
) -> dict[str, tuple]:
    variables: dict[str, tuple] = {
        "member_point": (("member", *point_dims), _stored(members.point, space)),
        "member_energy": (("member",), members.energy),
        "basin": (("member",), members.basin),
    }
    if label is not None:
        variables["member_label"] = (("member",), _labels(label, members.point))
    if len(members.energy) >= _FEWEST_EMBEDDED:
        variables["member_embedding"] = (("member", "axis"), _in_the_plane(members.point))
    if members.latent is not None:
        variables["member_latent"] = (("member", "axis"), members.latent[:, :2])
    return variables
