"""What runs are compared with: noise of the right width, classes that are told, halves that do not overlap."""

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.learning.reference import Reference
from theodolite.systems.planar import gaussian_ring

CENTRES = torch.tensor([[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 4.0, 0]])


def three_groups(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return CENTRES[labels] + 0.5 * torch.randn(n, 4, generator=generator), labels


def test_noise_is_added_to_every_point_equally_often() -> None:
    points, _ = three_groups(300)
    reference = Reference.of(points, 0.3, torch.Generator().manual_seed(1))
    assert len(reference.noisy) == 6000
    away = (reference.noisy - points.repeat(20, 1)).numpy()
    assert away.std() == pytest.approx(0.3, rel=4 / np.sqrt(2 * away.size))
    assert abs(np.corrcoef(away[:300].ravel(), away[300:600].ravel())[0, 1]) < 4 / np.sqrt(1200)


def test_labelled_classes_are_told() -> None:
    points, labels = three_groups(300)
    reference = Reference.of(points, 0.3, torch.Generator().manual_seed(1), labels=labels, class_names=["a", "b", "c"])
    fresh, truth = three_groups(300, seed=7)
    told = reference.classes.of(reference.features(fresh))
    assert (told == truth.numpy()).mean() > 0.97
    assert reference.classes.accuracy > 0.97
    assert reference.classes.labelled
    assert reference.classes.names == ("a", "b", "c")


def test_labels_that_mean_nothing_are_told_at_chance() -> None:
    """The accuracy is of images that the classifier did not see: with shuffled labels it is chance."""
    points, labels = three_groups(300)
    shuffled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(3))]
    reference = Reference.of(points, 0.05, torch.Generator().manual_seed(1), labels=shuffled)
    assert reference.classes.accuracy < 0.5


def test_clusters_find_the_groups() -> None:
    points, labels = three_groups(300)
    reference = Reference.of(points, 0.3, torch.Generator().manual_seed(1), n_clusters=3)
    told = reference.classes.of(reference.features(points))
    table = np.array([[((told == k) & (labels.numpy() == c)).sum() for c in range(3)] for k in range(3)])
    assert table.max(1).sum() > 295
    assert sorted(table.argmax(1)) == [0, 1, 2]
    assert not reference.classes.labelled


def test_in_the_plane_clusters_see_modes_that_are_blurred_into_a_ring() -> None:
    """Every point of the ring lies as far out as the modes do: only where along it differs."""
    known = gaussian_ring()
    points, fresh = (known.draw(4000, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    angle = 6.283 * torch.rand(4000, generator=torch.Generator().manual_seed(2))
    blurred = fresh.norm(dim=1, keepdim=True) * torch.stack([angle.cos(), angle.sin()], 1)
    reference = Reference.of(points, 0.0, torch.Generator().manual_seed(3), n_clusters=40)

    def variation(others: torch.Tensor) -> float:
        told = [reference.classes.of(reference.features(x)) for x in (points, others)]
        shares = [np.bincount(classes, minlength=40) / len(classes) for classes in told]
        return 0.5 * float(np.abs(shares[0] - shares[1]).sum())

    assert len(reference.classes.names) == 40
    assert variation(fresh) < 0.07
    assert variation(blurred) > 0.15


def test_starts_are_spread_over_the_classes() -> None:
    points, labels = three_groups(300)
    reference = Reference.of(points, 0.0, torch.Generator().manual_seed(1), labels=labels)
    starts = reference.spread(30, torch.Generator().manual_seed(2))
    nearest = torch.cdist(starts, points, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.bincount(labels[nearest.argmin(1)]).tolist() == [10, 10, 10]
    assert float(nearest.amin(1).max()) < 1e-3
    assert len(torch.unique(nearest.argmin(1))) == 30


def test_halves_are_of_different_images() -> None:
    points, _ = three_groups(100)
    reference = Reference.of(points, 0.0, torch.Generator().manual_seed(1))
    first, other = reference.noisy[reference.first], reference.yardstick()
    assert len(first) + len(other) == len(reference.noisy)
    assert float(torch.cdist(first, other).min()) > 1e-2
    held = Reference.of(points, 0.0, torch.Generator().manual_seed(1), held_out=points + 9)
    assert torch.equal(held.yardstick(), points + 9)
    assert len(held.first) == len(held.noisy)


def test_features_are_principal() -> None:
    """Few or many coordinates: features carry the leading variances, uncorrelated."""
    generator = torch.Generator().manual_seed(5)
    turn = torch.linalg.qr(torch.randn(1100, 6, generator=generator))[0]
    wide = torch.randn(200, 6, generator=generator) * torch.tensor([8.0, 6.0, 4.0, 3.0, 2.0, 1.0]) @ turn.T
    for points in (three_groups(200)[0], wide):
        reference = Reference.of(points, 0.0, torch.Generator().manual_seed(1))
        features = reference.features(reference.noisy)
        covariance = np.cov(features.T)
        exact = np.linalg.eigvalsh(np.cov(reference.noisy.double().numpy().T))[::-1][: len(covariance)]
        # Of many coordinates, the axes are those of a part of the points.
        assert np.trace(covariance) == pytest.approx(exact.sum(), rel=1e-3)
        assert np.diag(covariance)[:4] == pytest.approx(exact[:4], rel=0.05)
        scatter = np.abs(covariance - np.diag(np.diag(covariance))).max()
        assert scatter < 0.1 * covariance[0, 0]


def test_bad_input() -> None:
    points, labels = three_groups(30)
    with pytest.raises(UserError, match="labels"):
        Reference.of(points, 0.1, torch.Generator(), labels=labels[:-1])
    with pytest.raises(UserError, match="points"):
        Reference.of(points[:1], 0.1, torch.Generator())
    with pytest.raises(UserError, match="class_names"):
        Reference.of(points, 0.1, torch.Generator(), labels=labels, class_names=["a"])
