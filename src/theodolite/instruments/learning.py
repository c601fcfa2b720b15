"""What density do images come from, and was it truly learned?

``model, survey = Learning().fit(images)`` grows an energy by maximum likelihood with Markov chains, then lets long runs
of its own judge whether its density is that of the data. Sources: Hill 2020 (PhD thesis, UCLA), chapter 3; Nijkamp,
Hill, Han, Zhu and Wu 2020, "On the anatomy of MCMC-based maximum likelihood learning of energy-based models";
docs/learning.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import xarray
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.learning_findings import to_dataset
from theodolite.instruments.learning_noise_scales import with_noise_scales
from theodolite.instruments.learning_sampler import LearningSampler
from theodolite.instruments.learning_task import LearningTask, prepare
from theodolite.learning.bank import BANK_STARTS, INITIALISATIONS
from theodolite.learning.energy import ACTIVATIONS
from theodolite.learning.lyapunov import LyapunovSettings
from theodolite.learning.maximum_likelihood import UPDATES_KEPT
from theodolite.learning.model import EnergyModel
from theodolite.learning.networks import ENERGIES
from theodolite.learning.schedule import Schedule
from theodolite.network import model_hash
from theodolite.run import Budget, Outcome

DYNAMICS = ("mala", "langevin", "gibbs")
CHECKPOINT = "learning.checkpoint.pt"
ENERGY = "energy.safetensors"
CITATIONS = (
    "Hill (2020). Learning and mapping energy functions of high-dimensional image data. PhD thesis, UCLA.",
    "Nijkamp, Hill, Han, Zhu, Wu (2020). On the anatomy of MCMC-based maximum likelihood learning of energy-based "
    "models.",
    "Vincent (2011). A connection between score matching and denoising autoencoders.",
)


@final
@dataclass(frozen=True)
class Learning:
    """Settings of learning; ``fit`` runs it.

    ``energy``: "mlp", "conv", "deepframe" or "nonlocal", with ``widths`` (of layers; channels of the others; None:
    128, 128, and as published) and ``activation``. ``components``: principal components the energy is learned in; None:
    the pixels themselves; "auto": 40 where an MLP learns images of more than 64 pixels. ``data_noise``: standard
    deviation of the noise added to data, in input units (eq. 3.1). ``prior``: "matched" (the Gaussian of the noisy
    data), sigma of eq. 3.10, or "none". ``scaled``: the network's output is divided by step_size^2 / 2 (eqs. 3.2-3.5).

    ``warm_updates`` of score matching, then ``updates`` of maximum likelihood under ``schedule`` (`Schedule.parse`),
    Adam's ``betas``, ``batch`` images and chains. Chains start by ``initialisation`` "persistent", "data", "noise" or
    "generator" (cooperative learning: a generator of ``latent`` numbers is learned along, and is ``model.generator``),
    a bank by ``bank_start`` "data" or "noise" with ``rejuvenation``; they make ``steps`` of ``dynamics`` "mala",
    "langevin" with ``noise`` tau and ``step_size`` epsilon in input units (None: follows the acceptance; "mala" only),
    or sweeps of "gibbs", for which pixels are rounded to ``levels`` grey levels (None: 8). ``average``: decay of the
    running average of the weights, 0: none. ``updates_kept``: "all", "expansion" or "contraction" (section 3.5).

    ``long_steps`` and ``long_chains`` of the runs that judge; 0 steps: no judging. ``budget`` ends the run with what it
    has; lengths are counted in updates, so that numbers do not depend on the machine's speed. ``noise_scales`` gamma:
    at each the Lyapunov exponent is measured over ``noise_time`` units of t and long-run states are kept, when learning
    has ended (section 3.4.1). Raises UserError for anything else.
    """

    seed: int = 0
    energy: str = "mlp"
    widths: tuple[int, ...] | None = None
    activation: str = "silu"
    components: int | str | None = "auto"
    data_noise: float = 0.4
    prior: str | float = "matched"
    scaled: bool = False
    warm_updates: int = 1500
    updates: int = 2000
    schedule: str = "adam:1e-3:1e-5"
    betas: tuple[float, float] = (0.5, 0.99)
    batch: int = 256
    initialisation: str = "persistent"
    latent: int = 8
    bank_start: str = "data"
    rejuvenation: float = 0.0
    dynamics: str = "mala"
    levels: int | None = None
    noise: float = 1.0
    steps: int = 20
    step_size: float | None = None
    average: float = 0.999
    updates_kept: str = "all"
    long_steps: int = 10_000
    long_chains: int = 400
    noise_scales: tuple[float, ...] = ()
    noise_time: float = 25.0
    budget: str = "10 min"

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        Schedule.parse(self.schedule)
        if self.widths is not None:
            object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "noise_scales", tuple(self.noise_scales))
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(name, f"one of {', '.join(allowed)}", repr(value), "choose one")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(name, f"a whole number, {least} or more", repr(value), "leave it out for the default")
        self._check_numbers()
        self._check_levels()
        self._check_components()
        self._check_dynamics()
        self._check_noise_scales()

    def fit(
        self,
        images: Tensor,
        *,
        labels: Tensor | None = None,
        class_names: Sequence[str] = (),
        held_out: Tensor | None = None,
        energy: nn.Module | None = None,
        truth: Callable[[Tensor], Tensor] | None = None,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        command: str = "",
    ) -> tuple[EnergyModel, xarray.Dataset]:
        """Learn the density of ``images (n, *shape)``, and judge what was learned.

        Gives the model and the learning dataset of docs/architecture.md. ``labels (n,)``: classes, by which long runs
        are compared with the data (without: clusters); ``class_names``: theirs, by label. ``held_out (m, *shape)``:
        images that are judged by and not learned. ``energy``: a module ``(batch, *shape) -> (batch,)`` to learn in
        place of the named ones; it is copied. ``truth``: ln q of points ``(n, *shape)`` where it is known, of one or
        two coordinates. ``directory``: where checkpoints, the model (energy.safetensors) and the result are saved; with
        ``resume`` a run there is continued, on a CPU bit for bit. Learning that diverges is a result, whose verdict
        says so, with the last good weights.
        Raises UserError before any work for images, labels, settings or a directory that will not do.
        """
        task = prepare(
            self, images, labels=labels, class_names=class_names, held_out=held_out, energy=energy, truth=truth
        )
        run = surveying.Run.begun(
            "learning",
            CHECKPOINT,
            directory,
            resume=resume,
            budget=self.budget,
            evaluations=lambda: task.counter.rows,
            progress=progress,
        )
        run.check_same(task.identity, "the images, labels and settings")
        sampler = LearningSampler(self, task)
        outcome = run.of(sampler, torch.Generator().manual_seed(self.seed), sampler.stop)
        model = sampler.model(outcome.state)
        dataset = to_dataset(self, task, sampler, outcome, model, self._attributes(task, outcome, model, command))
        if run.folder is not None:
            model.save(run.folder / ENERGY)
        if self.noise_scales:
            dataset = with_noise_scales(model, dataset, self._lyapunov, self.seed)
        run.keep(dataset)
        return model, dataset

    def plan(self, images: Tensor) -> str:
        """What ``fit`` would do, in words; learns nothing."""
        task = prepare(self, images)
        chains = f"{self.batch} chains from {_START_WORDS[self.initialisation]}"
        if self.dynamics == "gibbs":
            moved = f"{self.steps} sweeps of gibbs over {task.data.levels} grey levels each"
        else:
            step = "adapted" if self.step_size is None else f"{self.step_size:g} input units"
            moved = f"{self.steps} steps of {self.dynamics} each, step {step}"
        rows = task.planned_rows(self)
        scales = ", ".join(f"{scale:g}" for scale in self.noise_scales)
        tested = f"Then noise scales {scales}, {self.noise_time:g} units of time each, beyond that budget"
        return "\n".join(
            [
                f"Images: {len(task.images):,} of {task.images[0].numel():,} numbers each; noise {self.data_noise:g}",
                f"Energy: {task.sentence}",
                f"Learning: {self.warm_updates:,} updates of score matching, {self.updates:,} of maximum likelihood, "
                f"{chains}, {moved}; {self.schedule}",
                f"Judging: {self.long_steps:,} steps of {min(self.long_chains, len(task.images)):,} chains from data "
                "and as many from cooled noise",
                f"Budget: {Budget.parse(self.budget)}; about {rows:,} evaluations of the energy are needed",
                *([tested] if scales else []),
            ]
        )

    @property
    def identity(self) -> tuple[Any, ...]:
        """What the result depends on, beside the images: all settings but the budget."""
        return tuple(getattr(self, entry.name) for entry in dataclasses.fields(self) if entry.name != "budget")

    # ------------------------------------------------------------------ checks

    def _check_numbers(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high:
                expected = f"a number from {low:g} to {high:g}" if math.isfinite(high) else f"a number, {low:g} or more"
                raise UserError(name, expected, repr(value), "leave it out for the default")
        if len(self.betas) != 2 or not all(_is_number(beta) and 0 <= beta < 1 for beta in self.betas):
            raise UserError("betas", "two numbers, 0 or more and below 1", repr(self.betas), "for example 0.5, 0.99")
        widths = self.widths
        if widths is not None and not (widths and all(isinstance(width, int) and width > 0 for width in widths)):
            raise UserError("widths", "whole numbers above 0", repr(widths), "for example 128, 128")
        if not (self.prior in ("matched", "none") if isinstance(self.prior, str) else _above(self.prior)):
            remedy = "matched is the Gaussian of the noisy data"
            raise UserError("prior", "matched, none, or a number above 0", repr(self.prior), remedy)
        if self.step_size is not None and not _above(self.step_size):
            raise UserError("step_size", "a number above 0", repr(self.step_size), "about half of data_noise is usual")

    def _check_levels(self) -> None:
        if self.dynamics != "gibbs":
            if self.levels is not None:
                raise UserError("levels", f"nothing with {self.dynamics}", repr(self.levels), 'use dynamics="gibbs"')
            return
        levels = self.levels
        if levels is not None and (not isinstance(levels, int) or isinstance(levels, bool) or levels < 2):
            raise UserError("levels", "a whole number, 2 or more", repr(levels), "leave it out for 8")
        if self.components not in (None, "auto"):
            remedy = "leave it out: grey levels are those of pixels"
            raise UserError("components", "pixels with gibbs", repr(self.components), remedy)
        if self.step_size is not None:
            raise UserError("step_size", "nothing with gibbs", repr(self.step_size), "leave it out: sweeps have none")
        if self.scaled:
            raise UserError("scaled", "False with gibbs", "True", "leave it out: there is no step to scale by")
        if self.initialisation == "generator":
            got = repr(self.initialisation)
            raise UserError("initialisation", "chains of grey levels with gibbs", got, 'use "persistent"')

    def _check_components(self) -> None:
        value = self.components
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if not (whole or value is None or value == "auto"):
            expected = 'a whole number above 0, "auto", or None for the pixels'
            raise UserError("components", expected, repr(value), "for example 40")

    def _check_dynamics(self) -> None:
        if self.step_size is None and (self.dynamics == "langevin" or self.scaled):
            what = (
                "without Metropolis correction" if self.dynamics == "langevin" else "where the energy is scaled by it"
            )
            raise UserError("step_size", f"a number above 0 {what}", "None", "give one, about half of data_noise")
        if self.dynamics != "langevin" and self.noise != 1:
            raise UserError("noise", f"1 with {self.dynamics}", repr(self.noise), 'use dynamics="langevin"')
        if self.warm_updates and self.data_noise == 0:
            remedy = "use warm_updates=0, or give data_noise"
            raise UserError("data_noise", "above 0 where learning begins with score matching", "0", remedy)

    def _check_noise_scales(self) -> None:
        if not self.noise_scales:
            return
        if not all(_is_number(scale) and scale >= 0 for scale in self.noise_scales):
            got = repr(self.noise_scales)
            raise UserError("noise_scales", "numbers, 0 or more", got, "1 is the temperature of learning")
        if not _above(self.noise_time):
            raise UserError("noise_time", "a number above 0", repr(self.noise_time), "25 is what the thesis needs")
        if self.dynamics == "gibbs":
            raise UserError("noise_scales", "nothing with gibbs", repr(self.noise_scales), "grey levels have no slope")

    @property
    def _lyapunov(self) -> LyapunovSettings:
        return LyapunovSettings(self.noise_scales, time=self.noise_time, settling=_SETTLING * self.noise_time)

    def _attributes(
        self, task: LearningTask, outcome: Outcome, model: EnergyModel, command: str
    ) -> dict[str, str | int | float]:
        settings = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        surveyed = surveying.Surveyed(
            observable="energy",
            observable_sentence="the learned energy U, in nats; its density is exp(-U) / Z",
            space=model.space,
            model_name=model.name,
            model_hash=model_hash(model.energy),
        )
        return {
            **surveying.attributes_of(
                settings,
                surveyed,
                outcome,
                name="learning",
                method=f"maximum likelihood; {self.initialisation} chains, {self.steps} steps of {self.dynamics}",
                citations=CITATIONS,
                command=command,
            ),
            "energy_sentence": task.sentence,
            "n_images": len(task.images),
            "n_held_out": 0 if task.held_out is None else len(task.held_out),
            "data_noise": self.data_noise,
            **({} if task.data.levels is None else {"levels": task.data.levels}),
            "explained": task.explained,
        }


_CHOICES: dict[str, tuple[str, ...]] = {
    "energy": ENERGIES,
    "activation": tuple(ACTIVATIONS),
    "initialisation": (*INITIALISATIONS, "generator"),
    "bank_start": BANK_STARTS,
    "dynamics": DYNAMICS,
    "updates_kept": UPDATES_KEPT,
}
_SETTLING = 0.2  # of the noise time: made first, and not counted
_WHOLE = {"latent": 1, "warm_updates": 0, "updates": 0, "batch": 1, "steps": 1, "long_steps": 0, "long_chains": 2}
_RANGES = (
    ("data_noise", 0.0, math.inf),
    ("rejuvenation", 0.0, 1.0),
    ("noise", 0.0, math.inf),
    ("average", 0.0, 0.999999),
)
_START_WORDS = {
    "persistent": "a bank of one slot an image",
    "data": "data",
    "noise": "noise",
    "generator": "a generator",
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _above(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value > 0
