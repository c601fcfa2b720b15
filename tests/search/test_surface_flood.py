"""The flood of a grid against components found level by level, and a surface with known passes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from theodolite.errors import UserError
from theodolite.search.surface_flood import surface_flood
from theodolite.search.watershed import watershed


def labelled(values, diagonal):
    """Minima (first point, row by row, rising in energy) and barriers from scipy's components of every sublevel set."""
    structure = np.ones((3, 3)) if diagonal else None
    minima, barrier = [], {}
    for level in np.unique(values[np.isfinite(values)]):
        components = np.empty(values.shape, np.int32)
        ndimage.label(values <= level, structure, components)
        flat = components.ravel().tolist()
        old = {flat[i] for i in minima}
        for i in minima:
            for j in minima:
                if flat[i] == flat[j] and i != j:
                    barrier.setdefault((i, j), level)
        # In the order of their first points.
        new = [flat.index(component) for component in set(flat) - old - {0}]
        minima += sorted(new)
    flat = values.ravel()
    return minima, np.array([[flat[i] if i == j else barrier.get((i, j), np.inf) for j in minima] for i in minima])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([0, 1, 2, 4, 8, 10**6]),
    st.sampled_from([0.0, 0.2]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 2.0, 3.0]),
)
def test_minima_and_barriers(shape, highest, walls, diagonal, seed, persistence):
    generator = np.random.default_rng(seed)
    values = generator.integers(0, highest + 1, shape).astype(float)
    values[generator.random(shape) < walls] = np.inf
    values[0, 0] = min(values[0, 0], highest)
    minima, barrier = labelled(values, diagonal)
    found = surface_flood(values, diagonal=diagonal)
    assert (found.row * shape[1] + found.column).tolist() == minima
    assert np.array_equal(found.barrier(), barrier)
    assert values[found.pass_row, found.pass_column].tolist() == found.level.tolist()
    # A pool's depth: from its minimum to the barrier to a lower one (of equal ones, an earlier one).
    depth = [barrier[k, :k].min(initial=np.inf) - found.energy[k] for k in range(len(minima))]
    assert found.depth.tolist() == depth
    deep = np.flatnonzero(found.depth >= persistence)
    fewer = surface_flood(values, diagonal=diagonal, persistence=persistence)
    assert (fewer.row * shape[1] + fewer.column).tolist() == [minima[k] for k in deep]
    assert np.array_equal(fewer.barrier(), barrier[np.ix_(deep, deep)])


def test_equals_the_watershed_of_two_coordinates():
    values = np.random.default_rng(1).random((30, 30))
    found, tree = surface_flood(values), watershed(values.T.ravel(), 2, 30, neighbourhood="adjacent")
    assert tree.minimum_level.tolist() == np.stack([found.row, found.column], 1).tolist()
    assert np.array_equal(found.barrier(), tree.barrier())


def test_a_double_well():
    """(x^2 - 1)^2 + y^2 + 0.3 x: minima and the pass are roots of a cubic."""
    x = np.linspace(-1.6, 1.6, 1601)
    values = (x**2 - 1.0) ** 2 + 0.3 * x + np.linspace(-1.0, 1.0, 401)[:, None] ** 2
    found = surface_flood(values)
    left, top, right = np.sort(np.roots([4.0, 0.0, -4.0, 0.3]).real)

    def height(at):
        return (at**2 - 1.0) ** 2 + 0.3 * at

    assert x[found.column] == pytest.approx([left, right], abs=0.001)
    assert found.energy == pytest.approx([height(left), height(right)], abs=1e-5)
    assert found.barrier()[0, 1] == pytest.approx(height(top), abs=1e-5)
    assert found.depth[1] == pytest.approx(height(top) - height(right), abs=1e-5)


@pytest.mark.parametrize(
    ("values", "persistence", "word"),
    [
        (np.zeros(4), 0.0, "rows, columns"),
        (np.full((2, 2), np.inf), 0.0, "walls"),
        (np.array([[0.0, np.nan]]), 0.0, "NaN"),
        (np.array([[0.0, -np.inf]]), 0.0, "NaN"),
        (np.zeros((2, 2)), -1.0, "persistence"),
    ],
)
def test_wrong_input(values, persistence, word):
    with pytest.raises(UserError, match=word):
        surface_flood(values, persistence=persistence)
