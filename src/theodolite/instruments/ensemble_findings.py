"""What a survey of an ensemble found, as a labelled dataset: uncertainties, calibration, and who doubts whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray
from numpy.typing import NDArray

from theodolite.instruments import calibration, ensemble_statistics
from theodolite.instruments.calibration import MEASURES, Floats, Judged
from theodolite.instruments.ensemble_checks import judge
from theodolite.instruments.ensemble_doubts import Variables, ends, share, sure_of, triple
from theodolite.instruments.ensemble_levels import level_variables
from theodolite.instruments.ensemble_statistics import QUANTITIES, Ranking, mean_log_probability, uncertainty
from theodolite.instruments.ensemble_task import EnsembleTask
from theodolite.instruments.surveying import check_variables
from theodolite.result import validate

if TYPE_CHECKING:
    from theodolite.instruments.ensemble import Ensemble
    from theodolite.instruments.ensemble_sampler import Condition, Examined

QUESTIONS = ("wrong", "not shared", "not shared, at levels")
SCORES = ("mutual information", "predictive entropy", "disagreement", "the single network's own doubt")
_STATISTICS_SEED = 1  # beside the survey's own, so that bootstrap draws are not those of a search


def to_dataset(
    settings: Ensemble,
    task: EnsembleTask,
    conditions: Sequence[Condition],
    found: Examined,
    attributes: Mapping[str, str | int | float],
) -> xarray.Dataset:
    """The dataset of docs/architecture.md, validated against the schema."""
    random = np.random.default_rng((settings.seed, _STATISTICS_SEED))
    shape = task.network.space.shape
    axes = tuple(f"point_{axis}" for axis in range(len(shape)))
    point = found.point.numpy()
    members = found.log_probability.numpy()
    together = np.concatenate([members, _mean(members)[:, :, None]], 2)
    known = np.asarray(np.isfinite(members).all((2, 3)))
    answer = np.where(known[..., None], together.argmax(-1), -1)
    variables: Variables = {
        "condition": (("condition",), np.array([one.name for one in conditions])),
        "condition_sentence": (("condition",), np.array([one.sentence for one in conditions])),
        "subject": (("subject",), np.array([*task.members.names, "ensemble"])),
        "class_name": (("class",), np.array(task.class_names)),
        "label": (("image",), task.labels.numpy()),
        "point": (("condition", "image", *axes), point.reshape(*point.shape[:2], *shape).astype(np.float32)),
        "distortion": (("condition", "image"), np.sqrt(np.square(point - point[:1]).mean(-1))),
        "log_probability": (("condition", "image", "subject", "class"), together.astype(np.float32)),
        "answer": (("condition", "image", "subject"), answer),
        **_uncertainties(members, known, settings, random),
        **_calibration(together, known, task, settings, random),
        **_doubts(members, known, task, settings, random),
        **level_variables(settings, task, found.levels.numpy(), random),
    }
    variables |= _rankings(members, known, task, settings, found.levels.numpy(), random)
    judgement = judge(settings, task, conditions, found, variables)
    variables |= check_variables(judgement.checks)
    variables |= {"verdict": ((), judgement.word), "verdict_sentence": ((), judgement.sentence)}
    return validate(xarray.Dataset(variables, attrs=dict(attributes)))


def _mean(members: Floats) -> Floats:
    flat = members.reshape(-1, *members.shape[2:])
    return mean_log_probability(flat).reshape(*members.shape[:2], members.shape[3])


def _uncertainties(
    members: Floats, known: NDArray[np.bool_], settings: Ensemble, random: np.random.Generator
) -> Variables:
    table = np.full((*known.shape, len(QUANTITIES)), np.nan)
    table[known] = uncertainty(members[known]).table()
    estimates = np.full((len(known), len(QUANTITIES), 3), np.nan)
    for condition, rows in enumerate(known):
        drawn = calibration.drawn_again(int(rows.sum()), settings.resamples, random)
        for quantity in range(len(QUANTITIES)) if rows.any() else ():
            estimates[condition, quantity] = triple(calibration.mean_interval(table[condition, rows, quantity], drawn))
    named = {
        name.replace(" ", "_"): (("condition", "image"), table[..., number]) for number, name in enumerate(QUANTITIES)
    }
    return {
        **named,
        "quantity": (("quantity",), np.array(QUANTITIES)),
        **ends("quantity_mean", ("condition", "quantity"), estimates),
    }


# -------------------------------------------------------------------- calibration


def _calibration(
    together: Floats, known: NDArray[np.bool_], task: EnsembleTask, settings: Ensemble, random: np.random.Generator
) -> Variables:
    n_conditions, n_subjects, n_measures = len(known), together.shape[2], len(MEASURES)
    measured = np.full((n_conditions, n_subjects, n_measures, 3), np.nan)
    expected, debiased = np.full((2, n_conditions, n_subjects, n_measures), np.nan)
    change = np.full((n_conditions, n_measures, 3), np.nan)
    bars = np.full((n_conditions, n_subjects, settings.bins, 5), np.nan)
    for condition, rows in enumerate(known):
        label = task.labels.numpy()[rows]
        drawn = calibration.drawn_again(len(label), settings.resamples, random)
        subjects = [calibration.judged(together[condition, rows, subject], label) for subject in range(n_subjects)]
        for subject, one in enumerate(subjects):
            bars[condition, subject] = _bars(one, settings.bins)
            for number, name in enumerate(MEASURES):
                told = calibration.measure(one, name, settings.bins, drawn, random)
                measured[condition, subject, number] = triple(told.measured)
                expected[condition, subject, number], debiased[condition, subject, number] = (
                    told.expected,
                    told.debiased,
                )
        for number, name in enumerate(MEASURES):
            most = 0.0 if name in calibration.PROPER else math.inf  # Jensen's inequality
            change[condition, number] = triple(
                calibration.difference(subjects[-1], subjects[:-1], name, settings.bins, drawn, most)
            )
    whole, binned = ("condition", "subject", "measure"), ("condition", "subject", "bin")
    return {
        "measure": (("measure",), np.array(MEASURES)),
        **ends("calibration", whole, measured),
        "calibration_expected": (whole, expected),
        "calibration_debiased": (whole, debiased),
        **ends("calibration_difference", ("condition", "measure"), change),
        "bin_edges": (("bin_edge",), calibration.edges(np.zeros(0), settings.bins, "width")),
        "bin_count": (binned, np.nan_to_num(bars[..., 0]).astype(np.int64)),
        "bin_confidence": (binned, bars[..., 1]),
        **ends("bin_accuracy", binned, bars[..., 2:]),
    }


def _bars(one: Judged, n_bins: int) -> Floats:
    told = calibration.reliability(one, n_bins)
    return np.stack([told.count.astype(np.float64), told.confidence, told.accuracy, told.low, told.high], -1)


# -------------------------------------------------------------------- who doubts whom


def _doubts(
    members: Floats, known: NDArray[np.bool_], task: EnsembleTask, settings: Ensemble, random: np.random.Generator
) -> Variables:
    label = task.labels.numpy()
    shares = np.full((3, len(known), 3), np.nan)
    for condition, rows in enumerate(known):
        told = sure_of(members[condition], settings)
        wrong = told.sure & (np.nan_to_num(members[condition, :, 0], nan=-np.inf).argmax(-1) != label)
        shares[0, condition] = share(told.sure.sum(), rows.sum())
        shares[1, condition] = share(wrong.sum(), told.sure.sum())
        shares[2, condition] = share(told.doubted.sum(), told.sure.sum())
    return {
        **ends("sure_share", ("condition",), shares[0]),
        **ends("sure_wrong_share", ("condition",), shares[1]),
        **ends("doubted_share", ("condition",), shares[2]),
    }


def _rankings(
    members: Floats,
    known: NDArray[np.bool_],
    task: EnsembleTask,
    settings: Ensemble,
    levels: Floats,
    random: np.random.Generator,
) -> Variables:
    """Does the ensemble's uncertainty tell the single network's sure answers that are wrong, or not shared, from the
    others? Over all conditions together: where all sure answers are right, or all wrong, one alone cannot tell."""
    condition, image = known.nonzero()
    rows = members[condition, image]
    sure = sure_of(rows, settings).sure
    rows, image = rows[sure], image[sure]
    wrong = rows[:, 0].argmax(-1) != task.labels.numpy()[image]
    told = uncertainty(rows)
    own = 1 - np.exp(rows[:, 0].max(-1))
    scores = (told.mutual_information, told.predictive_entropy, told.disagreement, own)
    answers: list[list[Ranking]] = [[ensemble_statistics.ranking(score, wrong, image) for score in scores]]
    everything = np.ones(len(rows), dtype=bool)
    answers.append(ensemble_statistics.held_out_rankings(rows, everything, image))
    at_levels = sure_of(levels, settings).sure
    numbers = np.arange(len(levels))
    answers.append(ensemble_statistics.held_out_rankings(levels, at_levels, numbers))
    estimates = np.array([[triple(one.auroc) for one in answer] for answer in answers])
    drawn = calibration.drawn_again(len(task.points), settings.resamples, random)
    gain = ensemble_statistics.ranking_gain(told.mutual_information, own, wrong, image, drawn)
    told_off = sure_of(rows, settings).doubted & wrong
    # An input counts once, as for the rankings.
    n_wrong, n_images = int(wrong.sum()), len(set(image[wrong]))
    doubted = share(told_off.sum() / max(n_wrong, 1) * n_images, n_images)
    return {
        **ends("doubted_wrong_share", (), np.array(doubted)),
        "question": (("question",), np.array(QUESTIONS)),
        "score": (("score",), np.array(SCORES)),
        **ends("auroc", ("question", "score"), estimates),
        "auroc_yes": (("question",), np.array([answer[-1].n_yes for answer in answers])),
        "auroc_no": (("question",), np.array([answer[-1].n_no for answer in answers])),
        **ends("auroc_gain", (), np.array(triple(gain))),
    }
