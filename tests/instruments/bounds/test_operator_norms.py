"""Operator norms against dense singular values on 200 random layers, and attempts to break every bound."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.instruments.random_layers import N_LAYERS, random_layers
from theodolite.instruments.bounds.frame_bounds import frame_bound
from theodolite.instruments.bounds.layer_nodes import averaged, convolution, linear
from theodolite.instruments.bounds.norm_estimates import operator_norm
from theodolite.instruments.bounds.operator_norms import (
    CHOLESKY,
    affine_norm,
    cholesky_norm,
    matrix_of,
    positive_norm,
    proven_norm,
    spectral_norm,
    sums_norms,
    torus_norm,
)
from theodolite.instruments.bounds.torus_norms import TWISTS, _located, _proven, circular_singular_values, torus
from theodolite.instruments.bounds.verified_cholesky import gram, largest_proven, smallest_proven


@pytest.fixture(scope="module")
def layers():
    return random_layers()


def test_layers_are_two_hundred_and_of_all_kinds(layers):
    assert len(layers) == N_LAYERS == 200
    convolutions = [node for node, _ in layers if node.kind == "convolution"]
    assert {s for node in convolutions for s in node.stride} == {1, 2, 3}
    assert {s for node in convolutions for s in node.padding} == {0, 1, 2, 3}
    assert {s for node in convolutions for s in node.dilation} == {1, 2}
    assert {node.groups for node in convolutions} == {1, 2, 3}
    assert sum(node.kind == "average" for node, _ in layers) >= 10


def test_estimates_equal_dense_singular_values_and_no_bound_lies_below(layers):
    ratios, on_torus, worst = [], [], 0.0
    for node, matrix in layers:
        values = torch.linalg.svdvals(matrix)
        truth = float(values[0])
        for whole in (True, False):
            found = operator_norm(node, "L2", whole=whole)
            worst = max(worst, abs(found.value / truth - 1))
            assert found.residual <= 1e-5
        column, row = sums_norms(node)
        bounds = {
            "reported": affine_norm(node, "L2"),
            "singular values": spectral_norm(matrix_of(node)),
            "Cholesky": cholesky_norm(matrix_of(node)),
            "sums": math.sqrt(column * row),
        }
        if node.kind == "convolution":
            bounds["torus"] = torus_norm(
                node.weight, node.input_shapes[0][1:], node.stride, node.padding, node.dilation, groups=node.groups
            )
            on_torus.append(bounds["torus"] / truth)
        if node.kind == "average":
            bounds["positive"] = positive_norm(node)
            assert bounds["positive"] <= 1.02 * truth
        for name, bound in bounds.items():
            assert bound >= truth, (name, bound / truth)
        assert bounds["Cholesky"] <= truth * (1 + 1e-8)
        ratios.append(bounds["reported"] / truth)
        lower = frame_bound(node, "L2")
        assert lower.value <= (float(values[-1]) if matrix.shape[0] >= matrix.shape[1] else 0.0)
    assert worst <= 1e-9
    assert statistics.median(ratios) <= 1.05
    assert max(ratios) <= 1 + 1e-9
    assert statistics.median(on_torus) <= 1.05
    print(
        f"reported: worst {max(ratios):.12f}; "
        f"torus: median {statistics.median(on_torus):.4f}, worst {max(on_torus):.3f}"
    )


def test_norms_in_l1_and_linf_are_exact(layers):
    for node, matrix in layers[:60]:
        for norm, axis in (("L1", 0), ("Linf", 1)):
            truth = float(matrix.abs().sum(axis).max())
            assert truth <= affine_norm(node, norm) <= truth * (1 + 1e-9)
            assert operator_norm(node, norm).value == pytest.approx(truth, rel=1e-9)


def test_every_twist_bounds_and_seams_between_frequencies_sharpen():
    # The second difference of n points has the norm 2 + 2 cos(pi / (n + 1)): half a turn on the seam gives it exactly.
    weight = torch.tensor([-1.0, 2.0, -1.0], dtype=torch.float64).reshape(1, 1, 1, 3)
    for n in (3, 4, 7, 8):
        truth = 2 + 2 * math.cos(math.pi / (n + 1))
        shape = torus(weight, (1, n), (1, 1), (0, 1), (1, 1), 1)
        found = [_proven(shape, twist, _located(shape, twist, 20)) for twist in TWISTS]
        assert min(found) >= truth
        assert torus_norm(weight, (1, n), padding=(0, 1)) == pytest.approx(truth, rel=1e-9)
        assert max(found) <= 4 * (1 + 1e-9)


def test_taps_that_no_output_uses_and_inputs_that_none_reads_count_for_nothing():
    weight = torch.zeros((1, 1, 5, 5), dtype=torch.float64)
    weight[0, 0, 0, 0], weight[0, 0, 2, 2] = 1e6, 3.0
    # Padding 2 around one number: only the middle tap ever meets it.
    assert torus_norm(weight, (1, 1), padding=(2, 2)) == pytest.approx(3.0, rel=1e-9)
    assert torus_norm(torch.ones((1, 1, 1, 1)), (9, 9), stride=(4, 4)) == pytest.approx(1.0, rel=1e-9)


def test_a_factorisation_bounds_on_both_sides_whatever_it_starts_from():
    generator = torch.Generator().manual_seed(3)
    for n in (1, 5, 40):
        matrix = torch.randn((n + 3, n), generator=generator, dtype=torch.float64)
        product, values = gram(matrix), torch.linalg.svdvals(matrix).square()
        for guess in (0.0, 0.3, 1 - 1e-6, 1.0, 1 + 1e-6, 2.0, 1e9):
            assert largest_proven(product, guess * float(values[0]), 0.0) >= float(values[0])
            assert smallest_proven(product, guess * float(values[-1]), 0.0) <= float(values[-1]) * (1 + 1e-12)
        assert smallest_proven(product, float(values[-1]), 0.0) >= float(values[-1]) * (1 - 1e-6)


@pytest.mark.parametrize("largest_exponent", [0, 3, 9, 15])
def test_ill_conditioned_matrices_with_known_singular_values(largest_exponent):
    generator = torch.Generator().manual_seed(largest_exponent)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    left, right = torch.linalg.qr(draw(50, 50)).Q, torch.linalg.qr(draw(30, 30)).Q
    values = torch.logspace(largest_exponent, 0, 30, dtype=torch.float64)
    matrix = left[:, :30] @ torch.diag(values) @ right.T
    truth = 10.0**largest_exponent
    node = linear("", 0, (30,), matrix, None)
    for bound in (affine_norm(node, "L2"), cholesky_norm(matrix)):
        # The construction itself is off by some roundings.
        assert truth * (1 - 1e-13) <= bound <= truth * (1 + 1e-8)
    assert frame_bound(node, "L2").value <= 1 + 1e-13 * truth
    if largest_exponent <= 9:
        assert frame_bound(node, "L2").value >= 1 - 1e-4
    with_equal = left[:, :30] @ right.T
    assert affine_norm(linear("", 0, (30,), with_equal, None), "L2") == pytest.approx(1, rel=1e-9)
    assert operator_norm(linear("", 0, (30,), with_equal, None), "L2", whole=False).value == pytest.approx(1, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(-320, 300), st.integers(0, 10**6), st.booleans())
def test_scale_changes_no_bound_from_denormal_numbers_to_the_largest(exponent, seed, kernel):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 2, 3, 3) if kernel else (4, 6)
    weight = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        * 10.0 ** (exponent / 2)
        * 10.0 ** (exponent - exponent / 2)
    )
    node = (
        convolution("", 0, (2, 5, 5), weight, None, (1, 1), (1, 1), (1, 1), 1)
        if kernel
        else linear("", 0, (6,), weight, None)
    )
    largest = float(weight.abs().max())
    unit = weight / largest if largest > 1e-300 else weight * 2.0**1000 / (largest * 2.0**1000 or 1.0)
    same = (
        convolution("", 0, (2, 5, 5), unit, None, (1, 1), (1, 1), (1, 1), 1)
        if kernel
        else linear("", 0, (6,), unit, None)
    )
    truth = float(torch.linalg.svdvals(matrix_of(same))[0]) * largest
    bounds = [affine_norm(node, "L2"), cholesky_norm(matrix_of(node))]
    if kernel:
        bounds.append(torus_norm(weight, (5, 5), padding=(1, 1)))
    for bound in bounds:
        assert bound >= truth * (1 - 1e-12)
        if 1e-290 < truth < 1e290:
            assert bound <= 2 * truth
    assert (
        frame_bound(node, "L2").value
        <= float(torch.linalg.svdvals(matrix_of(same))[-1]) * largest * (1 + 1e-9) + 5e-324
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
def test_no_pair_is_stretched_more_or_shrunk_more(seed, stride, padding, dilation):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((4, 2, 3, 2), generator=generator, dtype=torch.float64)
    two = (stride,) * 2, (padding,) * 2, (dilation,) * 2
    node = convolution("", 0, (2, 8, 7), weight, None, *two, 1)
    bound = torus_norm(weight, (8, 7), *two)
    lower = frame_bound(node, "L2").value
    x = torch.randn((50, 2, 8, 7), generator=generator, dtype=torch.float64)
    for _ in range(4):
        image = node.apply([x])
        slope = image.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        assert float(slope.max()) <= min(bound, affine_norm(node, "L2"))
        assert float(slope.min()) >= lower
        # Powers turn the points towards the direction that is stretched most.
        x = node.transpose(image)[0]


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_weights_that_are_not_finite_have_no_bound(bad):
    weight = torch.ones((2, 1, 3, 3), dtype=torch.float64)
    weight[1, 0, 1, 1] = bad
    node = convolution("", 0, (1, 5, 5), weight, None, (1, 1), (1, 1), (1, 1), 1)
    for norm in ("L2", "L1", "Linf"):
        assert proven_norm(node, norm).value == math.inf
    assert (
        torus_norm(weight, (5, 5)) == spectral_norm(weight.flatten(1)) == cholesky_norm(weight.flatten(1)) == math.inf
    )
    assert frame_bound(node, "L2").value == 0
    assert math.isinf(operator_norm(node, "L2").value)


def test_zero_layers_and_kernels():
    zero = linear("", 0, (3,), torch.zeros((4, 3)), None)
    assert affine_norm(zero, "L2") == operator_norm(zero, "L2").value == frame_bound(zero, "L2").value == 0
    assert torus_norm(torch.zeros((2, 1, 3, 3)), (4, 4)) == 0
    wide = linear("", 0, (5,), torch.ones((2, 5)), None)
    assert frame_bound(wide, "L2").value == 0 and "fewer outputs" in frame_bound(wide, "L2").proof


def test_large_matrices_are_proven_by_cholesky_close_to_their_singular_values():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn((1100, 1200), generator=generator, dtype=torch.float64)
    node = linear("", 0, (1200,), weight, None)
    found = proven_norm(node, "L2")
    truth = float(torch.linalg.svdvals(weight)[0])
    assert found.proof == CHOLESKY and truth <= found.value <= truth * (1 + 1e-8)
    assert operator_norm(node, "L2").value == pytest.approx(truth, rel=1e-9)
    tall = frame_bound(linear("", 0, (1100,), weight.T.contiguous(), None), "L2")
    least = float(torch.linalg.svdvals(weight)[-1])
    assert tall.proof == CHOLESKY and 0.99 * least <= tall.value <= least


def test_a_torus_with_many_channels_takes_the_sparing_way():
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn((40, 60, 3, 3), generator=generator)
    node = convolution("", 0, (60, 24, 24), weight, None, (1, 1), (1, 1), (1, 1), 1)
    bound = torus_norm(weight, (24, 24), padding=(1, 1))
    found = operator_norm(node, "L2")
    assert found.value <= bound <= 1.01 * found.value
    assert circular_singular_values(torus(weight, (8, 8), (1, 1), (1, 1), (1, 1), 1, circular=True))[0] > 0


def test_a_pool_that_is_large_is_bounded_closely():
    pool = averaged("", 0, (2, 60, 60), nn.AvgPool2d(3, 1, 1))
    truth = operator_norm(pool, "L2", whole=False).value
    assert truth <= affine_norm(pool, "L2") <= 1.05 * truth
