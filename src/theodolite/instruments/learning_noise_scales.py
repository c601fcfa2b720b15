"""What a learned energy does at other noise than it was learned at: Lyapunov exponents and long-run states.

Source: Hill 2020 (PhD thesis, UCLA), section 3.4.1 and Figure 3.8.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.lyapunov import LyapunovSettings, lyapunov_exponents
from theodolite.learning.model import EnergyModel
from theodolite.result import validate

_STARTS = ("long run from data", "short run", "data")  # the row that chains start at: the first that there is
_CHAINS = 16


def with_noise_scales(
    model: EnergyModel, survey: xarray.Dataset, settings: LyapunovSettings | None = None, seed: int = 0
) -> xarray.Dataset:
    """``survey``, the learning dataset of ``model``, with ``lyapunov_exponent`` and ``noise_scale_image`` over
    ``noise_scale``. Chains start at up to 16 of the examples kept of the long run from data; of the short run, or of
    the data, where there are no two.

    Exponents whose time step was too long or whose numbers overflowed are NaN; the attribute ``lyapunov_sentence`` says
    which. Raises UserError for a dataset of another survey, or one with fewer than two examples.
    """
    if "run_image" not in survey:
        raise UserError("survey", "a learning dataset with examples", "another", "give what Learning().fit returned")
    settings = settings or LyapunovSettings()
    images = _examples(survey)
    found = lyapunov_exponents(model.energy, model.points(images), settings, torch.Generator().manual_seed(seed))
    good = np.array([outcome == "measured" for outcome in found.outcome])
    pictures = np.stack([model.images(state.float()).numpy() for state in found.state])[:, : survey.sizes["example"]]
    room = [(0, 0), (0, survey.sizes["example"] - pictures.shape[1]), *[(0, 0)] * (pictures.ndim - 2)]
    pictures = np.pad(pictures, room, constant_values=np.nan)
    doubtful = [
        f"{scale:g}: {outcome}"
        for scale, outcome in zip(found.noise_scale, found.outcome, strict=True)
        if outcome != "measured"
    ]
    told = f"Left out at noise scales {'; '.join(doubtful)}." if doubtful else "Measured at every noise scale."
    added = {
        "noise_scale": (("noise_scale",), found.noise_scale),
        "lyapunov_exponent": (("noise_scale",), np.where(good, found.exponent, np.nan)),
        "lyapunov_exponent_low": (("noise_scale",), np.where(good, found.low, np.nan)),
        "lyapunov_exponent_high": (("noise_scale",), np.where(good, found.high, np.nan)),
        "noise_scale_image": (("noise_scale", *survey["run_image"].dims[1:]), pictures),
    }
    return validate(survey.assign(added).assign_attrs(lyapunov_sentence=told))


def _examples(survey: xarray.Dataset) -> Tensor:
    """Up to 16 finite examples ``(2 or more, *image_shape)`` of the first row that has two."""
    rows = list(survey["run"].values)
    for name in _STARTS:
        if name not in rows:
            continue
        images = torch.from_numpy(np.asarray(survey["run_image"].values[rows.index(name)], dtype=np.float32))
        images = images[images.flatten(1).isfinite().all(1)][:_CHAINS]
        if len(images) >= 2:
            return images
    raise UserError("survey", "a row of two finite examples or more", "none", "learn with long_chains=2 or more")
