"""A trained network as a source of fields: a frozen copy of a module, its input space and its embedding.

The caller's module is never changed. Every observable is a scalar field over the whole input space.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from theodolite import locality
from theodolite.embedding import Embedding, OneHot, Scale
from theodolite.errors import FieldError, UserError
from theodolite.field import Field, LevelDifferences, Terms, TermWindow
from theodolite.outputs import Outputs
from theodolite.space import DiscreteSpace, Space
from theodolite.subnormals import without_subnormals

_ACTIVATION_BYTES = 2**25  # a batch whose activations exceed this leaves the processor's caches (measured)


@final
class Network:
    """A module (deep copy, eval mode, parameters frozen) with its input space, embedding and preprocessing. Outputs are
    evaluated without weights too small to count (`subnormals`); ``module`` and its hash keep them.

    ``embedding`` turns points into the module's input (default: the values as floats); ``preprocess`` is a
    differentiable function applied after it; ``classes`` names the classes. A module with ONE output and two
    classes has logit(1) = z and logit(0) = -z; without classes logit(0) = z. Raises UserError for a module whose
    output is not one vector a point, or whose number of outputs does not fit ``classes``.
    """

    def __init__(
        self,
        module: nn.Module,
        space: Space,
        embedding: Embedding | None = None,
        classes: Sequence[str] | None = None,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise UserError("module", "a torch.nn.Module", type(module).__name__, "pass the network itself")
        self.space = space
        self.embedding = embedding if embedding is not None else Scale()
        self.preprocess = preprocess
        self.name = name or type(module).__name__
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        if any(isinstance(layer, nn.Conv2d) for layer in self.module.modules()):
            self.module = self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._evaluated = without_subnormals(self.module)
        # A module in float64 is evaluated in float64 on real inputs: what descents to a zero gradient need.
        floating = [p.dtype for p in self.module.parameters() if p.dtype.is_floating_point]
        real = not isinstance(space, DiscreteSpace)
        self._real_dtype = torch.float64 if real and floating and floating[0] == torch.float64 else torch.float32
        self.hash = model_hash(module)
        self.n_outputs = self._count_outputs()
        self.classes = [str(c) for c in classes] if classes is not None else None
        expected = 2 if self.n_outputs == 1 else self.n_outputs
        if self.classes is not None and len(self.classes) != expected:
            raise UserError(
                "classes",
                f"{expected} names for {self.n_outputs} output(s)",
                f"{len(self.classes)}",
                "name every class once, in the order of the outputs",
            )
        self._prepare()

    # ------------------------------------------------------------------ evaluation

    def outputs(self, x: Tensor) -> Tensor:
        """Outputs ``(batch, K)`` of points ``(batch, *shape)``."""
        if isinstance(self.space, DiscreteSpace) and not x.is_floating_point():
            return self._embedded_outputs(self._table[self.space.to_levels(x)])
        return self._run(self.embedding.continuous(x.to(self._real_dtype)))

    def predictions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted class ``(batch,)`` and its probability ``(batch,)``; K outputs are logits, one is log-odds."""
        with torch.no_grad():
            parts = [self.outputs(part) for part in x.split(self._batch_size)]
        output = torch.cat(parts).double()
        if self.n_outputs == 1:
            output = torch.cat([torch.zeros_like(output), output], 1)
        probability, label = output.softmax(1).max(1)
        return label, probability

    # ------------------------------------------------------------------ observables

    def logit(self, k: int) -> Field:
        """Output ``k`` before the softmax."""
        if self.n_outputs == 1:
            if self.classes is None:
                self._refuse_index("logit", k, 1)
                return self._linear(f"logit:{k}", torch.ones(1), "sigmoid")
            self._refuse_index("logit", k, 2)
            return self._linear(f"logit:{k}", torch.tensor([1.0 if k == 1 else -1.0]), "sigmoid")
        self._refuse_index("logit", k, self.n_outputs)
        return self._linear(f"logit:{k}", torch.eye(self.n_outputs)[k], "")

    def log_odds(self, k: int) -> Field:
        """ln(p_k / (1 - p_k)): class ``k`` against all others, the binary logit of a network of many classes."""
        self._refuse_index("log_odds", k, max(2, self.n_outputs))
        name = f"log_odds:{k}"
        if self.n_outputs == 1:
            return self._linear(name, torch.tensor([1.0 if k == 1 else -1.0]), "sigmoid")
        if self.n_outputs == 2:
            return self._linear(name, torch.eye(2)[k] - torch.eye(2)[1 - k], "sigmoid")
        others = [j for j in range(self.n_outputs) if j != k]
        return self._field(name, lambda z: z[:, k] - torch.logsumexp(z[:, others], 1), "sigmoid")

    def margin(self, i: int, j: int) -> Field:
        """z_i - z_j. A single output z has the margin z of class 1 over class 0."""
        count = max(2, self.n_outputs)
        self._refuse_index("margin", i, count)
        self._refuse_index("margin", j, count)
        if i == j:
            raise UserError("observable", "two different classes", f"margin({i}, {j})", "choose i != j")
        name = f"margin:{i}:{j}"
        if self.n_outputs == 1:
            return self._linear(name, torch.tensor([float(i - j)]), "sigmoid")
        return self._linear(name, torch.eye(self.n_outputs)[i] - torch.eye(self.n_outputs)[j], "")

    def log_sum_exp(self) -> Field:
        """ln sum_k exp z_k; for one output z of two classes, ln(1 + exp z)."""
        return self._field("log_sum_exp", self._log_sum_exp, "")

    def energy(self) -> Field:
        """-ln sum_k exp z_k, the classifier's energy."""
        return self._field("energy", lambda z: -self._log_sum_exp(z), "")

    def unit(self, layer: str, index: int) -> Field:
        """Activation of unit ``index`` of the named layer; the mean over positions of a map's channel.

        Raises UserError naming the layers there are when ``layer`` is none of them.
        """
        layers = dict(self.module.named_modules())
        if not layer or layer not in layers:
            raise UserError(
                "layer", f"one of {', '.join(n for n in layers if n)}", repr(layer), "choose a layer of the module"
            )
        with torch.no_grad():
            sample = self._activation(layer, self._sample_input())
        self._refuse_index(f"unit:{layer}", index, sample.shape[1])

        def value(model_input: Tensor) -> Tensor:
            activation = self._activation(layer, model_input)
            unit = activation[:, index]
            return unit.flatten(1).mean(1) if unit.ndim > 1 else unit

        return self._field_from_input(f"unit:{layer}:{index}", value)

    def observable(self, text: str) -> Field:
        """The field named by ``logit:1``, ``log_odds:3``, ``margin:3:5``, ``log_sum_exp``, ``energy`` or
        ``unit:fc1:3``. Raises UserError listing these for any other text."""
        kind, *arguments = text.split(":")
        try:
            if kind in ("logit", "log_odds") and len(arguments) == 1:
                return getattr(self, kind)(int(arguments[0]))
            if kind == "margin" and len(arguments) == 2:
                return self.margin(int(arguments[0]), int(arguments[1]))
            if kind in ("log_sum_exp", "energy") and not arguments:
                return getattr(self, kind)()
            if kind == "unit" and len(arguments) == 2:
                return self.unit(arguments[0], int(arguments[1]))
        except UserError:
            raise
        except ValueError:
            pass
        raise UserError(
            "observable",
            "logit:K, log_odds:K, margin:I:J, log_sum_exp, energy or unit:LAYER:INDEX",
            repr(text),
            f"this network has {self.n_outputs} output(s)",
        )

    # ------------------------------------------------------------------ all outputs at once

    def all_outputs(self, dtype: torch.dtype = torch.float32, *, classify: bool = True) -> Outputs:
        """Every output at once, with gradients, over the continuous hull of the space.

        With ``classify`` a single output z counts as the two classes (0, z); without it stays one number, as a
        regression wants. In float64 the module is evaluated in double precision throughout, on a copy. Raises
        MissingCapability for an embedding that has no continuous form.
        """
        low, high = self.space.bounds()
        n = self.space.n_coordinates
        same = dtype == self._parameter_dtype()
        module = self._evaluated if same else without_subnormals(copy.deepcopy(self.module).to(dtype))
        binary = classify and self.n_outputs == 1

        def function(x: Tensor) -> Tensor:
            output = module(self._finish(self.embedding.continuous(x))).reshape(len(x), self.n_outputs)
            return torch.cat([torch.zeros_like(output), output], 1) if binary else output

        self.embedding.continuous(torch.zeros((1, *self.space.shape), dtype=dtype))
        return Outputs(
            function,
            self.space.shape,
            torch.full((n,), low, dtype=torch.float64),
            torch.full((n,), high, dtype=torch.float64),
            2 if binary else self.n_outputs,
            dtype=dtype,
            batch_size=self._batch_size,
            name=self.name,
        )

    def _parameter_dtype(self) -> torch.dtype | None:
        return next((p.dtype for p in self.module.parameters() if p.dtype.is_floating_point), None)

    # ------------------------------------------------------------------ construction of fields

    def _linear(self, name: str, direction: Tensor, probability: str) -> Field:
        """The field ``direction . outputs``; a sum of local terms where the outputs are."""
        terms = None
        if self._local is not None:
            local = self._local
            grid = self._grid()
            weight = (direction @ local.weight / (grid[0] * grid[1])).reshape(1, -1, 1, 1)

            def term(embedded: Tensor) -> Tensor:
                return nn.functional.conv2d(local.features(self._assemble(embedded)), weight).flatten(1)

            terms = Terms(grid, local.radius, float(direction @ local.bias), term, self._term_window(local, weight))
        return self._field(name, lambda z: z @ direction, probability, terms)

    def _term_window(self, local: locality.LocalSum, weight: Tensor) -> TermWindow | None:
        window = local.window
        if window is None:
            return None

        def term(affine: Tensor, rows: slice, columns: slice) -> Tensor:
            # A product with a vector: a convolution to one channel takes three times as long.
            return (window.features(affine, rows, columns).permute(0, 2, 3, 1) @ weight.flatten()).flatten(1)

        return TermWindow(lambda embedded: window.affine(self._assemble(embedded)), term)

    def _field(
        self, name: str, readout: Callable[[Tensor], Tensor], probability: str, terms: Terms | None = None
    ) -> Field:
        differences = None
        if isinstance(self.space, DiscreteSpace):
            differences = LevelDifferences(self._table, lambda embedded: readout(self._embedded_outputs(embedded)))
        return Field(
            self.space,
            lambda x: readout(self.outputs(x)),
            level_differences=differences,
            terms=terms,
            probability=probability,
            **self._labels(name),
        )

    def _field_from_input(self, name: str, value: Callable[[Tensor], Tensor]) -> Field:
        differences = None
        if isinstance(self.space, DiscreteSpace):
            unfolded = self.embedding.table(self.space)
            differences = LevelDifferences(
                unfolded, lambda embedded: value(self._finish(self.embedding.assemble(embedded, self.space)))
            )
        return Field(
            self.space,
            lambda x: value(self._model_input(x)),
            level_differences=differences,
            **self._labels(name),
        )

    def _labels(self, name: str) -> dict:
        return {
            "name": name,
            "batch_size": self._batch_size,
            "model_hash": self.hash,
            "model_name": self.name,
            "module": self.module,
        }

    # ------------------------------------------------------------------ inside the module

    def _prepare(self) -> None:
        """Find what the samplers can use: the table, a foldable first convolution, local terms."""
        self._folded: locality.FoldedConvolution | None = None
        self._local: locality.LocalSum | None = None
        self._batch_size = self._measure_batch_size()
        if not isinstance(self.space, DiscreteSpace):
            return
        self._table = self.embedding.table(self.space)
        if len(self.space.shape) < 2 or self.preprocess is not None:
            return
        graph = locality.trace(self.module)
        if graph is None or not self._same_outputs(graph):
            return
        one_channel = self.space.n_coordinates == math.prod(self._grid())
        if isinstance(self.embedding, OneHot) and one_channel:
            self._folded = locality.fold_first_convolution(graph, self.space.levels)
        if self._folded is not None:
            self._table = self._folded.table
        sample = self._assemble(self._table[torch.zeros(1, self.space.n_coordinates, dtype=torch.int64)])
        tail = graph if self._folded is None else self._folded.tail
        extra = 0 if self._folded is None else self._folded.kernel // 2
        self._local = locality.split_local_sum(tail, sample, extra)

    def _grid(self) -> tuple[int, int]:
        rows, columns = self.space.shape[-2:]
        return rows, columns

    def _same_outputs(self, graph: nn.Module) -> bool:
        """Tracing follows one branch of the code: the wrong one where code asks for the type of its input."""
        sample = self._sample_input()
        with torch.no_grad():
            try:
                return torch.allclose(graph(sample), self.module(sample), rtol=1e-4, atol=1e-5)
            except (RuntimeError, TypeError, ValueError, AttributeError):
                return False

    def _assemble(self, embedded: Tensor) -> Tensor:
        """Embedded points -> what the (folded) module reads."""
        if self._folded is not None:
            return self._channels_last(self._folded.assemble(embedded, self._grid()))
        return self._finish(self.embedding.assemble(embedded, self.space))

    def _embedded_outputs(self, embedded: Tensor) -> Tensor:
        assembled = self._assemble(embedded)
        output = self._folded.tail(assembled) if self._folded is not None else self._evaluated(assembled)
        return output.reshape(len(embedded), self.n_outputs)

    def _model_input(self, x: Tensor) -> Tensor:
        if isinstance(self.space, DiscreteSpace) and not x.is_floating_point():
            table = self.embedding.table(self.space)
            return self._finish(self.embedding.assemble(table[self.space.to_levels(x)], self.space))
        return self._finish(self.embedding.continuous(x.to(self._real_dtype)))

    def _finish(self, model_input: Tensor) -> Tensor:
        if self.preprocess is not None:
            model_input = self.preprocess(model_input)
        return self._channels_last(model_input)

    def _channels_last(self, model_input: Tensor) -> Tensor:
        return model_input.contiguous(memory_format=torch.channels_last) if model_input.ndim == 4 else model_input

    def _run(self, model_input: Tensor) -> Tensor:
        return self._evaluated(self._finish(model_input)).reshape(len(model_input), self.n_outputs)

    def _activation(self, layer: str, model_input: Tensor) -> Tensor:
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                kept.append(output.clone())  # a later layer may work in place

        handle = self.module.get_submodule(layer).register_forward_hook(keep)
        try:
            self.module(model_input)
        finally:
            handle.remove()
        if not kept:
            raise UserError("layer", "a layer whose output is a tensor", repr(layer), "choose another layer")
        return kept[-1] if kept[-1].ndim > 1 else kept[-1][:, None]

    def _sample_input(self) -> Tensor:
        """Two points, for a module that takes statistics of its batch fails in its own words on one."""
        return self._model_input(self.space.draw(2, torch.Generator().manual_seed(0)))

    def _count_outputs(self) -> int:
        sample = self._sample_input()
        try:
            with torch.no_grad():
                output = self.module(sample)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                "module",
                f"a module that reads inputs of shape {tuple(sample.shape)}",
                f"{type(error).__name__}: {str(error).splitlines()[0]}",
                "check the space's shape, the embedding and the preprocessing",
            ) from error
        if not isinstance(output, Tensor) or output.ndim not in (1, 2) or len(output) != 2:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise FieldError("module", "outputs of shape (batch, K)", got, "wrap the module so that it returns logits")
        return 1 if output.ndim == 1 else int(output.shape[1])

    def _measure_batch_size(self) -> int:
        """The power of two whose activations stay in the caches; a property of the module, not of the moment."""
        sizes: list[int] = []
        handles = [
            layer.register_forward_hook(
                lambda _m, _i, output: sizes.append(output.numel() if isinstance(output, Tensor) else 0)
            )
            for layer in self.module.modules()
            if not list(layer.children())
        ]
        try:
            sample = self._sample_input()
            with torch.no_grad():
                self.module(sample)
        finally:
            for handle in handles:
                handle.remove()
        per_input = 4 * ((sum(sizes) + sample.numel()) // len(sample) + 1)
        power = max(4, min(12, round(torch.log2(torch.tensor(_ACTIVATION_BYTES / per_input)).item())))
        return 2**power

    def _log_sum_exp(self, z: Tensor) -> Tensor:
        if self.n_outputs == 1 and self.classes is not None:
            return nn.functional.softplus(z[:, 0])
        return torch.logsumexp(z, 1)

    def _refuse_index(self, observable: str, index: int, count: int) -> None:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            extra = "; a single output has two classes only when classes=[...] names them" if count == 1 else ""
            raise UserError(
                "observable", f"{observable} with an index in 0..{count - 1}", repr(index), f"choose one{extra}"
            )


def model_hash(module: nn.Module) -> str:
    """sha256 of a module's structure and weights."""
    digest = hashlib.sha256(str(module).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
