"""Minimum spanning forests of minima and their mirror images: barriers, routes and what is left to prove.

A network of `spin_network` lists each mirror pair once; Kruskal's algorithm runs on the nodes, two a pair. The
highest level on the forest's path between two nodes is their lowest barrier over all known passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from theodolite.search.spin_network import ALWAYS, NEVER


@njit
def root_of(parent: np.ndarray, i: Any) -> Any:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return np.int64(i)


@njit
def span(
    sheets: int,
    energy: np.ndarray,
    ceiling: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    parity: np.ndarray,
    level: np.ndarray,
    order: np.ndarray,
    listed: np.ndarray,
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Kruskal over the passes in ``order`` (rising level); ``listed`` (node,) is a listed minimum's rank or -1.

    Returns which image of each pass is in the forest ``(pass, sheets)``; the merges of listed minima, ``(m,)`` each:
    the lowest listed minimum of both sides and the level; the ``required`` ceilings (minimum,) that would prove all of
    them; and how many are proven. A merge at level L is proven by one side alone: where no pass known leaves it below
    L, and its trees are enumerated up to L, every path out of it reaches L. The side whose lowest minimum is higher is
    chosen (it has fewer states); a minimum needs the highest level of all chosen sides it belongs to. Sides not
    connected to the lowest one need all.
    """
    n_minima, n_nodes = len(energy), sheets * len(energy)
    parent = np.arange(n_nodes).astype(np.int32)
    branch = np.arange(n_nodes).astype(np.int32)
    up = np.full(2 * n_nodes, -1, np.int32)
    tag = np.full(2 * n_nodes, NEVER, np.int64)
    lowest = np.empty(n_nodes, np.int64)
    known = np.empty(n_nodes, np.int64)
    lead = listed.copy()
    n_proven = 0
    for node in range(n_nodes):
        lowest[node] = energy[node // sheets]
        known[node] = max(energy[node // sheets], ceiling[node // sheets])
    n_listed = 0
    for node in range(n_nodes):
        n_listed += listed[node] >= 0
    used = np.zeros((len(order), sheets), np.bool_)
    merges = np.empty((max(n_listed - 1, 0), 2), np.int64)
    merge_level = np.empty(max(n_listed - 1, 0), np.int64)
    n_merges = 0
    n_branches = n_nodes
    for m in order:
        for sheet in range(sheets):
            a = root_of(parent, sheets * first[m] + sheet)
            b = root_of(parent, sheets * second[m] + (sheet ^ parity[m]))
            if a == b:
                continue
            used[m, sheet] = True
            if lowest[a] > lowest[b] or (lowest[a] == lowest[b] and a > b):
                a, b = b, a
            if lead[a] >= 0 and lead[b] >= 0:
                tag[branch[b]] = level[m]
                merges[n_merges, 0] = lead[a]
                merges[n_merges, 1] = lead[b]
                merge_level[n_merges] = level[m]
                n_merges += 1
                n_proven += max(known[a], known[b]) >= level[m]
            known[a] = min(known[a], known[b])
            up[branch[a]] = n_branches
            up[branch[b]] = n_branches
            branch[a] = n_branches
            n_branches += 1
            parent[b] = a
            lead[a] = _lower_listed(lead[a], lead[b])
    eldest = -1
    for node in range(n_nodes):
        if parent[node] == node and lead[node] >= 0 and (eldest < 0 or lowest[node] < lowest[eldest]):
            eldest = node
    for node in range(n_nodes):
        if parent[node] == node and lead[node] >= 0 and node != eldest:
            tag[branch[node]] = ALWAYS
    for at in range(n_branches - 1, -1, -1):
        if up[at] >= 0:
            tag[at] = max(tag[at], tag[up[at]])
    required = np.full(n_minima, NEVER, np.int64)
    for node in range(n_nodes):
        required[node // sheets] = max(required[node // sheets], tag[node])
    first_listed, second_listed = merges[:n_merges, 0].copy(), merges[:n_merges, 1].copy()
    return used, first_listed, second_listed, merge_level[:n_merges].copy(), required, n_proven


@njit
def _lower_listed(a: Any, b: Any) -> Any:
    """Listed minima are numbered by rising energy; -1 is none."""
    if a < 0:
        return b
    if b < 0:
        return a
    return min(a, b)


@njit
def proven_merges(
    sheets: int,
    n_minima: int,
    first: np.ndarray,
    second: np.ndarray,
    parity: np.ndarray,
    order: np.ndarray,
    height: np.ndarray,
    listed: np.ndarray,
) -> tuple[Any, Any, Any]:
    """The least levels at which listed minima can be joined by known passes or by what is not known yet.

    What is not known leaves a tree at its ceiling or above (at its minimum's energy where it has none): one more
    node, the unknown, joined to every node at that level. The bottleneck of two minima in this network is a proven
    lower bound of their barrier: below it the set around one of them has no known pass out and no unknown one.
    ``height`` (pass + minimum,) are the levels of the passes and those of the ways to the unknown, ``order`` rises in
    them. Returns the merges of listed minima as `span` does.
    """
    n_nodes = sheets * n_minima
    n_passes = len(first)
    parent = np.arange(n_nodes + 1).astype(np.int32)
    lead = np.full(n_nodes + 1, -1, np.int32)
    lead[:n_nodes] = listed
    n_listed = 0
    for node in range(n_nodes):
        n_listed += listed[node] >= 0
    merges = np.empty((max(n_listed - 1, 0), 2), np.int64)
    merge_level = np.empty(max(n_listed - 1, 0), np.int64)
    n_merges = 0
    for m in order:
        for sheet in range(sheets):
            if m < n_passes:
                a = root_of(parent, sheets * first[m] + sheet)
                b = root_of(parent, sheets * second[m] + (sheet ^ parity[m]))
            else:
                a = root_of(parent, sheets * (m - n_passes) + sheet)
                b = root_of(parent, n_nodes)
            if a == b:
                continue
            if lead[a] >= 0 and lead[b] >= 0:
                merges[n_merges, 0] = lead[a]
                merges[n_merges, 1] = lead[b]
                merge_level[n_merges] = height[m]
                n_merges += 1
            parent[b] = a
            lead[a] = _lower_listed(lead[a], lead[b])
    return merges[:n_merges, 0].copy(), merges[:n_merges, 1].copy(), merge_level[:n_merges].copy()


@njit
def route(
    sheets: int,
    n_minima: int,
    first: np.ndarray,
    second: np.ndarray,
    parity: np.ndarray,
    used: np.ndarray,
    start: int,
    goal: int,
) -> Any:
    """The forest's path from one node to another: rows (pass, sheet of its first minimum, 1 where walked backwards).

    ``used`` is what `span` returned. Empty where there is no path, or where it has no passes.
    """
    n_nodes = sheets * n_minima
    begin = np.zeros(n_nodes + 1, np.int64)
    for m in range(len(first)):
        for sheet in range(sheets):
            if used[m, sheet]:
                begin[sheets * first[m] + sheet + 1] += 1
                begin[sheets * second[m] + (sheet ^ parity[m]) + 1] += 1
    for node in range(n_nodes):
        begin[node + 1] += begin[node]
    filled = begin[:-1].copy()
    edge = np.empty(begin[-1], np.int64)
    for m in range(len(first)):
        for sheet in range(sheets):
            if used[m, sheet]:
                for node in (sheets * first[m] + sheet, sheets * second[m] + (sheet ^ parity[m])):
                    edge[filled[node]] = sheets * m + sheet
                    filled[node] += 1
    # Backwards from the goal, so that the predecessors lead from the start to it.
    arrived = np.full(n_nodes, -1, np.int64)
    queue = np.empty(n_nodes, np.int64)
    queue[0] = goal
    n_queued, at = 1, 0
    while at < n_queued and arrived[start] < 0:
        node = queue[at]
        at += 1
        for place in range(begin[node], begin[node + 1]):
            if edge[place] == arrived[node]:
                continue
            m, sheet = edge[place] // sheets, edge[place] % sheets
            other = sheets * first[m] + sheet
            if other == node:
                other = sheets * second[m] + (sheet ^ parity[m])
            arrived[other] = edge[place]
            queue[n_queued] = other
            n_queued += 1
    rows = np.empty((n_nodes, 3), np.int64)
    n_rows = 0
    node = np.int64(start)
    while node != goal and arrived[node] >= 0:
        m, sheet = arrived[node] // sheets, arrived[node] % sheets
        near = sheets * first[m] + sheet
        far = sheets * second[m] + (sheet ^ parity[m])
        rows[n_rows, 0] = m
        rows[n_rows, 1] = sheet
        rows[n_rows, 2] = 1 if far == node else 0
        node = near if far == node else far
        n_rows += 1
    return rows[:n_rows].copy()
