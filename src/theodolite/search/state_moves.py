"""The neighbours of the states of a discrete space, by number: what compiled searches over all states step along.

A state is its index (levels read as digits, coordinate 0 the least significant), a *move* a number 0..n_moves - 1.
``neighbour(state, move, data)`` is compiled and gives the state a move leads to (the state itself where there is no
such neighbour) and the move that leads back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from numba import njit

__all__ = ["StateMoves", "spin_neighbour"]


@njit(nogil=True)
def spin_neighbour(state: int, move: int, masks: np.ndarray) -> tuple[int, int]:
    """Flip one spin: ``masks`` ``(n_moves,)`` holds what the state's index is xored with."""
    return state ^ masks[move], move


# The error model of numpy leaves out a test for division by zero, which takes half the time.
@njit(nogil=True, error_model="numpy")
def any_neighbour(state: int, move: int, strides: np.ndarray) -> tuple[int, int]:
    """Set a coordinate to any level: move = coordinate * n_levels + level; ``strides`` are powers of n_levels."""
    n_levels = strides[1]
    coordinate, level = move // n_levels, move % n_levels
    old = state // strides[coordinate] % n_levels
    return state + (level - old) * strides[coordinate], coordinate * n_levels + old


@njit(nogil=True, error_model="numpy")
def adjacent_neighbour(state: int, move: int, strides: np.ndarray) -> tuple[int, int]:
    """Set a coordinate to the next level: move = 2 * coordinate, plus 1 for the level above."""
    n_levels = strides[1]
    coordinate, up = move >> 1, move & 1
    level = state // strides[coordinate] % n_levels + 2 * up - 1
    if level < 0 or level >= n_levels:
        return state, move
    return state + (2 * up - 1) * strides[coordinate], move ^ 1


@final
class StateMoves:
    """The moves of ``n`` coordinates of ``n_levels`` levels, and how enumerated states stand for states.

    ``neighbourhood``: a step changes one coordinate to "any" level or to an "adjacent" one. Under the ``mirror``
    quotient the enumerated state x stands for the state of index x + 2^(n-1), whose last spin is up, and for its
    mirror image; the move ``crossing`` flips that spin, and leads to the mirror image of what stands for the result.
    """

    def __init__(self, n: int, n_levels: int, neighbourhood: str, mirror: bool) -> None:
        self.n, self.n_levels, self.mirror = n, n_levels, mirror
        self.strides = n_levels ** np.arange(n + 1, dtype=np.int64)
        self.n_states = int(self.strides[n - 1] if mirror else self.strides[n])
        self.crossing = n - 1 if mirror else -1
        self.adjacent = neighbourhood == "adjacent"
        self.neighbour: Callable[..., tuple[int, int]]
        if n_levels == 2:
            self.neighbour, self.data, self.n_moves = spin_neighbour, self.strides[:n].copy(), n
            if mirror:
                self.data[n - 1] = self.n_states - 1
        elif self.adjacent:
            self.neighbour, self.data, self.n_moves = adjacent_neighbour, self.strides, 2 * n
        else:
            self.neighbour, self.data, self.n_moves = any_neighbour, self.strides, n * n_levels

    def index(self, level: np.ndarray) -> np.ndarray:
        """Indices ``(...)`` of states given by levels ``(..., n)``."""
        return level.astype(np.int64) @ self.strides[: self.n]

    def enumerated(self, index: np.ndarray) -> np.ndarray:
        """The enumerated states that stand for states of those indices."""
        if not self.mirror:
            return index
        return np.where(index < self.n_states, self.n_states - 1 - index, index - self.n_states)

    def represented(self, state: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Indices of the states that enumerated states stand for: themselves (image 0) or mirrored (1)."""
        if not self.mirror:
            return state
        return np.where(image == 0, self.n_states + state, self.n_states - 1 - state)

    def follow(self, index: np.ndarray, move: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where moves lead from states of those indices: new indices, the coordinates changed, their new levels."""
        if self.n_levels == 2:
            coordinate = move
            old = index >> coordinate & 1
            new = 1 - old
        elif self.adjacent:
            coordinate = move >> 1
            old = index // self.strides[coordinate] % self.n_levels
            new = old + 2 * (move & 1) - 1
        else:
            coordinate, new = move // self.n_levels, move % self.n_levels
            old = index // self.strides[coordinate] % self.n_levels
        return index + (new - old) * self.strides[coordinate], coordinate, new

    def enumerated_neighbour(self, state: np.ndarray, move: np.ndarray) -> np.ndarray:
        """The enumerated states that moves lead to from enumerated states."""
        return state ^ self.data[move] if self.n_levels == 2 else self.follow(state, move)[0]
