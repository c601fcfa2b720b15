"""Weights too small to count, whose products take a processor a hundred times as long as others: zero in a copy.

Weight decay leaves them wherever an input never varies, such as the corners of digits: in single precision such a
weight shrinks until it is below the normal range, and rounding keeps it there.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def without_subnormals(module: nn.Module) -> nn.Module:
    """``module`` itself, or where it has any a copy in which those weights are zero that are below the normal range or
    so near it that a product with a factor of one rounding falls below.

    That takes less than a rounding squared of the largest weight beside them; a tensor without so large a one is kept
    as it is. Weights that are shared stay shared.
    """
    names = {
        id(p): name for name, p in module.named_parameters() if p.dtype.is_floating_point and bool(_faint(p).any())
    }
    if not names:
        return module
    found = copy.deepcopy(module)
    with torch.no_grad():
        for name in names.values():
            weight = found.get_parameter(name)
            weight.masked_fill_(_faint(weight), 0.0)
    return found


def _faint(weight: Tensor) -> Tensor:
    """Where a weight is to be zero."""
    size, limits = weight.detach().abs(), torch.finfo(weight.dtype)
    least = limits.tiny / limits.eps
    large = size.numel() > 0 and float(size.max()) >= least / limits.eps**2
    return (size > 0) & (size < least) if large else torch.zeros_like(size, dtype=torch.bool)
