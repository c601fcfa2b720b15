"""Haar (Daubechies-1) wavelet features of images, chosen by pivoted QR and scaled to [0, 1], and the way back.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", section 6: the
100 (MNIST) or 2,500 (CIFAR-10) most significant wavelets by pivoted QR of the coefficients of the training images.
The transform is orthonormal: distances between features, times `scale`, are distances between images.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import final

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor

from theodolite.errors import UserError
from theodolite.space import Box

_BLOCK_ROWS = 4096  # images in one step of the triangular factor: what bounds its memory
_AXES = (-2, -1)


@final
@dataclass(frozen=True)
class WaveletFeatures:
    """``kept`` ``(k,)`` int64: the chosen coefficients, most significant first, as places in the flattened array of
    all coefficients of an image of ``shape`` (channels, rows, columns). ``level``: how often rows and columns are
    halved. ``wavelet``: "haar" or "db1", two names of one filter.

    Coefficients of images in [0, 1] lie in [`low`, `low` + `scale`]; features are these as shares in [0, 1].
    """

    kept: Tensor
    shape: tuple[int, int, int]
    level: int
    wavelet: str = "haar"

    @property
    def low(self) -> float:
        """The least coefficient an image in [0, 1] can have: a detail of the coarsest level."""
        return -(2.0 ** (self.level - 1))

    @property
    def scale(self) -> float:
        """The range of coefficients: up to 2^level, of a white block."""
        return 2.0**self.level - self.low

    @property
    def space(self) -> Box:
        """Where features live."""
        return Box((len(self.kept),), 0.0, 1.0)

    def features(self, images: Tensor) -> Tensor:
        """Images ``(n, channels, rows, columns)`` in [0, 1] -> features ``(n, k)`` float64 in [0, 1].

        Raises UserError for images of another shape, or outside [0, 1].
        """
        _check_images(images, self.shape)
        shares = (_coefficients(images, self.wavelet, self.level)[:, self.kept] - self.low) / self.scale
        return shares.clamp(0.0, 1.0)  # rounding steps over the edges

    def images(self, features: Tensor, like: Tensor | None = None) -> Tensor:
        """Features ``(n, k)`` -> images ``(n, channels, rows, columns)`` float64; not clipped to [0, 1].

        The coefficients that are no features are those of the images ``like``, or 0.
        """
        if features.ndim != 2 or features.shape[1] != len(self.kept):
            expected = f"features (n, {len(self.kept)})"
            raise UserError("features", expected, f"{tuple(features.shape)}", "give what `features` returns")
        if like is None:
            coefficients = torch.zeros((len(features), _size(self.shape)), dtype=torch.float64)
        else:
            _check_images(like, self.shape)
            if len(like) != len(features):
                raise UserError("like", f"{len(features)} images", f"{len(like)}", "give an image a row of features")
            coefficients = _coefficients(like, self.wavelet, self.level)
        coefficients[:, self.kept] = features.double() * self.scale + self.low
        return _image(coefficients, self.shape, self.wavelet, self.level)


def choose_wavelets(images: Tensor, n_features: int = 100, *, wavelet: str = "haar", level: int = 2) -> WaveletFeatures:
    """The ``n_features`` wavelets that a QR factorisation with column pivoting of all images' coefficients picks first.

    ``images`` ``(n, channels, rows, columns)`` in [0, 1]; the paper does not give its ``level``. Raises UserError where
    PyWavelets is missing, for another wavelet, sides that cannot be halved ``level`` times, images outside [0, 1] and
    more features than independent coefficients.
    """
    if wavelet not in ("haar", "db1"):
        raise UserError("wavelet", "'haar' or 'db1'", repr(wavelet), "others do not invert on blocks")
    if images.ndim != 4 or len(images) == 0:
        got = f"shape {tuple(images.shape)}"
        raise UserError("images", "images (n, channels, rows, columns)", got, "reshape them")
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    _check_images(images, shape)
    if level < 1 or any(side % 2**level for side in shape[1:]):
        expected = f"a number of halvings that {shape[1]}x{shape[2]} pixels allow"
        raise UserError("level", expected, str(level), "2 fits 28x28 and 32x32")
    if not 1 <= n_features <= min(_size(shape), len(images)):
        expected = f"1..{min(_size(shape), len(images))}, the coefficients or images there are"
        raise UserError("n_features", expected, str(n_features), "100 for digits")
    kept = _pivots(images, n_features, wavelet, level)
    return WaveletFeatures(torch.from_numpy(kept.astype(np.int64)), shape, level, wavelet)


def _pivots(images: Tensor, n_features: int, wavelet: str, level: int) -> np.ndarray:
    factor = np.zeros((0, _size(tuple(images.shape[1:]))))
    # The triangular factor is the matrix turned in space: its columns have the same lengths and angles, so pivoting
    # on it picks the same columns without ever holding the coefficients of all images.
    for block in images.split(_BLOCK_ROWS):
        rows = _coefficients(block, wavelet, level).numpy()
        factor = np.linalg.qr(np.concatenate([factor, rows]), mode="r")
    triangle, pivots = qr(factor, mode="r", pivoting=True)  # type: ignore[misc]
    lengths = np.abs(np.diag(triangle))
    if lengths[n_features - 1] <= len(pivots) * np.finfo(float).eps * lengths[0]:
        independent = int((lengths > len(pivots) * np.finfo(float).eps * lengths[0]).sum())
        raise UserError(
            "n_features", f"at most the {independent} independent wavelets", str(n_features), "ask for less"
        )
    return pivots[:n_features]


def _coefficients(images: Tensor, wavelet: str, level: int) -> Tensor:
    """``(n, channels, rows, columns)`` -> ``(n, channels * rows * columns)`` float64."""
    pywt = _pywavelets()
    array = images.detach().cpu().double().numpy()
    levels = pywt.wavedec2(array, wavelet, level=level, axes=_AXES)
    coefficients, _ = pywt.coeffs_to_array(levels, axes=_AXES)
    return torch.from_numpy(coefficients.reshape(len(array), -1))


def _image(coefficients: Tensor, shape: tuple[int, int, int], wavelet: str, level: int) -> Tensor:
    pywt = _pywavelets()
    array = coefficients.numpy().reshape(-1, *shape)
    # Only a transform of the same number of images says where its parts lie in the array.
    _, places = pywt.coeffs_to_array(pywt.wavedec2(np.zeros_like(array), wavelet, level=level, axes=_AXES), axes=_AXES)
    levels = pywt.array_to_coeffs(array, places, output_format="wavedec2")
    return torch.from_numpy(np.ascontiguousarray(pywt.waverec2(levels, wavelet, axes=_AXES)))


def _check_images(images: Tensor, shape: tuple[int, int, int]) -> None:
    if tuple(images.shape[1:]) != shape:
        got = f"shape {tuple(images.shape)}"
        raise UserError("images", f"images (n, {', '.join(map(str, shape))})", got, "reshape them")
    if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
        got = f"{images.dtype} from {float(images.min()):g} to {float(images.max()):g}"
        raise UserError("images", "grey values in [0, 1]", got, "divide levels 0..255 by 255")


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _pywavelets() -> ModuleType:
    try:
        import pywt
    except ImportError:
        raise UserError(
            "wavelets", "PyWavelets, which makes the features", "no such package", 'pip install "theodolite[wavelets]"'
        ) from None
    return pywt
