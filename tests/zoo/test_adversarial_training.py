"""Training on pools: their examples fool, they change, and share 0 is plain training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from theodolite.errors import UserError
from theodolite.search.closest_flips import closest_flips
from theodolite.zoo.adversarial_pools import (
    amplified,
    cut_into_layers,
    empty_pool,
    minimal_examples,
    refresh,
)
from theodolite.zoo.adversarial_training import PoolTraining, dropped, train_with_pools
from theodolite.zoo.datasets import bundled_digits, subset
from theodolite.zoo.flip_networks import FlipTraining, dense_network, fit, grey_images
from theodolite.zoo.networks import initialised
from theodolite.zoo.stability_networks import decay_penalty, sigmoid_network

SHORT = FlipTraining(epochs=4, batch_size=32, learning_rate=5e-3, seed=3)
POOLED = PoolTraining(SHORT, pools=(0, 1, 2), share=0.3, pool_size=60, refreshed=0.25, warm_up=1)


def network() -> nn.Sequential:
    return sigmoid_network((784, 20, 16, 3))


@pytest.fixture(scope="module")
def digits():
    some = subset(bundled_digits((0, 1, 2)), 400)
    return grey_images(some.x_train), some.y_train


@pytest.fixture(scope="module")
def trained(digits):
    module = initialised(network, 0)
    fit(module, *digits, replace(SHORT, epochs=8))
    return module


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.flatten() for p in module.parameters()])


# ---------------------------------------------------------------- layers


def test_the_layers_in_a_row_are_the_network(trained, digits):
    layers = cut_into_layers(trained)
    assert [len(block) for block in layers.blocks] == [3, 2, 1]
    assert layers.ranges == ((0.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    x = digits[0][:5]
    torch.testing.assert_close(layers.activations(x, 3), trained(x), rtol=0, atol=0)
    by_hand = torch.sigmoid(x.flatten(1) @ trained[1].weight.T + trained[1].bias)
    torch.testing.assert_close(layers.activations(x, 1), by_hand)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.Linear(4, 2), "nn.Sequential"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)), "dropout"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), "batch normalisation"),
        (nn.Sequential(nn.Linear(4, 2), nn.Sigmoid()), "logits"),
    ],
)
def test_modules_that_cannot_hold_pools_are_refused(module, named):
    with pytest.raises(UserError, match=named):
        cut_into_layers(module)


# ---------------------------------------------------------------- examples


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_examples_fool_the_rest_of_the_network_in_double_precision(trained, digits, layer):
    x, y = digits[0][:60], digits[1][:60]
    layers = cut_into_layers(trained)
    here = layers.activations(x, layer)
    shape, flat = tuple(here.shape[1:]), here.flatten(1)
    outputs, exact = (layers.rest(layer, shape, 3, dtype) for dtype in (torch.float32, torch.float64))
    examples = minimal_examples(outputs, exact, flat, y)
    # By the network's own layers, without the machinery of the search.
    copied = initialised(network, 0)
    copied.load_state_dict(trained.state_dict())
    double = nn.Sequential(*cut_into_layers(copied.double()).blocks[layer:])
    fooled = double(examples.point[examples.found].reshape(-1, *shape)).detach()
    named = fooled.gather(1, y[examples.found, None])
    others = fooled.scatter(1, y[examples.found, None], -torch.inf).amax(1, keepdim=True)
    assert bool((others >= named).all())
    right = trained(x).argmax(1) == y
    assert bool((examples.found == right).all()) and int(right.sum()) > 45
    assert bool(((examples.point >= 0) & (examples.point <= 1)).all())
    changed = (examples.point - flat.double()).norm(dim=1)
    torch.testing.assert_close(examples.distance, changed)
    # Near the boundary walk's, which spends five times the passes; at the input of a network hardly trained the class
    # that is nearest linearly is often not the nearest.
    own = exact.value(flat.double()).argmax(1)
    walked = closest_flips(outputs, exact, flat, own, effort="quick", generator=torch.Generator().manual_seed(0))
    excess = (examples.distance / walked.distance)[examples.found].mean()
    assert 0.99 < float(excess) < (1.3 if layer == 0 else 1.05)
    # Amplified examples are what they were amplified from, farther out, in the range of the layer.
    strong = amplified(flat.double(), examples.point, 1.5, 0.0, 1.0)
    assert bool(((strong - examples.point) * (examples.point - flat.double()) >= -1e-12).all())


def test_examples_of_the_last_hidden_layer_are_the_closest_ones():
    """After the last activation the rest is linear: the closest point follows from distances to planes by hand."""
    generator = torch.Generator().manual_seed(1)
    rest = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 2))
    with torch.no_grad():
        for p in rest.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
        rest[2].weight.mul_(3)
    layers = cut_into_layers(rest, -1.0, 1.0)
    h = 0.2 * torch.randn((50, 2), generator=generator)
    outputs, exact = (layers.rest(1, (2,), 2, dtype) for dtype in (torch.float32, torch.float64))
    own = exact.value(h.double()).argmax(1)
    examples = minimal_examples(outputs, exact, h, own)
    weight, bias = (p.detach().double() for p in rest[2].parameters())
    normal = weight[0] - weight[1]
    height = (h.double() @ normal + bias[0] - bias[1]) / normal.norm()
    plane = height.abs()
    foot = h.double() - height[:, None] * normal / normal.norm()
    inside = (foot.abs() <= 1).all(1)
    assert int(inside.sum()) >= 10
    ratio = (examples.distance / plane)[inside]
    assert bool(examples.found[inside].all())
    assert float(ratio.min()) >= 1 - 1e-9 and float(ratio.max()) <= 1 + 1e-3


def test_an_image_the_network_errs_on_gives_no_example(trained, digits):
    x, y = digits
    layers = cut_into_layers(trained)
    wrong = (y[:20] + 1 + (trained(x[:20]).argmax(1) != y[:20]).long()) % 3
    named = trained(x[:20]).argmax(1)
    wrong = torch.where(wrong == named, (wrong + 1) % 3, wrong)
    outputs, exact = (layers.rest(0, (1, 28, 28), 3, dtype) for dtype in (torch.float32, torch.float64))
    assert not bool(minimal_examples(outputs, exact, x[:20].flatten(1), wrong).found.any())


def test_a_refreshing_replaces_the_stated_part_and_keeps_the_rest(trained, digits):
    layers, generator = cut_into_layers(trained), torch.Generator().manual_seed(0)
    settings = {"size": 100, "part": 0.3, "amplification": 1.0, "n_newton_steps": 3, "n_outputs": 3}
    pool, filled = refresh(empty_pool(layers, 1, digits[0]), layers, *digits, **settings, epoch=1, generator=generator)
    assert filled.n_tried == 100 and filled.n_replaced == len(pool.label) > 90
    assert pool.point.shape[1:] == (20,) and set(pool.born.tolist()) == {1}
    later, record = refresh(pool, layers, *digits, **settings, epoch=2, generator=generator)
    n_new = int((later.born == 2).sum())
    assert record.n_tried == 30 and n_new == record.n_replaced > 20
    assert len(later.label) == min(100, len(pool.label) + n_new)
    old = later.born == 1
    stays = (later.point[old][:, None] == pool.point[None]).all(2)
    assert bool(stays.any(1).all())
    fresh = (later.point[~old][:, None] == pool.point[None]).all(2).any(1)
    # An image drawn again, by an unchanged network, gives the same example: most were not drawn before.
    assert int(fresh.sum()) < n_new


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("decays", [(), (1e-3, 1e-3, 1e-4)])
def test_share_zero_is_plain_training_number_for_number(digits, decays):
    plain, pooled = initialised(network, 5), initialised(network, 5)
    linear = [layer for layer in plain if isinstance(layer, nn.Linear)]
    fit(plain, *digits, SHORT, penalty=(lambda: decay_penalty(linear, decays)) if decays else None)
    result = train_with_pools(pooled, *digits, replace(POOLED, share=0.0, weight_decays=decays))
    assert torch.equal(weights(plain), weights(pooled))
    assert result.records == () and result.pools == () and len(result.losses) == 4 * 13


def test_every_ingredient_changes_the_weights_and_a_seed_fixes_them(digits):
    changed = [
        replace(POOLED, share=0.0),
        POOLED,
        replace(POOLED, pools=(2,)),
        replace(POOLED, amplification=2.0),
        replace(POOLED, share=0.0, dropout=0.3),
        replace(POOLED, share=0.0, input_dropout=0.3),
        replace(POOLED, share=0.0, weight_decays=(0.1, 0.1, 0.1)),
        replace(POOLED, training=replace(SHORT, seed=4)),
    ]
    found = []
    for settings in changed:
        twice = []
        for _ in range(2):
            module = initialised(network, 5)
            result = train_with_pools(module, *digits, settings)
            twice.append(weights(module))
        assert torch.equal(*twice) and len(result.losses) == 4 * 13
        found.append(twice[0])
    for first in range(len(found)):
        for second in range(first):
            assert not torch.equal(found[first], found[second])


def test_a_pool_of_a_hidden_layer_trains_the_layers_above_it_alone(digits):
    """With rate 0 up to the pool's first epoch nothing differs; the pool's gradient does not reach what lies below."""
    x, y = digits
    module = initialised(network, 5)
    layers = cut_into_layers(module)
    here = layers.activations(x[:30], 1)
    module.zero_grad()
    nn.functional.cross_entropy(nn.Sequential(*layers.blocks[1:])(here), y[:30]).backward()
    assert module[1].weight.grad is None and module[3].weight.grad is not None
    # In one step of training from the same weights the first layer moves by the originals' gradient alone, whose
    # share of the mean shrinks by the examples: Adam's first step does not feel that factor.
    one = FlipTraining(epochs=1, batch_size=400, learning_rate=1e-3, seed=0)
    pooled = PoolTraining(one, pools=(1,), share=0.5, pool_size=200, warm_up=0)
    fit(plain := initialised(network, 5), x, y, one)
    train_with_pools(mixed := initialised(network, 5), x, y, pooled)
    torch.testing.assert_close(plain[1].bias, mixed[1].bias, rtol=0, atol=2e-6)
    assert float((plain[3].weight - mixed[3].weight).abs().max()) > 1e-4


def test_pools_of_training_hold_examples_of_every_layer(digits):
    module = initialised(network, 5)
    result = train_with_pools(module, *digits, POOLED)
    assert [pool.layer for pool in result.pools] == [0, 1, 2]
    assert [record.epoch for record in result.records] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for pool, shape in zip(result.pools, ((1, 28, 28), (20,), (16,)), strict=True):
        assert pool.point.shape[1:] == shape and len(pool.label) <= 60
        assert bool(((pool.point >= 0) & (pool.point <= 1)).all())
        assert set(pool.born.tolist()) <= {1, 2, 3} and 3 in pool.born
    assert all(record.n_replaced <= record.n_tried and record.units > 0 for record in result.records)
    assert not module.training and not any(p.requires_grad for p in module.parameters())


def test_training_on_examples_makes_the_network_harder_to_fool(digits):
    """On images that both networks name rightly, where the same examples would be found if training did nothing."""
    x, y = digits
    distances, found = [], []
    for share in (0.0, 0.5):
        training = FlipTraining(epochs=12, batch_size=32, learning_rate=5e-3)
        settings = PoolTraining(training, pools=(0,), share=share, pool_size=200, amplification=2.0)
        module = initialised(network, 1)
        train_with_pools(module, x, y, settings)
        outputs, exact = (
            cut_into_layers(module).rest(0, (1, 28, 28), 3, dtype) for dtype in (torch.float32, torch.float64)
        )
        examples = minimal_examples(outputs, exact, x[:100].flatten(1), y[:100])
        distances.append(examples.distance)
        found.append(examples.found)
    both = found[0] & found[1]
    assert int(both.sum()) > 70
    assert float(distances[1][both].mean()) > 1.15 * float(distances[0][both].mean())


def test_dropout_keeps_the_mean_and_is_off_in_a_trained_network(digits):
    x = torch.full((400, 500), 2.0)
    out = dropped(x, 0.25, torch.Generator().manual_seed(0))
    assert out.unique().tolist() == pytest.approx([0.0, 2 / 0.75])
    # 200,000 draws: five standard errors of the share left out are 0.005.
    assert float((out == 0).double().mean()) == pytest.approx(0.25, abs=0.005)
    assert float(out.mean()) == pytest.approx(2.0, abs=0.02)
    assert dropped(x, 0.0, torch.Generator()) is x
    module = initialised(network, 5)
    train_with_pools(module, *digits, replace(POOLED, dropout=0.5, input_dropout=0.2))
    inputs = digits[0][:20]
    by_hand = inputs.flatten(1)
    for layer in (1, 3):
        by_hand = torch.sigmoid(by_hand @ module[layer].weight.T + module[layer].bias)
    by_hand = by_hand @ module[5].weight.T + module[5].bias
    torch.testing.assert_close(module(inputs), by_hand)
    assert torch.equal(module(inputs), module(inputs))


def test_global_randomness_is_neither_read_nor_moved(digits):
    module = initialised(network, 5)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    train_with_pools(module, *digits, replace(POOLED, dropout=0.2))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 1.0},
        {"share": -0.1},
        {"dropout": 1.0},
        {"input_dropout": -0.1},
        {"refreshed": 0.0},
        {"refreshed": 1.5},
        {"amplification": 0.5},
        {"amplification": float("nan")},
        {"warm_up": -1},
        {"pool_size": 0},
        {"n_newton_steps": 0},
        {"weight_decays": (-1.0,)},
        {"pools": (1, 1)},
        {"pools": (-1,)},
        {"pools": ()},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)) if wrong != {"pools": ()} else "share"):
        PoolTraining(**wrong)


def test_what_does_not_fit_is_refused_before_any_step(digits):
    x, y = digits
    bad = [
        ("pools", x, y, replace(POOLED, pools=(3,))),
        ("weight_decays", x, y, replace(POOLED, weight_decays=(1e-4,))),
        ("y", x, y[:5], POOLED),
        ("y", x[:0], y[:0], POOLED),
        ("y", x, y + 1, POOLED),
        ("x", 255 * x, y, POOLED),
    ]
    for argument, inputs, labels, settings in bad:
        module = initialised(network, 5)
        before = weights(module).clone()
        with pytest.raises(UserError) as caught:
            train_with_pools(module, inputs, labels, settings)
        assert caught.value.argument == argument and torch.equal(before, weights(module))


def test_rectified_layers_have_pools_without_an_upper_edge(digits):
    module = initialised(lambda: dense_network((784, 20, 3)), 0)
    result = train_with_pools(module, *digits, replace(POOLED, pools=(1,)))
    assert float(result.pools[0].point.min()) >= 0 and len(result.pools[0].label) > 30
