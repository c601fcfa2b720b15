"""Proven upper bounds of the norm of a zero-padded convolution: its norm on a torus that no window wraps around.

Such a torus holds the zero-padded convolution as a part of its matrix, so that its norm is no less. On a torus a
convolution is one small matrix for each frequency (Sedghi, Gupta and Long 2019, 'The Singular Values of Convolutional
Layers'); a stride is taken by its polyphase form, a convolution without stride of as many more channels. Windows
never see the seam, so a phase may be put on it (a twisted torus: the frequencies lie between the others): every
phase gives a bound, and the least counts. Without twist, on a torus of the input's own size, this is the operator
norm of Szegedy et al. 2013, 'Intriguing properties of neural networks', section 4.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.instruments.bounds.verified_cholesky import UNIT_ROUNDING, gram, gram_margin, largest_proven

_CHUNK = 2**22  # complex numbers of the matrices that are held at once
_ROUGH = 8  # Lanczos steps that tell twists apart
_FINE = 20
_FINEST = 100
_LOOKED_AT = 6  # frequencies worth the finest look
_STEEPEST = 8  # one in so many frequencies is looked at again
_NARROW = 128  # of the shorter side, up to which powers of a matrix are cheaper than its products with vectors
_IN_CACHE = 2**18  # complex numbers of the matrices that Lanczos steps go through at once
_LIGHT = 2**20  # numbers of a torus on which every twist is proven
TWISTS = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5))  # turns on the seam of each axis


@final
@dataclass(frozen=True)
class Torus:
    """A convolution in polyphase form on a torus: ``tap (tap, groups, out, in)`` at ``place (tap, 2)`` in cells,
    ``cells``: its sides; complex frequencies of all cells make its norm."""

    tap: Tensor
    place: Tensor
    cells: tuple[int, int]

    @property
    def n_matrices(self) -> int:
        """Frequencies that are not conjugate to others (where a twist is 0, about half), times groups."""
        return self.cells[0] * (self.cells[1] // 2 + 1) * self.tap.shape[1]

    def frequencies(self, twist: tuple[float, float]) -> tuple[int, int]:
        """Of each axis. Half of the second: the other half is its conjugate, twisted by a half or not at all."""
        return self.cells[0], (self.cells[1] + 1) // 2 if twist[1] else self.cells[1] // 2 + 1

    def matrices(self, twist: tuple[float, float], only: Tensor | None = None) -> Iterator[tuple[Tensor, float]]:
        """Matrices ``(chunk, out, in)`` complex, a frequency and group each, and how far each may be off in the
        Frobenius norm; of the frequencies numbered ``only``, or all."""
        n_out, n_in = self.tap.shape[2:]
        angle = [
            2 * math.pi * (torch.arange(count, dtype=torch.float64) + turn) / side
            for count, turn, side in zip(self.frequencies(twist), twist, self.cells, strict=True)
        ]
        flat = self.tap.flatten(1).to(torch.complex128)
        size = self.tap.abs().sum(0)
        largest = float(torch.linalg.matrix_norm(size).max()) if size.numel() else 0.0
        reach = 1 + float(self.place.abs().max()) if len(self.place) else 1.0
        off = 8 * (len(flat) + 8 * reach) * UNIT_ROUNDING * largest
        place = self.place.double()
        turns = (angle[0][:, None, None] * place[:, 0] + angle[1][None, :, None] * place[:, 1]).flatten(0, 1)
        turns = turns if only is None else turns[only]
        for part in turns.split(max(1, _CHUNK // max(1, flat.shape[1]))):
            phase = torch.polar(torch.ones_like(part), -part)
            yield (phase @ flat).reshape(-1, n_out, n_in), off


def torus(
    weight: Tensor,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    *,
    circular: bool = False,
) -> Torus:
    """The least torus that no window of a convolution ``weight (out, in / groups, k, l)`` of ``(rows, columns)`` wraps
    around, without the taps that no output uses; ``circular``: one of the input's own size, rounded up to strides."""
    kernel = weight.double()
    cells, starts = [], []
    for axis in range(2):
        reach = dilation[axis] * (kernel.shape[2 + axis] - 1) + 1
        last = (size[axis] + 2 * padding[axis] - reach) // stride[axis] * stride[axis]
        # The input number i enters the output at o by the tap at i - o + padding.
        lowest, highest = padding[axis] - last, size[axis] - 1 + padding[axis]
        place = torch.arange(kernel.shape[2 + axis]) * dilation[axis]
        used = (place >= lowest) & (place <= highest)
        if circular or not bool(used.any()):
            side = size[axis]
        else:
            kernel = kernel.index_select(2 + axis, used.nonzero()[:, 0])
            place = place[used]
            # Inputs after the last window are never read.
            highest = min(highest, last + reach - 1)
            side = max(highest - int(place[0]), int(place[-1]) - lowest) + 1
        cells.append(-(-max(1, side) // stride[axis]))
        starts.append(place)
    return _polyphase(kernel, (cells[0], cells[1]), starts, stride, groups)


def _polyphase(
    kernel: Tensor, cells: tuple[int, int], starts: list[Tensor], stride: tuple[int, ...], groups: int
) -> Torus:
    n_out, n_in = kernel.shape[0] // groups, kernel.shape[1]
    cell = [place.div(step, rounding_mode="floor") for place, step in zip(starts, stride, strict=True)]
    phase = [place.remainder(step) for place, step in zip(starts, stride, strict=True)]
    firsts = [sorted(set(part.tolist())) for part in cell]
    n_phases = math.prod(stride[:2])
    tap = torch.zeros((len(firsts[0]), len(firsts[1]), groups, n_out, n_in, n_phases), dtype=torch.float64)
    grouped = kernel.reshape(groups, n_out, n_in, *kernel.shape[2:])
    for row, column in itertools.product(range(kernel.shape[2]), range(kernel.shape[3])):
        where = firsts[0].index(int(cell[0][row])), firsts[1].index(int(cell[1][column]))
        tap[(*where, slice(None), slice(None), slice(None), int(phase[0][row]) * stride[1] + int(phase[1][column]))] = (
            grouped[..., row, column]
        )
    place = torch.cartesian_prod(torch.tensor(firsts[0]), torch.tensor(firsts[1])).reshape(-1, 2)
    return Torus(tap.reshape(-1, groups, n_out, n_in * n_phases), place, cells)


def proven_torus_norm(shape: Torus) -> float:
    """No less than the norm of the zero-padded convolution; the least over the twists, proven by Cholesky
    factorisations (`verified_cholesky`)."""
    if not shape.tap.numel():
        return 0.0
    if shape.n_matrices * math.prod(shape.tap.shape[2:]) <= _LIGHT:
        return min(_proven(shape, twist, _located(shape, twist, _FINE)) for twist in TWISTS)
    looked = {twist: _looked_at(shape, twist) for twist in TWISTS}
    best = min(looked, key=lambda twist: float(looked[twist].max()))
    return _proven(shape, best, looked[best])


def _looked_at(shape: Torus, twist: tuple[float, float]) -> Tensor:
    """`_located` roughly, and the steepest again."""
    found = _located(shape, twist, _ROUGH)
    steepest = found.topk(max(1, len(found) // _STEEPEST)).indices
    found[steepest] = _located(shape, twist, _FINE, steepest)
    return found


def circular_singular_values(shape: Torus) -> tuple[float, float]:
    """The largest and, of the min(out, in) of each frequency, the smallest singular value on the torus without twist;
    estimates."""
    highest, lowest = 0.0, math.inf
    for matrices, _ in shape.matrices((0.0, 0.0)):
        value = torch.linalg.svdvals(matrices)
        highest, lowest = max(highest, float(value.max())), min(lowest, float(value.min()))
    return highest, lowest


def _proven(shape: Torus, twist: tuple[float, float], located: Tensor) -> float:
    """The bound by the torus with this twist; ``located (frequency,)`` says where the largest eigenvalues are."""
    chosen = located.topk(min(_LOOKED_AT, len(located))).indices
    estimate = max(float(_lanczos(part, _FINEST).max()) for part, _ in shape.matrices(twist, chosen))
    proven = 0.0
    for matrices, off in shape.matrices(twist):
        product = gram(matrices)
        # The trace is the sum of squares, with a rounding that the margin's own caution covers.
        total = float(_traces(product).max())
        margin = gram_margin(matrices.shape[1], matrices.shape[2], total)
        closer = lambda left, some=matrices: float(_lanczos(some[left], _FINEST).max())  # noqa: E731
        found = math.sqrt(largest_proven(product, estimate, margin, closer)) * (1 + 4 * UNIT_ROUNDING) + off
        proven = max(proven, found)
    return proven * (1 + 4 * UNIT_ROUNDING)


def _located(shape: Torus, twist: tuple[float, float], n_steps: int, only: Tensor | None = None) -> Tensor:
    """``(frequency,)``: squares of the norms of the matrices, estimated from below in single precision."""
    way = _squared if min(shape.tap.shape[2:]) <= _NARROW else _lanczos
    found = [way(part.to(torch.complex64), n_steps) for part, _ in shape.matrices(twist, only)]
    return torch.cat(found).double().reshape(-1, shape.tap.shape[1]).amax(1)


def _squared(matrices: Tensor, n_steps: int) -> Tensor:
    """``(batch,)``: (tr G^(2p) / tr G^p)^(1/p) with G = A'A and p >= 4 ``n_steps``: below the largest eigenvalue, by
    products of whole matrices, which are fast where these are small."""
    product, power = gram(matrices), 1
    trace = _traces(product)
    size = trace.log()  # of the trace of the power, in logarithms
    while True:
        # Of trace 1, so that nothing overflows.
        product = product / trace.to(product.dtype)[:, None, None]
        product = product @ product
        trace = _traces(product)
        if power >= 4 * n_steps:
            return ((size + trace.log()) / power).exp().nan_to_num(0.0)
        size, power = 2 * size + trace.log(), 2 * power


def _traces(product: Tensor) -> Tensor:
    return product.diagonal(dim1=1, dim2=2).real.double().sum(1)


def _lanczos(matrices: Tensor, n_steps: int) -> Tensor:
    """``(batch,)``: the largest Ritz value of A'A of each of ``matrices (batch, rows, columns)`` after as many steps,
    every vector kept orthogonal to all before (Paige 1972)."""
    few = max(1, _IN_CACHE // max(1, matrices[0].numel()))
    if few < len(matrices):
        return torch.cat([_lanczos(part, n_steps) for part in matrices.split(few)])
    tall = matrices if matrices.shape[1] >= matrices.shape[2] else matrices.mH
    # A conjugate would be copied anew in every product.
    tall, wide = tall.resolve_conj().contiguous(), tall.mH.resolve_conj().contiguous()
    n_steps = min(n_steps, tall.shape[2])
    generator = torch.Generator().manual_seed(0)
    start = torch.randn((tall.shape[2], 1), generator=generator, dtype=torch.float64).to(tall.dtype)
    vector = wide @ (tall @ start)
    tiny, small = torch.finfo(tall.dtype).tiny, 100 * torch.finfo(tall.dtype).eps
    vector = vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True).clamp(min=tiny)
    basis, images = (tall.new_zeros((len(tall), tall.shape[2], n_steps)) for _ in range(2))
    for step in range(n_steps):
        basis[:, :, step : step + 1] = vector
        image = wide @ (tall @ vector)
        images[:, :, step : step + 1] = image
        known = basis[:, :, : step + 1]
        new = image
        for _ in range(2):
            new = new - known @ (known.mH @ new)
        length = torch.linalg.vector_norm(new, dim=1, keepdim=True)
        # Where the space is exhausted a vector of length 0 adds nothing.
        spent = length <= small * torch.linalg.vector_norm(image, dim=1, keepdim=True)
        vector = torch.where(spent, torch.zeros_like(new), new / length.clamp(min=tiny))
    projected = (basis.mH @ images).to(torch.complex128)
    return torch.linalg.eigvalsh((projected + projected.mH) / 2)[:, -1].clamp(min=0)
