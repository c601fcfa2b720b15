"""Made-up surveys that follow the density schema, with numbers shaped like a real run's."""

import json

import numpy as np
import xarray as xr

LOG_VOLUME = 784 * np.log(256.0)
# ln of the share of all inputs per unit of output, at outputs a real run has measured.
_OUTPUT = [-142.0, -120.0, -100.0, -87.0, -50.0, -20.0, 0.0, 5.0, 10.0, 15.0, 20.0]
_LOG_SHARE = [-1010.0, -480.0, -75.0, -1.4, -288.9, -848.9, -1361.0, -1532.5, -1792.9, -2191.1, -2700.0]
_CHECKS = [
    (
        "agreement of the starts",
        "rung means of the ladders differ by no more than chance (chi-squared per degree of freedom)",
        1.12,
        1.5,
    ),
    (
        "largest disagreement",
        "largest difference of a rung's mean output between two starts, in standard deviations of the output",
        0.31,
        0.5,
    ),
    (
        "fluctuation ratio",
        "largest departure of variance / (d mean / d lambda) from 1, which equilibrium demands",
        0.14,
        0.25,
    ),
    ("swaps", "smallest share of accepted exchanges between neighbouring rungs (at least)", 0.27, 0.2),
    (
        "drift",
        "largest difference between the first and the second half of the run, in standard errors",
        1.4,
        2.0,
    ),
    ("acceptance", "smallest share of accepted proposals of a rung (at least)", 0.41, 0.3),
    ("room", "entropy range of the curve over ln(number of inputs)", 0.62, 1.0),
    ("loop closure", "difference to the value through a second field, in errors", np.nan, 3.0),
]


def density_example(converged: bool = True, seed: int = 0, n_samples: int = 24) -> xr.Dataset:
    """A density Dataset with 108 levels, 85 rungs, three ladders; not converged above 2 where asked."""
    generator = np.random.default_rng(seed)
    edges = np.arange(-142.0, 20.1, 1.5)
    level = (edges[1:] + edges[:-1]) / 2
    fine = np.interp(level, _OUTPUT, _LOG_SHARE)
    kernel = np.exp(-(np.arange(-6, 7) ** 2) / 18.0)
    smooth = np.convolve(np.pad(fine, 6, mode="reflect", reflect_type="odd"), kernel / kernel.sum(), mode="valid")
    smooth -= np.log(np.exp(smooth - smooth.max()).sum()) + smooth.max()
    entropy = LOG_VOLUME + smooth
    error = 0.02 + 3.4 * (np.abs(level + 87.0) / 105.0) ** 0.8
    level_converged = np.ones(level.size, bool)
    checks = [list(row) for row in _CHECKS]
    if not converged:
        level_converged = level < 2.0
        error = np.where(level_converged, error, 3 * error)
        checks[0][2], checks[1][2] = 2.6, 0.83
    lower = [True, True, True, False, True, False, True, True]
    passed = [
        -1 if np.isnan(value) else int(value <= limit if low else value >= limit)
        for (_, _, value, limit), low in zip(checks, lower, strict=True)
    ]
    names = ["test: 0", "test: 1"]
    outputs = [generator.normal(-9.0, 3.2, 980), generator.normal(7.5, 2.6, 1135)]
    histogram = np.stack([np.histogram(values, edges)[0] for values in outputs])
    rarity = [
        float(np.median([(entropy - np.log(np.maximum(row, 1)))[np.searchsorted(edges, v) - 1] for v in values]))
        for values, row in zip(outputs, histogram, strict=True)
    ]
    rungs = np.sort(np.concatenate([[0.0], np.linspace(-18.0, -0.4, 24), np.geomspace(0.3, 110.0, 60)]))
    mean = np.interp(
        np.arctan(rungs / 12.0),
        np.linspace(np.arctan(-1.5), np.arctan(9.2), 9),
        [-141, -118, -98, -70, -40, -15, 2, 11, 19],
    )
    variance = np.maximum(np.gradient(mean, rungs), 0.02)
    shift = 0.08 * np.sqrt(variance) * generator.normal(size=(3, rungs.size))
    if not converged:
        shift[2] += np.where(mean > 0, 0.6, 0.0) * np.sqrt(variance)
    where = "" if converged else "Rung means of the starts disagree above output 2.0; below it every check holds."
    return xr.Dataset(
        {
            "level_edges": ("level_edge", edges),
            "log_density_of_states": ("level", entropy),
            "log_density_error": ("level", error),
            "level_converged": ("level", level_converged),
            "n_samples": ("level", generator.integers(300, 4000, level.size)),
            "representative": (
                ("level", "sample", "point_0", "point_1", "point_2"),
                _inputs(level, n_samples, generator),
            ),
            "representative_output": (
                ("level", "sample"),
                level[:, None] + generator.uniform(-0.75, 0.75, (level.size, n_samples)),
            ),
            "data_histogram": (("data_set", "level"), histogram),
            "data_rarity": ("data_set", rarity),
            "noise_distance": ("data_set", [123.4, 127.9]),
            "noise_squared_distance": ("data_set", [15230.0, 16360.0]),
            "rung_lambda": ("rung", rungs),
            "rung_log_partition": ("rung", LOG_VOLUME + np.cumsum(mean * np.gradient(rungs))),
            "rung_mean": (("ladder", "rung"), mean + shift),
            "rung_variance": (("ladder", "rung"), np.tile(variance, (3, 1))),
            "swap_rate": ("rung", np.append(generator.uniform(0.28, 0.6, rungs.size - 1), np.nan)),
            "acceptance": ("rung", generator.uniform(0.42, 0.6, rungs.size)),
            "autocorrelation_time": ("rung", generator.uniform(2, 40, rungs.size)),
            "fluctuation_ratio": ("rung", 1 + 0.05 * generator.normal(size=rungs.size)),
            "round_trips": ("ladder", [1, 0, 2]),
            "check_name": ("check", [row[0] for row in checks]),
            "check_sentence": ("check", [row[1] for row in checks]),
            "check_value": ("check", [row[2] for row in checks]),
            "check_limit": ("check", [str(row[3]) for row in checks]),
            "check_passed": ("check", passed),
            "verdict": ((), "converged" if converged else "not converged"),
            "verdict_sentence": (
                (),
                "Every check that could be made holds at every level." if converged else where,
            ),
        },
        coords={"level": level, "data_set": names, "ladder_start": ("ladder", ["noise", "zeros", "data"])},
        attrs={
            "instrument": "density",
            "observable": "logit:1",
            "observable_sentence": "log-odds of class '1' against class '0'",
            "space": "grid:1x28x28:256",
            "space_sentence": "28 x 28 pixels of 256 levels: e^4347 inputs",
            "log_volume": float(LOG_VOLUME),
            "method": "ladder",
            "seed": 3,
            "settings": '[density]\nmethod = "ladder"\nseed = 3\nbudget = "5 min"\n',
            "evaluations": 61_440,
            "seconds": 287.4,
            "model_name": "paper_cnn, MNIST 0 and 1",
            "model_hash": "9f2c4e7a1b6d5083e2c1f7a9d4b80c35e6a1927fd0b3c8e5a4f6172839405162",
            "versions": json.dumps({"theodolite": "0.1.0", "torch": "2.13.0", "numpy": "2.3.5", "python": "3.11.2"}),
            "machine": "2 cores, x86_64",
            "date": "2026-01-15 10:24 UTC",
            "command": "theodolite demo --only density --seed 3",
            "citations": json.dumps(
                [
                    "Liu, You, Li and Shang, Gradient-based Wang-Landau Algorithm: A Novel Sampler for "
                    "Output Distribution of Neural Networks over the Input Space, ICML 2023",
                    "Shirts and Chodera, Statistically optimal analysis of samples from multiple equilibrium "
                    "states, J. Chem. Phys. 129, 124105 (2008)",
                ]
            ),
            "probability": "sigmoid",
            "version": "0.1.0",
        },
    )


def _inputs(level: np.ndarray, n_samples: int, generator: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[0:28, 0:28]
    stroke = 255 * np.exp(-((columns - 13.5 - (14 - rows) * 0.15) ** 2) / 5.0) * (np.abs(rows - 13.5) < 10)
    ring = 255 * np.exp(-((np.hypot(rows - 13.5, columns - 13.5) - 8.0) ** 2) / 4.0)
    picture = np.where((level > -87.0)[:, None, None], stroke, ring)
    strength = np.clip(np.abs(level + 87.0) / 105.0, 0, 1)[:, None, None, None]
    noise = generator.integers(0, 256, (level.size, n_samples, 28, 28))
    taken = generator.random(noise.shape) < 0.97 * strength
    mixed = np.where(taken, picture[:, None] * generator.uniform(0.8, 1.0, noise.shape), noise)
    return np.clip(mixed, 0, 255).astype(np.uint8)[:, :, None]


def ising_example() -> xr.Dataset:
    """Exact counts of the 4 x 4 Ising model (periodic, E = - sum of bond products): no rungs, no data."""
    states = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    spins = (2 * states - 1).reshape(-1, 4, 4)
    energy = -(spins * np.roll(spins, 1, 1)).sum((1, 2)) - (spins * np.roll(spins, 1, 2)).sum((1, 2))
    level = np.arange(-32.0, 33.0, 4.0)
    count = np.array([(energy == value).sum() for value in level])
    pictures = np.zeros((level.size, 4, 16), np.int64)
    outputs = np.full((level.size, 4), np.nan)
    for index, value in enumerate(level):
        found = np.flatnonzero(energy == value)[:4]
        pictures[index, : found.size] = spins[found].reshape(-1, 16)
        outputs[index, : found.size] = value
    with np.errstate(divide="ignore"):
        entropy = np.log(count)
    return xr.Dataset(
        {
            "level_edges": ("level_edge", np.arange(-34.0, 35.0, 4.0)),
            "log_density_of_states": ("level", entropy),
            "log_density_error": ("level", np.zeros(level.size)),
            "level_converged": ("level", np.ones(level.size, bool)),
            "n_samples": ("level", count),
            "representative": (("level", "sample", "point_0"), pictures),
            "representative_output": (("level", "sample"), outputs),
            "verdict": ((), "exact"),
            "verdict_sentence": ((), "Every input was counted."),
        },
        coords={"level": level},
        attrs={
            "instrument": "density",
            "observable": "energy",
            "observable_sentence": "energy of the 4 x 4 Ising model",
            "space": "spins:16",
            "space_sentence": "16 spins of -1 or +1: e^11 states",
            "log_volume": float(16 * np.log(2)),
            "method": "enumerate",
            "seed": 0,
            "settings": 'method = "enumerate"\n',
            "evaluations": 65_536,
            "seconds": 0.4,
            "model_name": "ising:4",
            "model_hash": "",
            "versions": "{}",
            "machine": "2 cores",
            "date": "2026-01-15",
            "command": "theodolite density --system ising:4",
            "citations": "[]",
            "probability": "",
            "version": "0.1.0",
        },
    )
