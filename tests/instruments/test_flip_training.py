"""What training makes of flip points, with training functions whose outcome is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from theodolite.errors import UserError
from theodolite.instruments.flip_training import accuracy_of, influence, synthetic


class Nearest(nn.Module):
    """One nearest neighbour: it knows exactly what it was trained on."""

    def __init__(self, x, labels, n_classes=2):
        super().__init__()
        self.x, self.labels, self.n_classes = x, labels, n_classes

    def forward(self, x):
        return nn.functional.one_hot(self.labels[torch.cdist(x, self.x).argmin(1)], self.n_classes).float()


def train(x, labels, seed):
    return Nearest(x, labels)


def a_line(n=41):
    """Points on a line, class 1 from 0 on; their flip points lie at 0."""
    x = torch.linspace(-1, 1, n)[:, None] + 1e-3
    return x, (x[:, 0] >= 0).long(), x[:, 0].abs()


def test_inputs_near_the_boundary_teach_most():
    x, labels, distances = a_line()
    fine = torch.linspace(-1, 1, 999)[:, None]
    test = (fine, (fine[:, 0] >= 0).long())
    found = influence(train, x, labels, distances, test, sizes=[2, 10, len(x)], n_trials=4, seed=3)
    accuracy = found["accuracy"]
    assert accuracy.dims == ("subset", "size", "trial") and accuracy.shape == (3, 3, 4)
    whole = accuracy_of(Nearest(x, labels), *test)
    # A neighbour's boundary lies midway between the two points next to it, which are the closest ones.
    assert (accuracy.sel(subset="closest") == whole).all()
    assert (accuracy.sel(size=len(x)) == whole).all()
    assert float(found["mean"].sel(subset="random", size=2)) < whole
    random = accuracy.sel(subset="random", size=2).values
    assert len(set(random)) > 1
    half = stats.t.ppf(0.975, 3) * stats.sem(random)
    row = found.sel(subset="random", size=2)
    assert float(row["low"]) == pytest.approx(random.mean() - half)
    assert float(row["high"]) == pytest.approx(random.mean() + half)


def test_the_farthest_are_the_farthest_and_unknown_ones_among_them():
    x, labels, distances = a_line()
    distances[20] = torch.inf
    seen = []

    def watch(images, classes, seed):
        seen.append((len(images), images[:, 0].tolist(), seed))
        return Nearest(images, classes)

    influence(watch, x, labels, distances, (x, labels), sizes=[3], n_trials=1, seed=7)
    assert [n for n, _, _ in seen] == [3, 3, 3] and {seed for _, _, seed in seen} == {7}
    assert seen[2][1] == x[[0, 20, 40], 0].tolist()
    assert sorted(abs(value) for value in seen[0][1]) == sorted(distances.sort().values[:3].tolist())


def test_flip_points_as_training_data():
    x, labels = torch.tensor([[-1.0], [0.5]]), torch.tensor([0, 1])
    fine = torch.linspace(-1, 1, 1001)[:, None]
    test = (fine, (fine[:, 0] >= 0).long())
    # Between -1 and 0.5 the neighbour's boundary lies at -0.25; a point of class 1 at 1e-3 and one of class 0 at -1e-3
    # bring it to 0.
    flips, classes = torch.tensor([[1e-3], [-1e-3], [torch.nan]], dtype=torch.float64), torch.tensor([1, 0, 1])
    found = synthetic(train, x, labels, flips, classes, test, seeds=(0, 1, 2))
    before = float(((fine[:, 0] >= -0.25).long() == test[1]).double().mean())
    assert found.n_added == 2
    assert found.before == pytest.approx([before] * 3) and found.after == pytest.approx([1.0] * 3, abs=2e-3)
    assert found.gain == pytest.approx(float((found.after - found.before).mean()))
    assert found.low == pytest.approx(found.gain) == found.high
    single = synthetic(train, x, labels, flips, classes, test, seeds=(0,))
    assert single.gain == pytest.approx(found.gain) and np.isnan([single.low, single.high]).all()


def test_one_output_stands_for_two_classes():
    x = torch.tensor([[-1.0], [2.0], [3.0]])
    assert accuracy_of(nn.Identity(), x, torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"labels": torch.zeros(3)}, "labels"),
        ({"distances": torch.zeros(3)}, "distances"),
        ({"distances": torch.full((41,), torch.nan)}, "distances"),
        ({"sizes": [0]}, "sizes"),
        ({"sizes": [42]}, "sizes"),
        ({"sizes": []}, "sizes"),
        ({"n_trials": 0}, "n_trials"),
    ],
)
def test_influence_refuses_before_any_training(changes, argument):
    x, labels, distances = a_line()
    given = {"images": x, "labels": labels, "distances": distances, "test": (x, labels), "sizes": [3]} | changes
    with pytest.raises(UserError) as refused:
        influence(lambda *_: pytest.fail("trained"), **given)
    assert refused.value.argument == argument


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"labels": torch.zeros(3)}, "labels"),
        ({"flip_labels": torch.zeros(3)}, "flip_labels"),
        ({"flip_points": torch.zeros(41, 2)}, "flip_points"),
        ({"seeds": ()}, "seeds"),
    ],
)
def test_synthetic_data_are_refused_before_any_training(changes, argument):
    x, labels, _ = a_line()
    given = {"images": x, "labels": labels, "flip_points": x, "flip_labels": labels, "test": (x, labels)} | changes
    with pytest.raises(UserError) as refused:
        synthetic(lambda *_: pytest.fail("trained"), **given)
    assert refused.value.argument == argument
