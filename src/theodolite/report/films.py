"""The paths of a landscape thinned to what a page can carry: energies, and the frames a player shows."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from theodolite.report.landscape import looks

MOST_FRAMES = 48
MOST_STEPS = 240
_ALL_STEPS = 60_000


@dataclass(frozen=True)
class Film:
    """A path between two minima: of its kept steps the number, the energy and the frame that shows it."""

    ends: tuple[int, int]
    step: np.ndarray
    energy: np.ndarray
    frame: np.ndarray


def films(dataset: xr.Dataset, most_frames: int, most_each: int = MOST_FRAMES) -> tuple[list[Film], np.ndarray]:
    """The paths of a Dataset, and the points ``(frame, *shape)`` that their frames show.

    `most_frames`: how many frames all paths may have together (at least three a path are kept: its ends and its
    highest point, which is always kept), `most_each` how many one. Steps between frames show the nearest one.
    """
    shape = looks(dataset, "minimum").shape[1:]
    if "path_minimum" not in dataset or not dataset.sizes.get("path", 0):
        return [], np.empty((0, *shape))
    ends = np.asarray(dataset["path_minimum"].values, int)
    energies = np.asarray(dataset["path_energy"].values, float)
    points = looks(dataset, "path")
    lengths = (
        np.asarray(dataset["path_length"].values, int)
        if "path_length" in dataset
        else np.isfinite(energies).sum(axis=1)
    )
    each = int(np.clip(most_frames // len(ends), 3, most_each))
    steps_each = int(np.clip(_ALL_STEPS // len(ends), each, MOST_STEPS))
    found, shown, n_shown = [], [], 0
    for pair, energy, point, length in zip(ends, energies, points, lengths, strict=True):
        top = int(np.argmax(energy[:length]))
        frames = _spread(int(length), each, top)
        steps = np.union1d(frames, _spread(int(length), steps_each, top))
        nearest = np.abs(steps[:, None] - frames[None, :]).argmin(axis=1)
        found.append(Film((int(pair[0]), int(pair[1])), steps, energy[steps], n_shown + nearest))
        shown.append(np.asarray(point)[frames])
        n_shown += len(frames)
    return found, np.concatenate(shown)


def _spread(length: int, most: int, top: int) -> np.ndarray:
    if length <= most:
        return np.arange(length)
    even = np.round(np.linspace(0, length - 1, most - 1)).astype(int)
    return np.union1d(even, [top])
