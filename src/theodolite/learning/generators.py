"""Generator networks: images made of few latent numbers, x = g(z) with z ~ N(0, I).

Sources: Hill 2020 (PhD thesis, UCLA), appendix A, eq. A.1; Hill, Nijkamp and Zhu 2019, section 2.3 and Table 1. They
are fitted in `generator_fit.py`, and jointly with an energy in `cooperative.py`.
"""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.learning.energy import ACTIVATIONS

FORMAT = "theodolite generator 1"
OUTPUTS = ("tanh", "linear")

# (channels, kernel, stride) of each layer: Hill, Nijkamp and Zhu 2019, Table 1, right column. Their last layer has 3
# channels throughout; here it has those of the images.
PAPER_LAYERS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "digits 0-3": ((100, 4, 1), (50, 5, 2), (3, 5, 2)),
    "spots and stripes": ((100, 4, 1), (50, 5, 2), (3, 5, 2)),
    "digits 0-9": ((100, 4, 1), (50, 7, 4), (3, 7, 4)),
    "ivy texton": ((200, 4, 1), (100, 5, 2), (50, 5, 2), (3, 5, 2)),
    "multiscale ivy": ((400, 4, 1), (200, 5, 2), (100, 5, 2), (50, 5, 2), (3, 5, 2)),
    "cat faces": ((400, 4, 1), (200, 5, 2), (100, 5, 2), (50, 5, 2), (3, 5, 2)),
}
PAPER_LATENT = {
    "digits 0-3": 2,
    "spots and stripes": 4,
    "digits 0-9": 8,
    "ivy texton": 30,
    "multiscale ivy": 30,
    "cat faces": 30,
}


class GeneratorNetwork(nn.Module, abc.ABC):
    """Abstract: ``forward`` maps latent vectors ``(batch, latent)`` to points ``(batch, *shape)``, rows independent.

    Points are ``centre + spread * output``, with the output in (-1, 1) where it ends in tanh (``output`` "tanh") and
    any number where it does not ("linear").
    """

    latent: int
    shape: tuple[int, ...]
    output: str
    centre: Tensor
    spread: Tensor

    def _begin(self, latent: int, shape: Sequence[int], output: str, centre: Any, spread: Any) -> None:
        if isinstance(latent, bool) or not isinstance(latent, int) or latent < 1:
            raise UserError("latent", "at least one latent dimension", repr(latent), "for example 8")
        if output not in OUTPUTS:
            raise UserError("output", f"one of {', '.join(OUTPUTS)}", repr(output), "choose one")
        self.latent, self.shape, self.output = latent, tuple(int(n) for n in shape), output
        for name, value in (("centre", centre), ("spread", spread)):
            number = torch.as_tensor(value, dtype=torch.float32)
            if not bool(number.isfinite().all()):
                raise UserError(name, "finite numbers", str(value), "give the middle and half range of the images")
            self.register_buffer(name, number.broadcast_to(self.shape).clone())

    def _finished(self, made: Tensor) -> Tensor:
        made = torch.tanh(made) if self.output == "tanh" else made
        return self.centre + self.spread * made.reshape(-1, *self.shape)

    @abc.abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Points ``(batch, *shape)`` of ``z (batch, latent)``, differentiable in the weights and in z."""

    @abc.abstractmethod
    def spec(self) -> Mapping[str, Any]:
        """Numbers, text and containers from which `build_generator` makes a network of this structure."""


@final
class MLPGenerator(GeneratorNetwork):
    """A fully connected generator; without ``widths`` and with output "linear" it is factor analysis's linear map.

    ``activation``: one of `energy.ACTIVATIONS`. ``centre`` and ``spread`` broadcast to ``shape``.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        widths: Sequence[int] = (128, 256),
        activation: str = "silu",
        output: str = "tanh",
        centre: Any = 0.0,
        spread: Any = 1.0,
    ) -> None:
        super().__init__()
        self._begin(latent, shape, output, centre, spread)
        if activation not in ACTIVATIONS:
            raise UserError("activation", f"one of {', '.join(ACTIVATIONS)}", repr(activation), "choose one")
        self.widths, self.activation = tuple(int(width) for width in widths), activation
        sizes = [latent, *self.widths, math.prod(self.shape)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))

    def forward(self, z: Tensor) -> Tensor:
        activate, _ = ACTIVATIONS[self.activation]
        hidden = z
        for layer in self.layers[:-1]:
            hidden = activate(layer(hidden))
        return self._finished(self.layers[-1](hidden))

    def spec(self) -> Mapping[str, Any]:
        return {
            "kind": "mlp",
            "latent": self.latent,
            "shape": list(self.shape),
            "widths": list(self.widths),
            "activation": self.activation,
            "output": self.output,
        }


@final
class ConvGenerator(GeneratorNetwork):
    """The papers' generators: transposed convolutions, from one pixel of ``latent`` channels to images.

    ``layers``: (channels, kernel, stride) of each; the first has no padding and makes a square of its kernel's side,
    the others multiply the side by their stride (padding: half the kernel). The last one's channels are the image's,
    whatever is written there. ReLU between them. Raises UserError where the side they reach is not the image's.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        layers: Sequence[Sequence[int]] = PAPER_LAYERS["digits 0-3"],
        output: str = "tanh",
        centre: Any = 0.0,
        spread: Any = 1.0,
    ) -> None:
        super().__init__()
        self._begin(latent, shape, output, centre, spread)
        self.structure = tuple((int(a), int(b), int(c)) for a, b, c in layers)
        channels, *sides = self.shape if len(self.shape) == 3 else (0,)
        side = 0
        for k, (_, kernel, stride) in enumerate(self.structure):
            side = kernel if k == 0 else side * stride
        if not self.structure or sides != [side, side]:
            got = f"images of shape {self.shape}"
            raise UserError("layers", f"layers that end at the images' side, not {side}", got, "change the strides")
        built, before = [], latent
        for k, (width, kernel, stride) in enumerate(self.structure):
            after = channels if k == len(self.structure) - 1 else width
            padding = 0 if k == 0 else kernel // 2
            rest = 0 if k == 0 else stride - kernel + 2 * padding
            if k and not 0 <= rest < stride:
                raise UserError("layers", "odd kernels", f"kernel {kernel}, stride {stride}", "use the papers' table")
            built.append(nn.ConvTranspose2d(before, after, kernel, stride, padding, output_padding=rest))
            before = after
        self.layers = nn.ModuleList(built)

    def forward(self, z: Tensor) -> Tensor:
        hidden = z.reshape(len(z), self.latent, 1, 1)
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden))
        return self._finished(self.layers[-1](hidden))

    def spec(self) -> Mapping[str, Any]:
        return {
            "kind": "conv",
            "latent": self.latent,
            "shape": list(self.shape),
            "layers": [list(layer) for layer in self.structure],
            "output": self.output,
        }


_KINDS: dict[str, Callable[..., GeneratorNetwork]] = {"mlp": MLPGenerator, "conv": ConvGenerator}


def build_generator(spec: Mapping[str, Any]) -> GeneratorNetwork:
    """The generator that ``spec`` describes, with fresh weights. Raises UserError for a kind that there is not."""
    arguments = dict(spec)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise UserError("generator", f"one of {', '.join(_KINDS)}", repr(kind), "use the version that wrote it")
    return _KINDS[kind](**arguments)


def save_generator(network: GeneratorNetwork, path: str | Path) -> None:
    """Write structure and weights as safetensors, which `load_generator` reads."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={"format": FORMAT, "generator": json.dumps(dict(network.spec()))})


def is_generator(path: str | Path) -> bool:
    """Whether the file is one that `save_generator` wrote."""
    try:
        with safe_open(path, framework="pt") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def load_generator(path: str | Path) -> GeneratorNetwork:
    """Read what `save_generator` wrote. Raises UserError naming a missing, corrupt or foreign file."""
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise UserError("generator", f"a file of {FORMAT}", f"{path}, which is something else", "fit one")
        network = build_generator(json.loads(metadata["generator"]))
        network.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        got = f"{path}: {str(error).splitlines()[0]}"
        raise UserError("generator", "a whole .safetensors file of a generator", got, "restore it, or fit anew") from (
            error
        )
    return network.eval()
