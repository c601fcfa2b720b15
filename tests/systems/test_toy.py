"""Table fields against the tables they were made from."""

import math

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.systems import random_table, table_field, table_log_density_of_states


def test_values_are_the_table_by_index():
    values = np.random.default_rng(0).normal(size=2**6).astype(np.float32)
    field = table_field(values, shape=(1, 2, 3))
    index = torch.arange(64)
    points = ((index[:, None] >> torch.arange(6)) & 1).reshape(-1, 1, 2, 3)
    assert field.value(points).tolist() == values.astype(np.float64).tolist()
    assert np.array_equal(field.table.numpy(), values)
    assert field.level_differences is None


def test_single_site_changes_are_table_differences():
    field = random_table(3, n_bits=9)
    points = field.space.draw(10, torch.Generator().manual_seed(0))
    for point in points:
        for site in range(9):
            for new in (0, 1):
                changed = point.clone()
                changed[site] = new
                truth = float((field.value(changed[None]) - field.value(point[None]))[0])
                levels = point.numpy().astype(np.uint8)
                assert field.single_site.change(levels, site, new, field.single_site.data) == truth


def test_random_table_has_the_stated_spread():
    values = random_table(1).table.numpy()
    assert len(values) == 4096
    assert values.mean() == pytest.approx(0.0, abs=1e-12)
    assert values.std() == pytest.approx(1.0, abs=1e-12)


def test_log_density_of_states_counts_entries():
    values = np.array([0.0, 0.5, 1.0, 1.0, 3.0, 4.0], dtype=np.float32)
    found = table_log_density_of_states(values, np.array([0.0, 1.0, 2.0, 2.5, 4.0]))
    assert found == pytest.approx([math.log(2), math.log(2), -math.inf, math.log(2)])


def test_wrong_tables_are_refused():
    with pytest.raises(UserError, match="values"):
        table_field(np.zeros(31), shape=(5,))
    with pytest.raises(UserError, match="finite"):
        table_field(np.array([0.0, np.nan]), shape=(1,))
    with pytest.raises(UserError, match="n_bits"):
        random_table(0, n_bits=40)
    with pytest.raises(UserError, match="edges"):
        table_log_density_of_states(np.zeros(4), np.array([1.0]))
