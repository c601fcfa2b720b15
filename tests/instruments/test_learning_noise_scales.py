"""Lyapunov exponents in the learning dataset, of an energy that stays a Gaussian."""

import numpy as np
import pytest
import torch
import xarray

import theodolite as th
from theodolite.errors import UserError
from theodolite.instruments.learning_noise_scales import with_noise_scales
from theodolite.learning.lyapunov import LyapunovSettings
from theodolite.learning.recipes import recipe


def test_exponents_and_states_join_the_dataset():
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.5])
    flat = {"widths": (4,), "updates": 1, "schedule": "sgd:1e-9:1e-9", "long_steps": 20, "long_chains": 10}
    model, survey = th.Learning(**{**recipe("plane"), **flat}).fit(points, progress=False)
    with torch.no_grad():
        model.energy.parts[1].layers[-1].weight.zero_()
    settings = LyapunovSettings(noise_scales=(0.0, 1.0), time=4.0, settling=4.0, step=0.02)
    found = with_noise_scales(model, survey, settings)
    exact = -float(model.energy.parts[0].precision.min())
    assert found["lyapunov_exponent"].values == pytest.approx(np.full(2, exact), rel=5e-3)
    assert (found["lyapunov_exponent_low"] <= found["lyapunov_exponent_high"]).all()
    states = found["noise_scale_image"]
    assert states.dims == ("noise_scale", *survey["run_image"].dims[1:])
    assert float(np.nanstd(states.values[0])) < 0.05 < float(np.nanstd(states.values[1]))
    assert found.attrs["lyapunov_sentence"] == "Measured at every noise scale."


def test_another_dataset_is_refused():
    with pytest.raises(UserError, match="survey"):
        with_noise_scales(None, xarray.Dataset())  # type: ignore[arg-type]
