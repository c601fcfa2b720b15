"""What the points of a map look like, where they are no images themselves: latent vectors, principal components."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.space import Space

Picture = Callable[[Tensor], Tensor]  # (n, *shape) -> (n, *image_shape)

_PART = 1024  # points mapped at once
_MOST_BYTES = 2**28  # of the pictures of one variable; a map shows far fewer
_SHOWN = {"minimum_point": "minimum_picture", "member_point": "member_picture", "path_point": "path_picture"}


def check_picture(picture: Picture, space: Space) -> tuple[int, ...]:
    """The shape of an image, from two points of the space.

    Raises UserError where ``picture`` fails, gives no image for each point, or one of values that are not finite.
    """
    points = space.draw(2, torch.Generator().manual_seed(0))
    try:
        images = _images(picture, points)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        got = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise UserError("picture", f"a function of points {tuple(points.shape)}", got, "check its input") from error
    if images.ndim < 2 or len(images) != len(points):
        raise UserError(
            "picture", "an image a point: (n, *image_shape)", f"shape {images.shape} for 2 points", "keep axis 0"
        )
    if not np.isfinite(images).all():
        raise UserError("picture", "finite values", "values that are not", "look at the images of a few points")
    return images.shape[1:]


def pictures(picture: Picture, space: Space, variables: Mapping[str, tuple]) -> dict[str, tuple]:
    """``minimum_picture``, ``member_picture`` and ``path_picture``, float32, of those points that ``variables`` (name
    -> dims and values) hold; pictures of one kind that would take more than 256 MB are left out. Raises UserError as
    `check_picture` does.
    """
    shape = check_picture(picture, space)
    axes = tuple(f"picture_{axis}" for axis in range(len(shape)))
    found: dict[str, tuple] = {}
    for name, shown in _SHOWN.items():
        if name not in variables:
            continue
        dims, points = variables[name]
        leading = points.shape[: points.ndim - len(space.shape)]
        flat = points.reshape(-1, *space.shape)
        if 4 * len(flat) * int(np.prod(shape)) > _MOST_BYTES:
            continue
        parts = [_images(picture, torch.as_tensor(flat[k : k + _PART])) for k in range(0, len(flat), _PART)]
        images = np.concatenate(parts) if parts else np.empty((0, *shape), np.float32)
        found[shown] = ((*dims[: len(leading)], *axes), images.reshape(*leading, *shape))
    return found


def _images(picture: Picture, points: Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(picture(points).detach().cpu().numpy(), dtype=np.float32)
