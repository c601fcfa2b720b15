"""The boundary of networks whose closest flip points are known, bad inputs among good ones, and interrupted runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from theodolite import Boundary, Box, Constraints, Grid, Latent, Network, Scale, UserError, open_survey
from theodolite.instruments import boundary_proofs, boundary_task

N_FEATURES, N_CLASSES = 6, 4


def linear(seed=0, n=N_FEATURES, n_classes=N_CLASSES):
    """A linear classifier in float64 with random weights."""
    layer = nn.Linear(n, n_classes).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) / 4)
    return layer


def small(seed=0, width=12, n=N_FEATURES, n_classes=N_CLASSES):
    """A ReLU network of one hidden layer."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Linear(n, width), nn.ReLU(), nn.Linear(width, n_classes))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def inputs(n=12, seed=1, scale=1.0):
    return scale * torch.randn(n, N_FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wide(module):
    """Over a space without edges, where nothing but the network bounds a flip point."""
    return Network(module, Latent(N_FEATURES))


def closed_form(layer, x, dual=2.0):
    """Distances ``(image, class)`` from points to where each class overtakes the first one, in the norm dual to
    ``dual``; inf for the class itself."""
    z = layer(x).detach()
    own = z.argmax(1)
    normal = layer.weight.detach()[own][:, None] - layer.weight.detach()[None]
    lead = z.gather(1, own[:, None]) - z
    distance = lead / normal.norm(p=dual, dim=2)
    return distance.scatter(1, own[:, None], torch.inf)


def measured(network, x, labels=None, **settings):
    return Boundary(**{"certificate": "none", "budget": "400000 evaluations", **settings}).measure(
        network, x, labels, progress=False
    )


# -------- known answers --------


@pytest.mark.parametrize(("norm", "dual"), [("L2", 2.0), ("L1", torch.inf), ("Linf", 1.0)])
def test_distances_of_a_linear_network(norm, dual):
    layer, x = linear(), inputs()
    survey = measured(wide(layer), x, norm=norm)
    expected = closed_form(layer, x, dual)
    assert survey.distance.values == pytest.approx(expected.min(1).values.numpy(), rel=1e-6)
    assert survey.target_class.values.tolist() == expected.argmin(1).tolist()
    assert (survey.outcome == "found").all() and survey.attrs["norm"] == norm
    assert survey.verdict.item() == "converged"


def test_every_flip_point_is_one():
    network, x = Network(small(), Box((N_FEATURES,), -2, 2)), inputs().clamp(-2, 2)
    survey = measured(network, x)
    exact = network.all_outputs(torch.float64)
    point = torch.tensor(survey.flip_point.values)
    output, start = exact.value(point), torch.tensor(survey.input.values)
    own, target = (torch.tensor(survey[name].values)[:, None] for name in ("predicted_class", "target_class"))
    assert torch.equal(own[:, 0], exact.value(x).argmax(1))
    residual = (output.gather(1, target) - output.gather(1, own))[:, 0]
    assert ((residual > -1e-14) & (residual <= 1e-9)).all() and (output.argmax(1) != own[:, 0]).all()
    assert survey.residual.values == pytest.approx(residual.numpy(), abs=1e-13)
    assert (exact.value(start + (1 - 1e-6) * (point - start)).argmax(1) == own[:, 0]).all()
    assert point.min() >= -2 and point.max() <= 2
    assert survey.distance.values == pytest.approx((point - start).norm(dim=1).numpy(), rel=1e-12)
    assert survey.output.values == pytest.approx(exact.value(x).numpy())
    assert survey.probability.values == pytest.approx(exact.value(x).softmax(1).amax(1).numpy())
    assert (survey.units > 0).all() and int(survey.units.sum()) <= survey.attrs["evaluations"]


def test_pairs_are_found_and_the_nearest_of_them_is_the_flip_point():
    layer, x = linear(n_classes=3), inputs(6)
    survey = measured(wide(layer), x, targets="all")
    own = survey.predicted_class.values
    rows = np.arange(len(own))
    distance = survey.pair_distance.values
    assert np.isnan(distance[rows, own]).all() and np.isfinite(np.delete(distance.ravel(), 3 * rows + own)).all()
    expected = closed_form(layer, x).numpy()
    expected[rows, own] = np.nan
    # All others below can only make it longer; the nearest flip has all others below anyway.
    assert (np.nan_to_num(distance) >= np.nan_to_num(expected) * (1 - 1e-9)).all()
    assert np.nanmin(distance, 1) == pytest.approx(np.nanmin(expected, 1), rel=1e-4)
    assert survey.distance.values == pytest.approx(np.nanmin(expected, 1), rel=1e-6)
    point = torch.tensor(survey.pair_flip_point.values)
    for other in range(3):
        some = own != other
        z = layer(point[some, other]).detach().numpy()
        gap = z[:, other] - z[np.arange(len(z)), own[some]]
        assert ((gap > -1e-14) & (gap <= 1e-9)).all() and (z[:, other] >= z.max(1) - 1e-12).all()
        assert survey.pair_residual.values[some, other] == pytest.approx(gap, abs=1e-13)


def test_only_the_pairs_asked_for():
    layer, x = linear(n_classes=3), inputs(10)
    own = layer(x).argmax(1).numpy()
    first, second = int(own[0]), (int(own[0]) + 1) % 3
    survey = measured(wide(layer), x, targets=f"{first}:{second}")
    asked = np.isfinite(survey.pair_distance.values)
    assert asked[own == first, second].all() and asked.sum() == (own == first).sum()
    assert "pair_distance" not in measured(wide(layer), x)


def test_a_network_of_one_output_has_two_classes():
    module = nn.Linear(N_FEATURES, 1).double()
    x = inputs(5)
    survey = measured(wide(module), x)
    expected = (module(x)[:, 0].abs() / module.weight.norm()).detach().numpy()
    assert survey.distance.values == pytest.approx(expected, rel=1e-6)
    assert survey.class_name.values.tolist() == ["0", "1"]
    assert (survey.predicted_class + survey.target_class == 1).all()


def test_images_are_surveyed_on_their_hull_in_their_own_units():
    layer = linear(n=4, n_classes=2)
    # Through the middle of the box, far from its faces.
    with torch.no_grad():
        layer.bias.copy_(-(layer.weight @ torch.full((4,), 0.5, dtype=torch.float64)))
    module = nn.Sequential(nn.Flatten(), layer.float())
    network = Network(module, Grid((1, 2, 2), 256), embedding=Scale(1 / 255))
    layer.double()
    x = 128 + torch.randint(-20, 20, (8, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    survey = measured(network, x)
    expected = 255 * closed_form(layer, x.flatten(1).double() / 255).min(1).values
    assert survey.distance.values == pytest.approx(expected.numpy(), rel=1e-6)
    assert survey.input.dtype == np.int16 and survey.flip_point.dims == ("image", "point_0", "point_1", "point_2")


def test_box_faces_bound_a_flip_point():
    layer = nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [4.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.0, -4.5]))
    survey = measured(Network(layer, Box((2,), 0, 1)), torch.tensor([[0.9, 0.0]]))
    # 4 x + y = 4.5 from (.9, 0): the foot of the perpendicular lies beyond x = 1; (1, .5) is the nearest in the box.
    assert survey.distance.item() == pytest.approx(np.hypot(0.1, 0.5), rel=1e-6)
    assert survey.flip_point.values[0] == pytest.approx([1.0, 0.5])


def test_meeting_points_of_three_classes():
    layer, x = linear(n_classes=3), inputs(3)
    survey = measured(wide(layer), x, meeting=3)
    point = torch.tensor(survey.meeting_point.values)
    z = layer(point).detach()
    assert (z.amax(1) - z.amin(1)).max() <= 2e-9
    weight, offset = layer.weight.detach()[1:] - layer.weight.detach()[:1], layer.bias.detach()[1:] - layer.bias[0]
    short = x - torch.linalg.lstsq(weight, (x @ weight.T + offset.detach()).T).solution.T
    assert survey.meeting_distance.values == pytest.approx((short - x).norm(dim=1).numpy(), rel=1e-5)
    assert np.sort(survey.meeting_class.values, 1).tolist() == [[0, 1, 2]] * 3


# -------- what is proven --------


def test_bounds_of_a_linear_network_are_its_distances():
    layer, x = linear(), inputs(5).clamp(-2, 2)
    survey = measured(Network(layer, Box((N_FEATURES,), -50, 50)), x, certificate="auto")
    assert survey.verdict.item() == "exact", survey.verdict_sentence.item()
    lower, distance = survey.distance_lower_bound.values, survey.distance.values
    assert (lower <= distance).all() and lower == pytest.approx(distance, rel=0.01)
    assert (survey.certificate != "none").all()


@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("certificate", ["lipschitz", "crown", "cap", "exact"])
def test_bounds_stay_below_distances(certificate, norm):
    network, x = Network(small(), Box((N_FEATURES,), -2, 2)), inputs(6).clamp(-2, 2)
    survey = measured(network, x, certificate=certificate, norm=norm)
    truth = measured(network, x, certificate="exact", norm=norm).distance
    lower = survey.distance_lower_bound
    assert (lower > 0).all() and (lower <= survey.distance).all() and (lower <= truth * (1 + 1e-6)).all()
    assert survey.verdict.item() in ("exact", "bracketed")
    if certificate == "exact":
        assert lower.values == pytest.approx(survey.distance.values, rel=1e-4 if norm == "L2" else 2e-3)


def test_time_that_is_left_goes_to_proofs_cut_short(monkeypatch):
    network, x = Network(small(), Box((N_FEATURES,), -2, 2)), inputs(6).clamp(-2, 2)
    whole = measured(network, x, certificate="cap")
    asked = []

    def hurried(task, rows, upper, method, seconds):
        asked.append((rows.tolist(), seconds))
        found = boundary_proofs.no_bounds(len(rows), task.n_classes)
        first = len(asked) <= 2
        found.lower[:] = torch.tensor(whole.distance.values)[rows] * torch.where(first & (rows % 3 > 0), 0.5, 0.995)
        return found

    monkeypatch.setattr(boundary_proofs, "certify", hurried)
    survey = measured(network, x, certificate="cap", budget="1 h")
    assert [rows for rows, _ in asked] == [[0, 1, 2, 3], [4, 5], [1, 2], [4, 5]]
    shares = [seconds for _, seconds in asked]
    assert all(3000 < seconds * n <= 3600 for seconds, n in zip(shares, [4, 2, 2, 2], strict=True)), shares
    assert survey.distance_lower_bound.values == pytest.approx(0.995 * whole.distance.values, rel=1e-6)


def test_pairs_have_bounds_of_their_own():
    network, x = Network(small(n_classes=3), Box((N_FEATURES,), -2, 2)), inputs(4).clamp(-2, 2)
    survey = measured(network, x, certificate="crown", targets="all")
    lower, distance = survey.pair_lower_bound.values, survey.pair_distance.values
    asked = ~np.isnan(distance)
    assert (lower[asked] <= distance[asked]).all() and (lower[~asked] == 0).all()
    least = np.broadcast_to(survey.distance_lower_bound.values[:, None], lower.shape)
    assert (lower[asked] >= least[asked] - 1e-9).all()


# -------- what they tell --------


def test_labels_tell_mistakes():
    layer, x = linear(), inputs(40)
    labels = layer(x).argmax(1)
    labels[[3, 8, 20]] = (labels[[3, 8, 20]] + 1) % N_CLASSES
    labels[5] = -1
    survey = measured(wide(layer), x, labels, targets="all", uncertainty=0.1)
    distance, own = survey.distance.values, survey.predicted_class.values
    mistakes = np.array([3, 8, 20])
    assert survey.suspicious_image.values.tolist() == mistakes[np.argsort(distance[mistakes])].tolist()
    right = np.delete(distance, [3, 5, 8, 20])
    counted = (distance[mistakes][:, None] < right[None]).mean()
    assert survey.auroc.sel(score="distance").item() == pytest.approx(counted)
    assert survey.score.values.tolist() == ["distance", "softmax", "margin"]
    assert (survey.auroc_low <= survey.auroc).all() and (survey.auroc <= survey.auroc_high).all()
    assert survey.ambiguous.values.tolist() == (distance <= 0.1).astype(int).tolist()
    ranks = survey.true_class_rank.values
    assert (np.delete(ranks, mistakes) == 0).all() and (ranks[mistakes] >= 1).all()
    for row in mistakes:
        nearer = np.nansum(survey.pair_distance.values[row] < survey.pair_distance.values[row, labels[row]])
        assert ranks[row] == nearer + 1
    assert (own >= 0).all()


def test_changes_tell_directions_and_unused_features():
    layer = linear(n_classes=2)
    with torch.no_grad():
        layer.weight[:, 4] = 0.0
    x = inputs(20)
    survey = measured(wide(layer), x)
    assert survey.feature_changed.values[4] == 0 and survey.feature_changed.values.max() > 0.5
    normal = (layer.weight[1] - layer.weight[0]).detach().numpy()
    normal /= np.linalg.norm(normal)
    for index in np.unique(survey.predicted_class.values):
        assert survey.direction_explained.values[index, 0] == pytest.approx(1.0)
        assert abs(survey.direction_component.values[index, 0] @ normal) == pytest.approx(1.0, rel=1e-6)
        change = (survey.flip_point - survey.input)[survey.predicted_class == index].mean("image")
        assert survey.direction_mean.values[index] == pytest.approx(change.values)


# -------- bad inputs --------


class Patchy(nn.Module):
    """Linear, but without a number where the first feature exceeds 1.5, and the same everywhere below -1.5."""

    def __init__(self):
        super().__init__()
        self.layer = linear()

    def forward(self, x):
        z = self.layer(x)
        z = torch.where(x[:, :1] > 1.5, torch.nan, z)
        return torch.where(x[:, :1] < -1.5, torch.arange(N_CLASSES).to(z), z)


def test_bad_inputs_are_named_and_harm_no_other():
    box = Box((N_FEATURES,), -3, 3)
    x = inputs(8).clamp(-1, 1)
    alone = measured(Network(Patchy(), box), x)
    bad = x[:4].clone()
    bad[0, 2], bad[1, 1], bad[2, 0] = torch.nan, 4.0, 2.0
    layer = linear()
    first = layer(x[3]).argmax()
    other = int(closed_form(layer, x[3:4]).argmin())
    bad[3] = torch.tensor(alone.flip_point.values[3])  # two classes tie here, to 1e-9
    survey = measured(Network(Patchy(), box), torch.cat([x[:4], bad, x[4:]]))
    outcome = survey.outcome.values
    assert "not finite" in outcome[4] and "outside" in outcome[5] and "outputs are not finite" in outcome[6]
    assert (survey.predicted_class.values[[4, 6]] == -1).all()
    assert survey.distance.values[7] <= 1e-8 and outcome[7].startswith("found")
    assert {int(first), other} == {int(survey.predicted_class[7]), int(survey.target_class[7])}
    assert np.isinf(survey.distance.values[4:7]).all() and np.isnan(survey.flip_point.values[4:7]).all()
    assert (survey.distance_lower_bound <= survey.distance).all()
    good = survey.isel(image=[0, 1, 2, 3, 8, 9, 10, 11])
    assert good.distance.values == pytest.approx(alone.distance.values, rel=1e-6)
    assert good.flip_point.values == pytest.approx(alone.flip_point.values, rel=1e-4, abs=1e-6)
    assert survey.verdict.item() == "not converged" and "1 input not searched" in survey.verdict_sentence.item()


def test_an_input_on_the_boundary_is_its_own_flip_point():
    layer = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
    survey = measured(Network(layer, Box((2,), 0, 1)), torch.tensor([[0.5, 0.5], [0.75, 0.25]], dtype=torch.float64))
    assert survey.distance.values == pytest.approx([0.0, np.sqrt(0.125)])
    assert survey.outcome.values.tolist() == ["found: the input lies on the boundary", "found"]
    assert survey.residual.values[0] == 0 and survey.flip_point.values[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("value", [torch.nan, 0.0])
def test_a_network_without_numbers_or_without_a_boundary_is_reported(value):
    module = linear()
    with torch.no_grad():
        module.weight.fill_(value)
        module.bias.copy_(torch.arange(N_CLASSES))
    survey = measured(wide(module), inputs(3), torch.zeros(3, dtype=torch.int64), certificate="auto")
    words = "outputs are not finite" if np.isnan(value) else "no search met another class"
    assert all(words in outcome for outcome in survey.outcome.values)
    assert np.isinf(survey.distance).all() and (survey.target_class == -1).all()
    assert survey.verdict.item() == "not converged" and words in survey.verdict_sentence.item()
    assert np.isnan(survey.auroc).all() and np.isnan(survey.feature_changed).all()


def test_two_classes_that_always_tie_leave_the_others_alone():
    layer = linear(n_classes=3)
    with torch.no_grad():
        layer.weight[2], layer.bias[2] = layer.weight[1], layer.bias[1]
    x = inputs(12)
    own = layer(x).argmax(1).numpy()
    survey = measured(wide(layer), x)
    tied = own > 0
    assert tied.any() and not tied.all()
    assert (survey.distance.values[tied] == 0).all()
    assert survey.distance.values[~tied] == pytest.approx(closed_form(layer, x).min(1).values.numpy()[~tied], rel=1e-6)


# -------- constraints --------


def test_constraints_are_kept_and_contradictions_named():
    layer, x = linear(), inputs(6)
    free = measured(wide(layer), x)
    x[2, 3] = 9.0
    kept = measured(wide(layer), x, constraints=Constraints(fixed=[0, 3], high={3: 5.0}))
    assert "constraints" in kept.outcome.values[2] and np.isinf(kept.distance[2])
    rows = [0, 1, 3, 4, 5]
    change = (kept.flip_point - kept.input).values[rows]
    assert (change[:, [0, 3]] == 0).all() and (kept.violation.values[rows] == 0).all()
    assert (kept.distance.values[rows] >= free.distance.values[rows] * (1 - 1e-9)).all()
    held = linear()
    with torch.no_grad():
        held.weight[:, [0, 3]] = 0.0
    weight = held.weight.detach()
    z = layer(x[rows]).detach()
    own = z.argmax(1)
    normal = weight[own][:, None] - weight[None]
    lead = z.gather(1, own[:, None]) - z
    expected = (lead / normal.norm(dim=2)).scatter(1, own[:, None], torch.inf).min(1).values
    assert kept.distance.values[rows] == pytest.approx(expected.numpy(), rel=1e-6)
    assert "0, 3" in kept.attrs["constraints"] and "fixed" in kept.attrs["settings"]


# -------- runs --------


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(boundary_task, "_LARGEST_BLOCK", 4)
    network, x = Network(small(), Box((N_FEATURES,), -2, 2)), inputs(8).clamp(-2, 2)
    labels = torch.zeros(8, dtype=torch.int64)
    settings = {"effort": "quick", "targets": "0:1,1:2,2:3,3:0", "certificate": "lipschitz"}
    whole = Boundary(**settings, budget="1000000 evaluations").measure(network, x, labels, progress=False)
    passed = {"directory": tmp_path, "progress": False}
    part = Boundary(**settings, budget="1 evaluations").measure(network, x, labels, **passed)
    assert part.verdict.item() == "not converged" and "budget was spent" in part.verdict_sentence.item()
    reached = np.isfinite(part.distance.values)
    assert reached.any() and not reached.all()
    assert ("budget was spent" in part.outcome.values[~reached][0]) and (part.outcome.values[reached] == "found").all()
    assert open_survey(tmp_path)["boundary"].to_dataset().equals(part)
    with pytest.raises(UserError, match="directory"):
        Boundary(**settings).measure(network, x, labels, **passed)
    resumed = Boundary(**settings, budget="1000000 evaluations").measure(network, x, labels, resume=True, **passed)
    assert resumed.equals(whole)
    assert resumed.attrs["evaluations"] == whole.attrs["evaluations"]
    assert Boundary(**settings).measure(network, x, labels, resume=True, **passed).equals(whole)


def test_a_run_goes_on_only_with_what_it_began_with(tmp_path):
    space = Box((N_FEATURES,), -2, 2)
    network, x, reference = Network(small(), space), inputs(4).clamp(-2, 2), inputs(9, seed=9).clamp(-2, 2)
    labels = torch.zeros(4, dtype=torch.int64)
    begun = {"network": network, "inputs": x, "labels": labels, "reference": reference}
    settings = {"effort": "quick", "certificate": "none", "constraints": Constraints(fixed=[0])}

    def going_on(changed=None, **other):
        run = Boundary(**{**settings, "budget": "1000000 evaluations", **other})
        return run.measure(**{**begun, **(changed or {})}, directory=tmp_path, progress=False, resume=True)

    Boundary(**settings, budget="1 evaluations").measure(**begun, directory=tmp_path, progress=False)
    moved = x.clone()
    moved[3, 5] += 1e-12
    for changed in (
        {"network": Network(small(seed=1), space)},
        {"network": Network(small(), Box((N_FEATURES,), -3, 3))},
        {"inputs": moved},
        {"labels": labels + 1},
        {"labels": None},
        {"reference": reference[:8]},
        {"reference": None},
    ):
        with pytest.raises(UserError, match="resume"):
            going_on(changed)
    for other in ({"effort": "regular"}, {"seed": 1}, {"constraints": Constraints(fixed=[1])}, {"constraints": None}):
        with pytest.raises(UserError, match="resume"):
            going_on(**other)
    ended = going_on(uncertainty=0.5)
    assert (ended.outcome == "found").all() and ended.attrs["uncertainty"] == 0.5


def test_blocks_and_neighbours_change_nothing(monkeypatch):
    network, x = Network(small().double(), Box((N_FEATURES,), -2, 2)), inputs(6).clamp(-2, 2)
    reference = inputs(30, seed=9).clamp(-2, 2)
    settings = Boundary(certificate="none", targets="0:1,1:2,2:3,3:0", effort="quick", budget="1000000 evaluations")
    whole = settings.measure(network, x, reference=reference, progress=False)
    monkeypatch.setattr(boundary_task, "_LARGEST_BLOCK", 3)
    parts = settings.measure(network, x, reference=reference, progress=False)
    alone = settings.measure(network, x[4:5], reference=reference, progress=False)
    for name in ("distance", "pair_distance", "flip_point"):
        assert parts[name].values == pytest.approx(whole[name].values, rel=1e-6, abs=1e-7, nan_ok=True)
        assert alone[name].values[0] == pytest.approx(whole[name].values[4], rel=1e-6, abs=1e-7, nan_ok=True)
    assert whole.attrs["reference"] == 30
    again = settings.measure(network, x, reference=reference, progress=False)
    assert again.equals(parts)


def test_a_survey_says_where_it_comes_from(tmp_path):
    network, x = wide(linear()), inputs(3)
    survey = Boundary(seed=5, certificate="none").measure(network, x, directory=tmp_path, progress=False, command="it")
    attributes = open_survey(tmp_path)["boundary"].attrs
    assert attributes["instrument"] == "boundary" and attributes["seed"] == 5 and attributes["command"] == "it"
    assert 'effort = "regular"' in attributes["settings"] and attributes["model_hash"] == network.hash
    assert any("Flip Points" in source for source in json.loads(attributes["citations"]))
    assert attributes["change_threshold"] > 0 and attributes == survey.attrs


def test_a_plan_counts_passes():
    network, x = wide(linear()), inputs(3)
    words = Boundary(targets="all", effort="quick", constraints=Constraints(fixed=[2])).plan(network, x)
    assert "3 of 3 inputs" in words and "Pairs of classes: 9" in words and "fixed: 2" in words


@pytest.mark.parametrize("constraints", [None, Constraints(fixed=[0])])
def test_gentler_copies_give_starts_with_and_without_constraints(constraints):
    generator = torch.Generator().manual_seed(2)
    module = nn.Sequential(nn.Linear(N_FEATURES, 10), nn.Tanh(), nn.Linear(10, N_CLASSES))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(3 * torch.randn(parameter.shape, generator=generator))
    with_starts, without = (
        measured(wide(module), inputs(4), constraints=constraints, homotopy=choice) for choice in ("on", "off")
    )
    assert (with_starts.units.values > without.units.values).all()
    assert (with_starts.distance.values <= without.distance.values * 1.01).all()
    if constraints is not None:
        assert (with_starts.flip_point.values[:, 0] == with_starts.input.values[:, 0]).all()
