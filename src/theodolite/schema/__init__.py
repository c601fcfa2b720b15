"""What a result may hold: a row a variable, with its dims, unit and meaning. Checks, documentation and captions come
from these rows; a variable enters a result only with a row here.
"""

from __future__ import annotations

from theodolite.schema.boundary import BOUNDARY
from theodolite.schema.density import DENSITY
from theodolite.schema.ensemble import ENSEMBLE
from theodolite.schema.landscape import LANDSCAPE
from theodolite.schema.learning import LEARNING
from theodolite.schema.lipschitz import LIPSCHITZ
from theodolite.schema.stability import STABILITY
from theodolite.schema.units import UNITS
from theodolite.schema.variable import Variable as Variable

SCHEMA: tuple[Variable, ...] = DENSITY + LANDSCAPE + BOUNDARY + STABILITY + UNITS + ENSEMBLE + LIPSCHITZ + LEARNING

ATTRIBUTES: dict[str, str] = {
    "instrument": 'the question asked: "density", "landscape" or "boundary"',
    "observable": 'the number surveyed, such as "logit:1"',
    "observable_sentence": "the observable in words",
    "space": 'the input space, such as "grid:1x28x28:256"',
    "space_sentence": "the space in words",
    "log_volume": "ln of the number of inputs, or of the volume",
    "method": "how it was sampled or enumerated",
    "seed": "the seed of every random number",
    "settings": "the resolved settings, TOML",
    "evaluations": "rows the field evaluated",
    "seconds": "wall time",
    "model_name": "the network",
    "model_hash": "sha256 of its weights and structure",
    "versions": "of python and the packages, JSON",
    "machine": "the machine in words",
    "date": "when the result was made, ISO 8601, UTC",
    "command": "the command line, if there was one",
    "citations": "the sources of the methods used, a JSON list of strings",
    "probability": '"sigmoid" where the observable is a binary log-odds, else ""',
    "version": "of theodolite",
    "layer": "the layer whose units are surveyed",
    "positions": "how the positions of a map are joined; empty where the layer gives one vector an input",
    "labels": '"given", or "predicted by the network"',
    "norm": 'of boundary distances: "L2", "L1" or "Linf"',
    "constraints": "what flip points may change, in words",
    "uncertainty": "of the measured inputs, in input units: flip points nearer than this make an answer ambiguous",
    "change_threshold": "a feature that changes by less counts as unchanged, in input units",
    "reference": "number of reference points from which searches could start",
    "sure": "of ensembles: an answer given more than this probability is sure",
    "doubt": "of ensembles: a sure answer is doubted where the mean gives it less than this probability",
    "energy_sentence": "of learning: the energy's network in words",
    "n_images": "of learning: images learned from",
    "n_held_out": "of learning: images kept apart to judge by",
    "data_noise": "of learning: standard deviation of the noise added to the images, input units",
    "explained": "of learning: share of the images' variance that the principal components keep",
    "advice": "of learning: what to change where the verdict is not convergent; empty where it is",
    "levels_observable": "of ensembles: the observable of the density survey whose levels were looked at",
}
REQUIRED_ATTRIBUTES = ("instrument", "observable", "space", "log_volume", "method", "seed")
