"""Made-up surveys of learning that follow the schema: digits whose long runs stay or drift, and mixtures."""

import json

import numpy as np
import xarray as xr
from scipy.stats import binom, norm
from sklearn.datasets import load_digits

from tests.report.boundary_example import _attributes

RUNS = ["data", "held out", "short run", "long run from data", "long run from noise"]
STATISTICS = ["energy difference", "deviation ratio", "class variation", "Frechet ratio", "Kolmogorov-Smirnov"]
_SENTENCES = [
    "the images learned from, noise added as in training",
    "images kept apart, noise added as in training",
    "100 steps from noise, as many as an update makes",
    "10,000 steps from data",
    "10,000 steps from noise of temperature 30, cooled to 1 over the first half",
]


def learning_example(
    kind="digits", drift=0.0, verdict="convergent", n_updates=900, n_chains=200, lyapunov=False, colours=0, seed=0
):
    """``kind``: "digits", "plane" (two coordinates) or "line" (one); ``drift``: of the long runs, standard deviations
    of the data's energy, downwards; ``colours``: 3 for coloured images."""
    generator = np.random.default_rng(seed)
    variables = _training(generator, n_updates) | _runs(generator, drift, n_chains)
    points = {"digits": _digits, "plane": _plane, "line": _line}[kind](generator, drift, variables)
    if colours:
        grey = points["run_image"][1]
        tint = np.array([1.0, 0.6, 0.2])[:colours, None, None]
        dims = ("run", "example", "image_0", "image_1", "image_2")
        points["run_image"] = (dims, grey[:, :, None] * tint)
    variables |= points
    if lyapunov:
        variables |= _lyapunov(generator, variables["run_image"])
    variables |= _checks(verdict, drift)
    coordinates = {"run": ("run", np.array(RUNS)), "signed_lag": ("signed_lag", np.arange(-30, 31))}
    if lyapunov:
        coordinates["noise_scale"] = ("noise_scale", variables.pop("noise_scale")[1])
    attributes = _attributes(
        instrument="learning",
        model_name="energy of made-up data",
        observable="energy",
        observable_sentence="energy of the density learned from images, nats",
        method="maximum likelihood, persistent chains, MALA",
        settings='[learning]\nenergy = "mlp"\nseed = 3\n',
        command="theodolite learn --data digits --seed 3",
        citations=json.dumps(["Hill (2020). Learning and Mapping Energy Functions of High-Dimensional Image Data."]),
        energy_sentence="The energy is a network of two layers of 192 units beside the data's own Gaussian.",
        n_images=1600,
        n_held_out=400,
        data_noise=0.4,
        explained=0.92,
        advice=""
        if verdict == "convergent"
        else "Lower the last learning rate tenfold, or double the steps an update.",
    )
    for name in ("norm", "constraints", "reference"):
        attributes.pop(name)
    return xr.Dataset(variables, coordinates, attributes)


def _training(generator, n):
    """Traces that settle, with their correlations."""
    update = np.arange(n)
    difference = 30 * np.exp(-update / 60) * np.cos(update / 9) + generator.normal(size=n)
    gradient = 6 + 3 * np.exp(-update / 80) + 0.2 * generator.normal(size=n) + 0.05 * difference
    half = difference[n // 2 :] - difference[n // 2 :].mean()
    other = gradient[n // 2 :] - gradient[n // 2 :].mean()

    def correlation(one, two, lag):
        length = len(one) - abs(lag)
        first, second = (one[:length], two[lag:]) if lag >= 0 else (one[-lag:], two[:length])
        return float((first * second).sum() / np.sqrt((one**2).sum() * (two**2).sum()))

    return {
        "energy_difference": ("update", difference),
        "langevin_gradient": ("update", gradient),
        "acceptance": ("update", np.clip(0.6 + 0.02 * generator.normal(size=n), 0, 1)),
        "step_size": ("update", np.full(n, 0.05)),
        "learning_rate": ("update", np.where(update < n // 2, 1e-3, 1e-2) * 0.01 ** (update % (n // 2) / (n // 2))),
        "optimiser": ("update", (update >= n // 2).astype(int)),
        "energy_difference_mean": ((), float(difference[n // 2 :].mean())),
        "energy_difference_error": ((), float(half.std() / np.sqrt(len(half)))),
        "energy_difference_correlation": ("lag", [correlation(half, half, lag) for lag in range(31)]),
        "langevin_gradient_correlation": ("lag", [correlation(other, other, lag) for lag in range(31)]),
        "cross_correlation": ("signed_lag", [correlation(half, other, lag) for lag in range(-30, 31)]),
        "correlation_error": ((), 1 / np.sqrt(len(half))),
        "oscillation": ((), "weak"),
    }


def _runs(generator, drift, n):
    """Energies of each row about -40 with standard deviation 6, long runs `drift` deviations below."""
    shift = np.array([0.0, -0.2, 0.4, -drift + 0.07, -drift - 0.05])
    energy = -40 + 6 * (shift[:, None] + generator.normal(size=(5, n)))
    energy[1, n // 2 :] = np.nan
    steps = np.linspace(0, 10_000, 101)
    mean, low, high = (np.full((5, len(steps)), np.nan) for _ in range(3))
    start = {3: 0.0, 4: 12.0}
    for row, height in start.items():
        path = -40 + 6 * (shift[row] + (height - shift[row]) * np.exp(-steps / 900))
        mean[row], low[row], high[row] = path, path - 7.7, path + 7.7
    share = np.full((5, 4), 0.25) + (drift > 1) * np.array([0, 0, 0, 1, 1])[:, None] * np.array([0.3, -0.1, -0.1, -0.1])
    low_share, high_share = (binom.ppf(level, n, share) / n for level in (0.025, 0.975))
    statistic = np.full((5, 5), np.nan)
    data = energy[0]
    for row in range(1, 5):
        known = energy[row][np.isfinite(energy[row])]
        gap = np.abs(np.searchsorted(np.sort(data), known) / len(data) - np.argsort(np.argsort(known)) / len(known))
        variation = 0.5 * np.abs(share[row] - share[0]).sum()
        difference = (known.mean() - data.mean()) / data.std(ddof=1)
        statistic[row] = [difference, known.std(ddof=1) / data.std(ddof=1), variation, 1 + 2 * drift, gap.max()]
    return {
        "run_energy": (("run", "chain"), energy),
        "run_sentence": ("run", _SENTENCES),
        "class_name": ("class", [str(digit) for digit in range(4)]),
        "run_class_share": (("run", "class"), share),
        "run_class_share_low": (("run", "class"), low_share),
        "run_class_share_high": (("run", "class"), high_share),
        "trace_step": ("step", steps),
        "trace_energy": (("run", "step"), mean),
        "trace_energy_low": (("run", "step"), low),
        "trace_energy_high": (("run", "step"), high),
        "statistic_name": ("statistic", STATISTICS),
        "statistic": (("run", "statistic"), statistic),
        "statistic_low": (("run", "statistic"), statistic - 0.1),
        "statistic_high": (("run", "statistic"), statistic + 0.1),
    }


def _digits(generator, drift, _variables):
    """Real digits 0-3 of 8 x 8 pixels in [-1, 1]; with a drift the long runs are oversaturated."""
    found = load_digits()
    images = found.images[found.target < 4] / 8 - 1
    shown = generator.permutation(len(images))[: 5 * 32].reshape(5, 32)
    rows = images[shown]
    rows[:3] += 0.2 * generator.normal(size=rows[:3].shape)
    if drift > 1:
        rows[3:] = 1.8 * np.tanh(3 * rows[3:])
    return {"run_image": (("run", "example", "image_0", "image_1"), rows)}


def _modes(generator, n):
    centre = np.array([[0.0, 1.0], [0.87, -0.5], [-0.87, -0.5]])
    return centre[generator.integers(0, 3, n)] + 0.15 * generator.normal(size=(n, 2))


def _plane(generator, drift, variables):
    """A mixture of three Gaussians and a density that is nearly it; with a drift, narrower modes."""
    axis = np.linspace(-1.8, 1.8, 61)
    centre = np.array([[0.0, 1.0], [0.87, -0.5], [-0.87, -0.5]])

    def density(width, mass):
        parts = [norm.pdf(axis, a, width)[:, None] * norm.pdf(axis, b, width)[None, :] for a, b in centre]
        return np.log(sum(share * part for share, part in zip(mass, parts, strict=True)) + 1e-30)

    mass = np.array([0.35, 0.33, 0.32]) if drift <= 1 else np.array([0.9, 0.06, 0.04])
    rows = np.stack([_modes(generator, 150) for _ in RUNS])
    if drift > 1:
        rows[3:] = centre[0] + 0.05 * generator.normal(size=rows[3:].shape)
    _without_classes(variables)
    return {
        "run_image": (("run", "example", "image_0"), rows),
        "plane_0": ("axis_0", axis),
        "plane_1": ("axis_1", axis),
        "log_density": (("axis_0", "axis_1"), density(0.16 if drift <= 1 else 0.05, mass)),
        "true_log_density": (("axis_0", "axis_1"), density(0.15, np.full(3, 1 / 3))),
        "plane_outcome": ((), "resolved" if drift <= 1 else "coarse"),
        "log_partition": ((), -1.9),
        "log_partition_error": ((), 0.0002),
        "divergence": ((), 0.021),
        "divergence_error": ((), 0.0004),
        "reverse_divergence": ((), 0.024),
        "mode_mass": ("mode", mass),
        "true_mode_mass": ("mode", np.full(3, 1 / 3)),
    }


def _line(generator, drift, variables):
    """A mixture of two Gaussians on a line, learned."""
    axis = np.linspace(-3, 3, 201)
    true = np.log(0.5 * norm.pdf(axis, -1, 0.4) + 0.5 * norm.pdf(axis, 1, 0.4))
    _without_classes(variables)
    points = np.where(generator.random((5, 80)) < 0.5, -1, 1) + 0.4 * generator.normal(size=(5, 80))
    return {
        "run_image": (("run", "example", "image_0"), points[:, :, None]),
        "plane_0": ("axis_0", axis),
        "plane_1": ("axis_1", np.zeros(1)),
        "log_density": (("axis_0", "axis_1"), true[:, None] + 0.05 * np.sin(2 * axis)[:, None]),
        "true_log_density": (("axis_0", "axis_1"), true[:, None]),
        "divergence": ((), 0.002),
    }


def _without_classes(variables):
    for name in ("class_name", "run_class_share", "run_class_share_low", "run_class_share_high"):
        del variables[name]


def _lyapunov(generator, run_image):
    """Exponents that cross 0 above the scale 1; states that are whiter the hotter they are."""
    scale = np.array([0.25, 0.5, 1.0, 1.5, 2.0])
    exponent = 1.2 * np.log(scale / 1.1)
    dims, rows = run_image
    hot = rows[3][None] + 0.3 * scale[(slice(None), *[None] * (rows.ndim - 1))] * generator.normal(size=rows.shape)
    return {
        "noise_scale": ("noise_scale", scale),
        "lyapunov_exponent": ("noise_scale", exponent),
        "lyapunov_exponent_low": ("noise_scale", exponent - 0.1),
        "lyapunov_exponent_high": ("noise_scale", exponent + 0.1),
        "noise_scale_image": (("noise_scale", *dims[1:]), hot),
    }


def _checks(verdict, drift):
    failed = verdict == "non-convergent"
    sentence = {
        "convergent": "Convergent: long runs from data and from cooled noise keep the data's energies and classes.",
        "non-convergent": f"Non-convergent: the long runs lie {drift:.1f} standard deviations below the data.",
        "undecided": "Undecided: the long runs are too few to tell.",
    }[verdict]
    run = "long run from data"
    names = [f"energy, {run}", f"spread of energies, {run}", f"classes, {run}", f"features, {run}"]
    return {
        "check_name": ("check", names),
        "check_value": ("check", [-drift + 0.07, 1.05, 0.055, 1.7]),
        "check_limit": ("check", ["-0.25 to 0.25", "0.85 to 1.15", "<= 0.1", "<= 2"]),
        "check_passed": ("check", [int(not failed), 1, 1, -1 if verdict == "undecided" else 1]),
        "check_sentence": (
            "check",
            [
                "mean energy less that of the noisy training data, in deviations of the data",
                "deviation of the energies over that of the data's",
                "total variation of shares of classes beyond chance",
                "Frechet distance to the training data over that of as many other data",
            ],
        ),
        "verdict": ((), verdict),
        "verdict_sentence": ((), sentence),
    }
