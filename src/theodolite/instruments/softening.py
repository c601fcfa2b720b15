"""The same network with gentler activations: wider error functions, sigmoids and tanh, leaky ReLUs.

While a softening is entered, torch's own calls are answered differently, so that it works on any module, an exported
one too, and changes none. Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy
Methods", section 3.3 (erf, its sigma) and Algorithm F2 (ReLU, the slope of PReLU).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from theodolite.errors import UserError
from theodolite.outputs import Outputs

WIDENED = frozenset({"erf", "sigmoid", "expit", "tanh", "softsign", "hardtanh", "hardsigmoid"})
SLOPED = frozenset({"relu", "leaky_relu", "prelu"})


@final
class Softening(TorchFunctionMode):
    """y = a(c / ``width``) for the activations in `WIDENED`; the negative side of those in `SLOPED` gets the slope
    s + (1 - s) * ``slope`` in place of s. Width 1 and slope 0 change nothing. ``n_changed`` counts answered calls.

    Smooth relatives of ReLU (GELU, SiLU, softplus) stay as they are. Raises UserError for a width that is not above 0
    or a slope outside [0, 1].
    """

    def __init__(self, width: float = 1.0, slope: float = 0.0) -> None:
        super().__init__()
        if not width > 0:
            raise UserError("width", "a number above 0", repr(width), "1 is the network itself")
        if not 0 <= slope <= 1:
            raise UserError("slope", "a number in [0, 1]", repr(slope), "0 is the network itself")
        self.width = width
        self.slope = slope
        self.n_changed = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Exported programs call "relu.default", modules "relu", code that saves memory "relu_".
        name = getattr(func, "__name__", "").partition(".")[0]
        kwargs = kwargs or {}
        plain = name.rstrip("_")
        if plain in WIDENED or plain in SLOPED:
            self.n_changed += 1
            c, rest = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
            in_place = name.endswith("_")
            if plain in WIDENED:
                return func(c.div_(self.width) if in_place else c / self.width, *rest, **kwargs)
            return self._sloped(plain, c, rest, kwargs, in_place)
        return func(*args, **kwargs)

    def _sloped(self, name: str, c: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any], in_place: bool) -> Tensor:
        if name == "prelu":
            weight = rest[0] if rest else kwargs["weight"]
            return functional.prelu(c, weight + (1 - weight) * self.slope)
        if name == "leaky_relu":
            slope = rest[0] if rest else kwargs.get("negative_slope", 0.01)
            rest = rest[1:]
        else:
            slope = 0.0
        in_place = in_place or bool(rest[0] if rest else kwargs.get("inplace", False))
        return functional.leaky_relu(c, slope + (1 - slope) * self.slope, inplace=in_place)


def softened(outputs: Outputs, softening: Softening) -> Outputs:
    """``outputs`` of the softened network; it follows later changes of ``softening``'s width and slope."""
    return outputs.changed(lambda function: within(softening, function))


def within(mode: TorchFunctionMode, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``function``, called with ``mode`` entered."""

    def called(x: Tensor) -> Tensor:
        with mode:
            return function(x)

    return called
