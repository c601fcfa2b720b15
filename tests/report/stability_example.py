"""Made-up surveys of stability that follow the schema: digits that three networks are fooled on, and a table."""

import json

import numpy as np
import xarray as xr

from tests.report.boundary_example import _attributes


def stability_example(
    names=("softmax", "100-100-10", "AE400-10"), n_images=24, shape=(1, 12, 12), failed=0, amplified=0.1, seed=0
):
    """A survey with shares that are whole numbers of images; ``failed``: attacks on the first network without an
    example."""
    generator = np.random.default_rng(seed)
    n, points = len(names), tuple(f"point_{k}" for k in range(len(shape)))
    size = int(np.prod(shape))
    yy, xx = np.mgrid[0:12, 0:12] if len(shape) == 3 else (np.zeros(shape), np.zeros(shape))
    inputs = np.stack([np.exp(-((xx - 3 - k % 6) ** 2 + (yy - 6) ** 2) / 6) for k in range(n_images)])
    inputs = inputs.reshape(n_images, *shape) if len(shape) == 3 else generator.random((n_images, *shape))
    label = np.arange(n_images) % 10
    change = generator.normal(size=(n, n_images, size))
    distortion = 0.02 * (1 + np.arange(n))[:, None] * np.exp(0.4 * generator.normal(size=(n, n_images)))
    change *= (distortion * size**0.5 / np.linalg.norm(change, axis=2))[..., None]
    right = np.ones((n, n_images), bool)
    right[-1, :2] = False
    outcome = np.where(right, "found", "not attacked: the network gives another class than the label already")
    outcome = outcome.astype("<U80")
    for image in range(failed):
        outcome[0, image] = "not found: the best point fails by 1.5 logits"
        distortion[0, image] = np.inf
    distortion[~right] = np.nan
    kinds = ["minimal"] * n + (["amplified"] * n if amplified else []) + ["noise"] * (2 if amplified else 1)
    made = [*range(n), *(range(n) if amplified else []), *([-1] * kinds.count("noise"))]
    stated = [np.nan] * n + ([amplified] * n + [0.03, amplified] if amplified else [0.03])
    rows = len(kinds)
    count = np.full((rows, n), n_images)
    wrong = generator.integers(0, 9, (rows, n))
    for row in range(n):
        wrong[row, row] = n_images
    wrong[-1] = 0
    share = wrong / count
    low, high = np.maximum(share - 0.1, 0), np.minimum(share + 0.1, 1)
    known = np.where(np.isfinite(distortion), distortion, np.nan)
    mean = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in known])
    spread = np.array([mean[m] if k == "minimal" else s for k, m, s in zip(kinds, made, stated, strict=True)])
    checks = {"every attack succeeds": failed == 0, "enough inputs for the intervals": True}
    word = "incomplete" if failed else "complete"
    variables = {
        "input": (("image", *points), inputs),
        "label": (("image",), label),
        "predicted_class": (("network", "image"), np.where(right, label, (label + 1) % 10)),
        "example": (("network", "image", *points), inputs + change.reshape(n, n_images, *shape)),
        "example_class": (("network", "image"), np.where(np.isfinite(distortion), (label + 3) % 10, -1)),
        "distortion": (("network", "image"), distortion),
        "distance": (("network", "image"), distortion * size**0.5),
        "residual": (("network", "image"), np.full((n, n_images), 1e-10)),
        "units": (("network", "image"), np.full((n, n_images), 380)),
        "outcome": (("network", "image"), outcome),
        "row_kind": (("row",), np.array(kinds)),
        "made_for": (("row",), np.array(made)),
        "stated_distortion": (("row",), np.array(stated)),
        "row_count": (("row",), np.full(rows, n_images)),
        "row_unreached": (("row",), np.zeros(rows, int)),
        "transfer": (("row", "network"), share),
        "transfer_low": (("row", "network"), low),
        "transfer_high": (("row", "network"), high),
        "transfer_count": (("row", "network"), count),
        "check_name": (("check",), np.array(list(checks))),
        "check_value": (("check",), np.ones(len(checks))),
        "check_limit": (("check",), np.array(["all", ">= 20"])),
        "check_passed": (("check",), np.array([int(value) for value in checks.values()])),
        "check_sentence": (("check",), np.array([f"{name}, in words" for name in checks])),
        "verdict": ((), word),
        "verdict_sentence": ((), f"{word.capitalize()}: as the checks say."),
    }
    for name, dim, value in (
        ("test_error", "network", 1 - right.mean(1)),
        ("mean_distortion", "network", mean),
        ("row_distortion", "row", spread),
    ):
        for end, factor in (("", 1.0), ("_low", 0.9), ("_high", 1.1)):
            variables[name + end] = ((dim,), factor * value)
    coordinates = {
        "network": ("network", np.array(names)),
        "row": ("row", np.array([f"row {k}" for k in range(rows)])),
    }
    attributes = _attributes(
        instrument="stability",
        method="boundary walk, effort regular; targets closest",
        command="theodolite stability --networks softmax=a:b",
        citations=json.dumps(["Szegedy et al. (2013). Intriguing properties of neural networks."]),
    )
    return xr.Dataset(variables, coords=coordinates, attrs=attributes)
