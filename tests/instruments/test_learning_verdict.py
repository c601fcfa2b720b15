"""The verdict on energies that are known to be right or wrong: exact draws in place of chains, and one real run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from theodolite.instruments.learning_verdict import (
    CONVERGENT,
    NON_CONVERGENT,
    UNDECIDED,
    Finding,
    LearningVerdict,
    judge,
)
from theodolite.learning import long_runs
from theodolite.learning.energy import Energy
from theodolite.learning.examination import examine, lost_class
from theodolite.learning.long_runs import LongRun, LongRuns, LongRunState
from theodolite.learning.mixture import MixtureEnergy
from theodolite.learning.reference import Reference

NOISE = 0.3
N, TIMES, CHAINS = 6, 5, 400
MEANS = 2.5 * torch.eye(4, N)
COVARIANCES = 0.5 * np.stack([np.eye(N)] * 4)
WEIGHTS = (0.4, 0.3, 0.2, 0.1)
TRUTH = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES)
RUNS = LongRuns(steps=2000, chains=CHAINS)


def reference(labelled: bool = True) -> Reference:
    generator = torch.Generator().manual_seed(0)
    points, labels = TRUTH.sample(2000, generator, less_noise=NOISE)
    held_out, _ = TRUTH.sample(2000, generator, less_noise=NOISE)
    return Reference.of(points, NOISE, generator, labels=labels if labelled else None, held_out=held_out, n_clusters=4)


REFERENCES = {True: reference(True), False: reference(False)}


def exact_run(energy: MixtureEnergy, seed: int, chains: int = CHAINS) -> LongRun:
    """Independent exact draws of ``energy`` at temperature 1 at every time; the first points are data."""
    generator = torch.Generator().manual_seed(seed)
    points = [energy.sample(chains, generator)[0] for _ in range(RUNS.n_blocks)]
    values = [energy.value_and_gradient(point)[0] for point in points]
    first = REFERENCES[True].spread(chains, generator)
    return LongRun(
        points[-1],
        values[-1],
        torch.zeros_like(first),
        first,
        0.1,
        energies=tuple(values),
        states=tuple(points[-TIMES:]),
    )


def state(data: LongRun, noise: LongRun, *, done: int = RUNS.n_blocks) -> LongRunState:
    return LongRunState(data, noise, done)


def verdict(energy: Energy, found: LongRunState, labelled: bool = True, diverged: str = "") -> LearningVerdict:
    examined = examine(energy, REFERENCES[labelled], RUNS, found, torch.Generator().manual_seed(0))
    return judge(examined, diverged)


def of_exact_draws(energy: MixtureEnergy, labelled: bool = True, chains: int = CHAINS) -> LearningVerdict:
    return verdict(energy, state(exact_run(energy, 1, chains), exact_run(energy, 2, chains)), labelled)


def refuted(found: LearningVerdict) -> list[str]:
    return [
        check.name for check, finding in zip(found.checks, found.findings, strict=True) if finding is Finding.REFUTED
    ]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_truth_is_convergent(labelled: bool) -> None:
    found = of_exact_draws(TRUTH, labelled)
    assert found.word == CONVERGENT, found.sentence
    assert found.advice == ""
    assert all(bool(np.all(check.passed)) for check in found.checks)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("lost", [0, 3])
def test_a_lost_class_is_found(labelled: bool, lost: int) -> None:
    """Also the smallest class, whose total variation of .1 is within the limit, and also without labels."""
    weights = list(WEIGHTS)
    weights[lost] = 1e-6
    found = of_exact_draws(MixtureEnergy(weights, MEANS, COVARIANCES), labelled)
    assert found.word == NON_CONVERGENT
    kind = "classes" if labelled else "clusters"
    assert any(name.startswith(f"every one of the {kind}") for name in refuted(found))


@pytest.mark.parametrize("labelled", [True, False])
def test_equal_energy_is_not_convergence(labelled: bool) -> None:
    """A class all but lost, and draws so wide that their mean energy is the data's: only the classes can tell."""
    energy = MixtureEnergy([0.4, 0.3, 0.2, 0.1 * np.exp(-5)], MEANS, COVARIANCES)
    narrow, data = energy(energy.sample(50_000, torch.Generator().manual_seed(9))[0]), energy(REFERENCES[True].noisy)
    # The mean energy of a Gaussian's draws grows by N / 2 times the share by which its covariance does.
    wider = COVARIANCES * (1 + 2 * float(data.mean() - narrow.mean()) / N)
    draws = MixtureEnergy(energy.given[0], MEANS, wider)
    data_run, noise_run = (valued(energy, exact_run(draws, seed)) for seed in (1, 2))
    found = verdict(energy, state(data_run, noise_run), labelled)
    check = {check.name: check for check in found.checks}["energy, long run from data"]
    assert abs(check.value) < 0.1, check.sentence
    assert bool(np.all(check.passed))
    assert found.word == NON_CONVERGENT


def valued(energy: Energy, run: LongRun) -> LongRun:
    """The run with the trace that ``energy`` gives its points."""
    values = tuple(energy(point).detach() for point in run.states) * (RUNS.n_blocks // TIMES)
    return replace(run, value=values[-1], energies=values)


@pytest.mark.parametrize("temperature", [1.35, 1 / 1.35])
def test_a_wrong_temperature_is_found(temperature: float) -> None:
    """Draws of the true law, judged by the energy divided by a temperature, have not that energy's own law: its draws
    are those of the mixture reweighted, taken here by rejection-free resampling."""
    energy = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES, temperature)
    generator = torch.Generator().manual_seed(5)
    many, _ = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES * 1.6).sample(200_000, generator)
    proposal = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES * 1.6)
    weight = torch.softmax((proposal(many) - energy(many)).double(), 0)
    runs = []
    for _ in range(2):
        points = [
            many[torch.multinomial(weight, CHAINS, replacement=True, generator=generator)] for _ in range(RUNS.n_blocks)
        ]
        values = tuple(energy(point) for point in points)
        first = REFERENCES[True].spread(CHAINS, generator)
        runs.append(LongRun(points[-1], values[-1], first * 0, first, 0.1, energies=values, states=tuple(points[-5:])))
    found = verdict(energy, state(runs[0], runs[1]))
    assert found.word == NON_CONVERGENT
    assert found.advice


def test_chains_that_never_move_decide_nothing() -> None:
    """Data-started chains that stay where they are agree with the data for any energy at all."""
    generator = torch.Generator().manual_seed(3)
    first = REFERENCES[True].spread(CHAINS, generator)
    values = TRUTH(first)
    still = LongRun(first, values, first * 0, first, 0.1, energies=(values,) * RUNS.n_blocks, states=(first,) * TIMES)
    found = verdict(TRUTH, state(still, still))
    assert found.word == UNDECIDED
    assert "forget where they began" in found.sentence
    assert "longer" in found.advice


def test_few_chains_decide_nothing() -> None:
    found = of_exact_draws(TRUTH, chains=12)
    assert found.word == UNDECIDED


def test_a_run_cut_short_decides_nothing() -> None:
    found = verdict(TRUTH, state(exact_run(TRUTH, 1), exact_run(TRUTH, 2), done=RUNS.n_blocks // 2))
    assert found.word == UNDECIDED
    assert "50% of the steps" in found.sentence
    none = judge(None)
    assert none.word == UNDECIDED
    assert "there were none" in none.sentence


def test_noise_that_rests_below_the_data_refutes() -> None:
    """The run from data has not found it yet, but the energy is lower elsewhere: chains from noise lie there."""
    elsewhere = MixtureEnergy([1.0], 6 * torch.ones(1, N), 0.2 * np.eye(N)[None])
    both = _Lowest(TRUTH, elsewhere, 12.0)
    noise = exact_run(elsewhere, 4)
    noise = replace(noise, energies=tuple(value - 12 for value in noise.energies), value=noise.value - 12)
    found = verdict(both, state(exact_run(TRUTH, 1), noise))
    assert found.word == NON_CONVERGENT
    assert "long run from noise" in found.sentence
    assert "lower elsewhere" in found.advice


def test_noise_that_hangs_above_the_data_is_no_proof() -> None:
    """A run from noise that is still coming down says nothing against the energy."""
    noise = exact_run(MixtureEnergy(WEIGHTS, MEANS, COVARIANCES * 3), 4)
    falling = tuple(value + 20 * (1 - k / RUNS.n_blocks) for k, value in enumerate(noise.energies))
    found = verdict(TRUTH, state(exact_run(TRUTH, 1), replace(noise, energies=falling)))
    assert found.word == UNDECIDED
    assert "have not settled" in found.sentence


class _Lowest(Energy):
    def __init__(self, first: Energy, other: Energy, depth: float) -> None:
        super().__init__()
        self.first, self.other, self.depth, self.shape = first, other, depth, first.shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.minimum(self.first(x), self.other(x) - self.depth)

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError

    def spec(self) -> dict[str, object]:
        return {}


def test_learning_that_diverged_is_not_convergent() -> None:
    good = state(exact_run(TRUTH, 1), exact_run(TRUTH, 2))
    found = verdict(TRUTH, good, diverged="The energy difference was 1e9 in update 12")
    assert found.word == NON_CONVERGENT
    assert "update 12" in found.sentence
    broken = verdict(TRUTH, replace(good, diverged=True))
    assert broken.word == NON_CONVERGENT
    assert "overflowed" in broken.sentence


def test_the_lost_class_is_named() -> None:
    energy = MixtureEnergy((0.4, 0.3, 0.2, 0.01), MEANS, COVARIANCES)
    examined = examine(
        energy, REFERENCES[True], RUNS, state(exact_run(energy, 1), exact_run(energy, 2)), torch.Generator()
    )
    lost = lost_class(examined.runs["data"])
    assert lost is not None
    worst, ratio, high = lost
    assert worst == 3
    assert ratio == pytest.approx(0.01 / 0.91 / 0.1, abs=0.08)
    assert high < 0.4


def test_a_real_run_from_end_to_end() -> None:
    """Chains of the truth are called convergent; chains of the truth without its widest class are not."""
    settings = LongRuns(steps=1000, chains=200)
    words = []
    for weights in (WEIGHTS, (1e-6, *WEIGHTS[1:])):
        energy = MixtureEnergy(weights, MEANS, COVARIANCES)
        generator = torch.Generator().manual_seed(6)
        points = REFERENCES[True].spread(settings.chains, generator)
        found = long_runs.init(energy, points, settings, generator)
        while not long_runs.finished(settings, found):
            found = long_runs.step(energy, settings, found, generator)
        words.append(judge(examine(energy, REFERENCES[True], settings, found, generator)).word)
    assert words == [CONVERGENT, NON_CONVERGENT]
