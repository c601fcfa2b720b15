"""Stability against closed forms of linear networks, runs resumed bit for bit, and inputs that will not do."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import theodolite as th
from theodolite.errors import UserError
from theodolite.instruments.stability import CHECKPOINT, Stability
from theodolite.result import open_survey
from theodolite.run import Status, read_checkpoint

N = 6


def linear(seed, n_classes=3):
    layer = nn.Linear(N, n_classes).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(0.1 * torch.randn(n_classes, generator=generator))
    return layer


def network(module, low=-3.0, high=3.0, **options):
    return th.Network(module, th.Box((N,), low, high), **options)


def dense(seed, n_classes=3):
    torch.manual_seed(seed)
    return network(nn.Sequential(nn.Linear(N, 16), nn.Tanh(), nn.Linear(16, n_classes)))


def inputs(n=40, seed=0):
    return torch.randn((n, N), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp(-2, 2)


def labels_of(one, x):
    return one.all_outputs(torch.float64).value(x).argmax(1)


def measured(networks, x, y, **options):
    return Stability(**options).measure(networks, x, y, progress=False)


def same(one, other):
    left, right = (survey.drop_attrs() for survey in (one, other))
    assert left.identical(right)


@pytest.mark.parametrize("method", ["walk", "l-bfgs"])
def test_linear_networks_have_their_closed_forms(method):
    layer, x = linear(0), inputs()
    one = network(layer)
    y = labels_of(one, x)
    survey = measured({"linear": one}, x, y, method=method, amplify=None, noise=())
    z = layer(x).detach()
    lead = z.gather(1, y[:, None]) - z
    steep = (layer.weight[y][:, None] - layer.weight[None]).norm(dim=2).detach()
    expected = torch.where(lead > 0, lead / steep, torch.inf).amin(1)
    inside = x.abs().amax(1) + expected < 3
    assert inside.sum() > 20
    ratio = survey.distance.values[0] / expected.numpy()
    assert (ratio[inside] >= 1 - 1e-9).all()
    # A walk ends at the closest point; L-BFGS near it: its loss also leans away from third classes.
    assert (ratio[inside] <= {"walk": 1 + 1e-6, "l-bfgs": 1.15}[method]).all()
    assert np.median(ratio[inside]) < 1.005
    assert survey.distortion.values == pytest.approx(survey.distance.values / N**0.5)
    change = survey.example.values[0] - survey.input.values
    assert survey.distortion.values[0] == pytest.approx((change**2).mean(1) ** 0.5)
    behind = layer(torch.tensor(survey.example.values[0])).detach()
    lag = behind.scatter(1, y[:, None], -torch.inf).amax(1) - behind.gather(1, y[:, None])[:, 0]
    assert survey.residual.values[0] == pytest.approx(lag.numpy(), abs=1e-12)
    assert (lag >= -1e-14).all()
    if method == "walk":
        assert (lag <= 1e-9).all()
    assert (survey.outcome == "found").all() and survey.verdict.item() == "complete"
    assert survey.transfer.values == pytest.approx(np.ones((1, 1)))
    assert (survey.units > 0).all() and int(survey.units.sum()) <= survey.attrs["evaluations"]
    mean = survey.mean_distortion
    assert float(mean[0]) == pytest.approx(survey.distortion.values.mean())
    assert survey.mean_distortion_low[0] < mean[0] < survey.mean_distortion_high[0]


@pytest.mark.parametrize("method", ["walk", "l-bfgs"])
@pytest.mark.parametrize("targets", ["next", "random", "all"])
def test_examples_have_the_class_asked_for(method, targets):
    networks, x = {"a": dense(0), "b": dense(1)}, inputs(24)
    y = labels_of(networks["a"], x)
    survey = measured(networks, x, y, method=method, targets=targets, effort="quick", amplify=None)
    plain = measured(networks, x, y, method=method, effort="quick", amplify=None)
    for k, one in enumerate(networks.values()):
        z = one.all_outputs(torch.float64).value(x)
        others = z.scatter(1, y[:, None], -torch.inf)
        right = (z.argmax(1) == y).numpy()
        asked, found = survey.asked_class.values[k], (survey.outcome.values[k] == "found")
        assert (asked[~right] == -2).all() and not found[~right].any()
        if targets == "next":
            assert (asked[right] == others.argmax(1).numpy()[right]).all()
        elif targets == "random":
            assert ((asked[right] >= 0) & (asked[right] != y.numpy()[right])).all()
        else:
            assert (asked[right] == -1).all()
        at = one.all_outputs(torch.float64).value(torch.tensor(survey.example.values[k][found]))
        reached = survey.example_class.values[k][found]
        assert (at.numpy()[np.arange(len(at)), reached] >= at.amax(1).numpy() - 1e-12).all()
        if targets != "all":
            assert (reached == asked[found]).all()
    # A class that is asked for cannot be nearer than the closest of all; every class in turn cannot be farther.
    both = np.isfinite(survey.distance.values) & np.isfinite(plain.distance.values)
    assert both.sum() > 20
    ratio = survey.distance.values[both] / plain.distance.values[both]
    if targets == "all":
        assert (ratio <= 1 + 1e-3).all()
    elif method == "walk":
        assert (ratio >= 0.98).all()
    else:
        assert np.median(ratio) >= 0.98 and (ratio >= 0.5).all()


def test_only_right_answers_are_attacked_and_counted():
    networks, x = {"a": network(linear(0)), "b": network(linear(1)), "c": dense(2)}, inputs(60)
    y = labels_of(networks["a"], x)
    y[::7] = -1
    survey = measured(networks, x, y, amplify=(0.5, 40.0), noise=(0.3,), effort="quick")
    exact = [one.all_outputs(torch.float64) for one in networks.values()]
    right = np.array([((one.value(x).argmax(1) == y) & (y >= 0)).numpy() for one in exact])
    assert (np.isnan(survey.distance.values) == ~right).all()
    wrong = (~right & (y >= 0).numpy()).sum(1) / int((y >= 0).sum())
    assert survey.test_error.values == pytest.approx(wrong)
    assert (survey.test_error_low <= survey.test_error).all() and (survey.test_error <= survey.test_error_high).all()
    words = survey.outcome.values
    assert (words[:, (y < 0).numpy()] == "not attacked: no label was given").all()
    assert (words[0, (y >= 0).numpy()] == "found").all()
    assert survey.row_kind.values.tolist() == ["minimal"] * 3 + ["amplified"] * 6 + ["noise"]
    for i, kind in enumerate(survey.row_kind.values):
        made = int(survey.made_for[i])
        known = (y >= 0).numpy() if kind == "noise" else right[made]
        if kind != "amplified":
            assert (survey.transfer_count.values[i] == (right & known).sum(1)).all()
        if kind == "minimal":
            points = torch.tensor(survey.example.values[made])
            for j, one in enumerate(exact):
                counted = right[j] & known
                fooled = (one.value(points).argmax(1) != y).numpy()
                if i == j:
                    assert survey.transfer.values[i, j] == 1.0
                else:
                    assert survey.transfer.values[i, j] == pytest.approx(fooled[counted].mean())
    near = survey.row_distortion.values[3:6]
    assert near == pytest.approx(np.full(3, 0.5))
    # No point of the box is 40 away: every example is left out, counted, and nothing is claimed.
    assert (survey.row_unreached.values[6:9] == survey.row_count.values[:3]).all()
    assert np.isnan(survey.transfer.values[6:9]).all() and np.isnan(survey.row_distortion.values[6:9]).all()


def test_the_default_rows_and_names():
    networks, x = {"a": network(linear(0)), "b": network(linear(1))}, inputs(40)
    survey = measured(networks, x, labels_of(networks["a"], x), effort="quick")
    tenth = 0.1 * 6
    assert survey.stated_distortion.values[2:4] == pytest.approx([tenth, tenth])
    deviations = survey.stated_distortion.values[4:]
    assert deviations == pytest.approx([survey.mean_distortion.values.mean(), tenth])
    assert survey.transfer.sel(row="made for a", network="a").item() == 1.0
    assert survey.row.values[2] == "made for a, amplified to 0.6"
    assert (
        measured(networks, x, labels_of(networks["a"], x), effort="quick", amplify="none", noise="none").sizes["row"]
        == 2
    )


def test_same_seed_same_table_whatever_the_order():
    networks, x = {"a": dense(0), "b": dense(1)}, inputs(16)
    y = labels_of(networks["a"], x)
    first, again = (measured(networks, x, y, targets="random", amplify=0.4) for _ in range(2))
    same(first, again)
    other = measured(networks, x, y, targets="random", amplify=0.4, seed=1)
    assert not np.array_equal(other.asked_class.values, first.asked_class.values)
    turned = measured({"b": networks["b"], "a": networks["a"]}, x, y, targets="random", amplify=0.4)
    for name in networks:
        np.testing.assert_array_equal(turned.distance.sel(network=name), first.distance.sel(network=name))


def test_a_failed_attack_is_a_result():
    constant = nn.Linear(N, 3).double()
    with torch.no_grad():
        constant.weight.zero_()
        constant.bias.copy_(torch.tensor([2.0, 0.5, 0.0]))
    networks, x = {"flat": network(constant), "steep": network(linear(0))}, inputs(40)
    y = torch.zeros(40, dtype=torch.int64)
    for method in ("walk", "l-bfgs"):
        survey = measured(networks, x, y, method=method, amplify=0.5)
        assert survey.verdict.item() == "incomplete" and "every attack succeeds" in survey.verdict_sentence.item()
        assert np.isinf(survey.distance.values[0]).all() and np.isfinite(survey.example.values[0]).all()
        assert (survey.residual.values[0] == pytest.approx(-1.5)) and (survey.example_class.values[0] == -1).all()
        assert (survey.outcome.values[0] == "not found: the best point fails by 1.5 logits").all()
        assert survey.transfer_count.values[0].tolist() == [0, 0] and np.isnan(survey.transfer.values[0]).all()
        steep = survey.outcome.values[1] == "found"
        assert steep.any() and (survey.transfer.sel(row="made for steep", network="steep") == 1).all()
        assert np.isnan(survey.mean_distortion.values[0])


def test_few_inputs_leave_the_table_incomplete():
    one, x = network(linear(0)), inputs(12)
    survey = measured({"a": one}, x, labels_of(one, x), amplify=None)
    assert survey.verdict.item() == "incomplete" and "enough inputs" in survey.verdict_sentence.item()
    assert (survey.outcome == "found").all()


def test_interrupted_and_resumed_bit_for_bit(tmp_path):
    networks, x = {"a": dense(0), "b": dense(1)}, inputs(100)
    y = labels_of(networks["a"], x)
    settings = Stability(effort="quick", amplify=0.4, budget="1e8 evaluations")
    whole = settings.measure(networks, x, y, directory=tmp_path / "whole", progress=False)
    cut = dataclasses.replace(settings, budget="16000 evaluations")
    short = cut.measure(networks, x, y, directory=tmp_path / "cut", progress=False)
    assert short.verdict.item() == "incomplete"
    assert "not attacked: the budget was spent before" in short.outcome.values
    # A budget spent early leaves all networks the same images, to a block.
    tried = [(~np.isnan(short.distance.values[k])).nonzero()[0].max() for k in range(2)]
    assert abs(tried[0] - tried[1]) <= 70
    saved = read_checkpoint(tmp_path / "cut" / CHECKPOINT)
    assert saved.status is Status.BUDGET_SPENT and 0 < len(saved.state.parts) < 4
    resumed = settings.measure(networks, x, y, directory=tmp_path / "cut", resume=True, progress=False)
    same(resumed, whole)
    assert resumed.attrs["evaluations"] == whole.attrs["evaluations"]
    same(open_survey(tmp_path / "cut")["stability"].to_dataset(), resumed)


def test_a_resume_of_something_else_is_refused(tmp_path):
    networks, x = {"a": dense(0), "b": dense(1)}, inputs(30)
    y = labels_of(networks["a"], x)
    settings = Stability(effort="quick", amplify=None)
    settings.measure(networks, x, y, directory=tmp_path, progress=False)
    moved = x.clone()
    moved[3, 2] += 1e-9
    relabelled = y.clone()
    relabelled[0] = (relabelled[0] + 1) % 3
    for others in (
        (settings, networks, moved, y),
        (settings, networks, x, relabelled),
        (settings, {"a": networks["a"], "b": dense(3)}, x, y),
        (settings, {"b": networks["a"], "a": networks["b"]}, x, y),
        (dataclasses.replace(settings, targets="next"), networks, x, y),
    ):
        with pytest.raises(UserError, match="resume"):
            others[0].measure(*others[1:], directory=tmp_path, resume=True, progress=False)
    with pytest.raises(UserError, match="directory"):
        settings.measure(networks, x, y, directory=tmp_path, progress=False)


def test_images_are_attacked_on_their_hull_in_their_own_units():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    grid = th.Network(module, th.Grid((1, 2, 2), 256), embedding=th.Scale(1 / 255))
    box = th.Network(module, th.Box((1, 2, 2), 0.0, 1.0))
    x = torch.randint(0, 256, (40, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    y = box.all_outputs(torch.float64).value(x.flatten(1).double() / 255).argmax(1)
    levels = measured({"a": grid}, x, y)
    unit = measured({"a": box}, x.double() / 255, y)
    assert levels.distortion.values == pytest.approx(255 * unit.distortion.values, rel=1e-5)
    assert levels.stated_distortion.values[1] == pytest.approx(25.5)
    assert levels.input.dtype == np.int16


def refusals():
    x = inputs(8)
    y = torch.zeros(8, dtype=torch.int64)
    a = network(linear(0))
    wide = th.Network(nn.Linear(N + 1, 3), th.Box((N + 1,), -3.0, 3.0))
    outside = x.clone()
    outside[2, 1] = 3.5
    lost = x.clone()
    lost[0, 0] = torch.nan
    return {
        "no network": (({}, x, y), "networks.*at least one"),
        "not by name": ((a, x, y), "networks.*at least one network by name"),
        "not a network": (({"a": a, "b": nn.Linear(N, 3)}, x, y), "'b'.*wrap the module"),
        "number for a name": (({1: a}, x, y), "names that are text"),
        "shapes": (({"a": a, "wide": wide}, x, y), r"'a' takes \(6,\), 'wide' takes \(7,\)"),
        "ranges": (({"a": a, "b": network(linear(1), 0.0, 1.0)}, x, y), "'a' takes -3 to 3, 'b' takes 0 to 1"),
        "class counts": (({"a": a, "b": network(linear(1, 4))}, x, y), "'a' has 3, 'b' has 4"),
        "class names": (
            (
                {
                    "a": network(linear(0), classes=["x", "y", "z"]),
                    "b": network(linear(1), classes=["y", "x", "z"]),
                },
                x,
                y,
            ),
            "'a' names them x, y, z, 'b' names them y, x, z",
        ),
        "shape of inputs": (({"a": a}, x[:, :3], y), "inputs.*shape"),
        "none": (({"a": a}, x[:0], y[:0]), "inputs.*n > 0"),
        "outside": (({"a": a}, outside, y), "inputs.*the first number 2"),
        "not finite": (({"a": a}, lost, y), "inputs.*the first number 0"),
        "labels missing": (({"a": a}, x, None), "labels.*none"),
        "labels short": (({"a": a}, x, y[:3]), "labels.*shape"),
        "labels unknown": (({"a": a}, x, y - 1), "labels.*-1 for all"),
        "labels high": (({"a": a}, x, y + 3), "labels.*classes 0..2"),
        "labels fractions": (({"a": a}, x, y + 0.5), "labels.*whole numbers"),
    }


@pytest.mark.parametrize("case", refusals())
def test_what_will_not_do_is_refused_before_any_work(case, tmp_path):
    given, words = refusals()[case]
    with pytest.raises(UserError, match=words):
        Stability().measure(*given, directory=tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "fgsm"}, "method.*walk, l-bfgs"),
        ({"targets": "3:5"}, "targets.*closest"),
        ({"effort": "high"}, "effort"),
        ({"budget": "0 s"}, "budget"),
        ({"budget": "0 evaluations"}, "budget"),
        ({"amplify": -0.1}, "amplify"),
        ({"amplify": 0.0}, "amplify"),
        ({"amplify": (0.1, float("nan"))}, "amplify"),
        ({"amplify": "much"}, "amplify"),
        ({"noise": "0.1,"}, "noise"),
        ({"resamples": 10}, "resamples"),
    ],
)
def test_settings_that_are_none(options, words):
    with pytest.raises(UserError, match=words):
        Stability(**options)


def test_outputs_that_are_not_finite_harm_no_other_image():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear(0)

        def forward(self, x):
            return torch.where(x[:, :1] > 1.0, torch.nan, self.layer(x))

    one, x = network(Broken()), inputs(40)
    y = labels_of(network(linear(0)), x)
    survey = measured({"broken": one}, x, y, amplify=None, noise=0.2)
    broken = (x[:, 0] > 1).numpy()
    assert (survey.outcome.values[0][broken] == "not attacked: the network's outputs are not finite here").all()
    assert (survey.predicted_class.values[0][broken] == -1).all()
    assert (survey.outcome.values[0][~broken] == "found").mean() > 0.9


def test_the_plan_names_what_would_be_done():
    networks, x = {"a": dense(0), "b": dense(1)}, inputs(20)
    y = labels_of(networks["a"], x)
    told = Stability(amplify=(0.1, 0.2), noise="0.3", budget="5 s").plan(networks, x, y)
    for words in ("method walk", "a 20", "0.1, 0.2", "noise of: 0.3", "5"):
        assert words in told
    assert Stability().search_passes(networks, x, y) < Stability(targets="all").search_passes(networks, x, y)
