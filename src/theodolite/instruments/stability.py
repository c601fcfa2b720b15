"""How small a change fools a network, and does what fools one network fool another?

``Stability().measure({name: network, ...}, inputs, labels)`` makes an adversarial example of every input for every
network and tests it on all of them, beside the same examples amplified and Gaussian noise. Source: Szegedy et al. 2013,
"Intriguing properties of neural networks", section 4; docs/stability.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import xarray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.stability_findings import to_dataset
from theodolite.instruments.stability_sampler import StabilitySampler
from theodolite.instruments.stability_task import StabilityTask, prepare
from theodolite.network import Network
from theodolite.run import Budget, Outcome
from theodolite.search.adversarial import LbfgsAttack

METHODS = ("walk", "l-bfgs")
EFFORTS = {"quick": 240, "regular": 400, "thorough": 710}  # forward and backward passes an image of a walk, about
TARGETS = ("closest", "next", "random", "all")
CHECKPOINT = "stability.checkpoint.pt"
CITATIONS = (
    "Szegedy, Zaremba, Sutskever, Bruna, Erhan, Goodfellow, Fergus (2013). Intriguing properties of neural networks.",
)
_DESCENT_PASSES = 70  # of L-BFGS towards one class, about
_LEAST_RESAMPLES = 200


@final
@dataclass(frozen=True)
class Stability:
    """Settings of a survey of stability; ``measure`` runs it.

    ``method``: "walk", the boundary walk, which ends on the boundary, on the far side by at most 1e-9 logits; or
    "l-bfgs", the paper's, which ends within the other class. ``effort`` of a walk: "quick", "regular" or "thorough".
    ``targets``: the class an example shall have: "closest" (any), "next" (the second largest output), "random" (drawn
    by the seed) or "all" (the closest over a search for every class). ``amplify``: distortions that examples are
    amplified to, in input units; "auto": a tenth of the space's range; None: not. ``noise``: standard deviations of
    Gaussian noise; None: the networks' mean distortion and those of ``amplify``; (): none. Both also as text,
    "0.1,0.3". ``resamples`` of the bootstrap. ``budget``: inputs not reached within it are said to be so. Raises
    UserError for anything else.
    """

    seed: int = 0
    method: str = "walk"
    effort: str = "regular"
    targets: str = "closest"
    amplify: str | float | Sequence[float] | None = "auto"
    noise: str | float | Sequence[float] | None = None
    resamples: int = 2000
    budget: str = "10 min"

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        for name, allowed in (("method", METHODS), ("effort", tuple(EFFORTS)), ("targets", TARGETS)):
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(name, f"one of {', '.join(allowed)}", repr(value), "choose one")
        for name in ("amplify", "noise"):
            self.distortions(name)
        if not isinstance(self.resamples, int) or self.resamples < _LEAST_RESAMPLES:
            raise UserError("resamples", f"at least {_LEAST_RESAMPLES}", repr(self.resamples), "2000 will do")

    def measure(
        self,
        networks: Mapping[str, Network],
        inputs: Tensor,
        labels: Tensor,
        *,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        command: str = "",
    ) -> xarray.Dataset:
        """Fool every network on each of ``inputs (image, *shape)`` that it has right, and test the examples on all.

        Gives the stability dataset of docs/architecture.md. ``labels (image,)``: true classes, -1 where unknown (such
        images are not attacked). Networks take the same inputs and tell the same classes in the same order.
        ``directory``: where checkpoints and the result are saved; with ``resume`` a run there is continued. An attack
        that fails is a row whose ``outcome`` says so. Raises UserError before any work for networks, inputs, labels,
        settings or a directory that will not do, and for a run begun with others.
        """
        task = prepare(self, networks, inputs, labels)
        run = surveying.Run.begun(
            "stability",
            CHECKPOINT,
            directory,
            resume=resume,
            budget=self.budget,
            evaluations=lambda: task.units,
            progress=progress,
        )
        run.check_same(task.identity, "the networks, inputs, labels and settings")
        sampler = StabilitySampler(self, task)
        outcome = run.of(sampler, torch.Generator().manual_seed(self.seed), sampler.stop)
        dataset = to_dataset(self, task, *sampler.found(outcome.state), self._attributes(task, outcome, command))
        run.keep(dataset)
        return dataset

    def plan(self, networks: Mapping[str, Network], inputs: Tensor, labels: Tensor) -> str:
        """What ``measure`` would do, in words; searches nothing."""
        task = prepare(self, networks, inputs, labels)
        words = ", ".join(f"{name} {int(right.sum()):,}" for name, right in zip(task.names, task.right, strict=True))
        amplified = ", ".join(f"{value:g}" for value in task.amplify) or "none"
        noise = "the mean distortion and those" if task.noise is None else ", ".join(f"{v:g}" for v in task.noise)
        return "\n".join(
            [
                f"Attack: method {self.method}, targets {self.targets}, effort {self.effort}",
                f"Right before, and attacked, of {len(task.points):,} inputs: {words}",
                f"Amplified to: {amplified}; noise of: {noise or 'none'}",
                f"Budget: {Budget.parse(self.budget)}; about {self._passes(task):,} forward and backward passes are "
                "needed",
            ]
        )

    def search_passes(self, networks: Mapping[str, Network], inputs: Tensor, labels: Tensor) -> int:
        """Forward and backward passes that the attacks take, about."""
        return self._passes(prepare(self, networks, inputs, labels))

    def distortions(self, name: str) -> tuple[float, ...] | None:
        """``amplify`` or ``noise`` as numbers; None where they are to be chosen. Raises UserError for what is none."""
        given = getattr(self, name)
        chosen = {"amplify": ("auto",), "noise": ("auto", None)}[name]
        if not isinstance(given, float | int) and given in chosen:
            return None
        if given is None or given == "none":
            return ()
        values = str(given).split(",") if isinstance(given, str | float | int) else list(given)
        try:
            found = tuple(float(value) for value in values)
        except (TypeError, ValueError):
            found = (math.nan,)
        if not all(math.isfinite(value) and value > 0 for value in found):
            raise UserError(name, "auto, none, or finite numbers above 0", repr(given), "for example 0.1, or 0.1,0.3")
        return tuple(dict.fromkeys(found))

    @property
    def attack(self) -> LbfgsAttack:
        """The settings of the paper's method."""
        return LbfgsAttack()

    @property
    def identity(self) -> tuple[str | int, ...]:
        """What the attacks depend on, beside networks and inputs."""
        return self.seed, self.method, self.effort, self.targets

    def _passes(self, task: StabilityTask) -> int:
        targets = task.n_classes - 1 if self.targets == "all" else 1
        passes = _DESCENT_PASSES if self.method == "l-bfgs" else EFFORTS[self.effort]
        return targets * passes * int(task.right.sum())

    def _attributes(self, task: StabilityTask, outcome: Outcome, command: str) -> dict[str, str | int | float]:
        settings = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        settings["amplify"] = list(task.amplify)
        settings["noise"] = "auto" if task.noise is None else list(task.noise)
        return surveying.attributes_of(
            settings,
            surveying.Surveyed(
                observable="all outputs",
                observable_sentence="the class with the largest output",
                space=task.networks[0].space,
                model_name=", ".join(task.names),
                model_hash=surveying.hash_of(task.networks),
            ),
            outcome,
            name="stability",
            method=_method_words(self),
            citations=CITATIONS,
            command=command,
        )


def _method_words(settings: Stability) -> str:
    walk = f"boundary walk, effort {settings.effort}"
    attack = "box-constrained L-BFGS" if settings.method == "l-bfgs" else walk
    return f"{attack}; targets {settings.targets}"
