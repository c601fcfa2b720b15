"""One thread a process: the suite runs in several processes at once."""

from __future__ import annotations

import os

# Read by the libraries when they are first imported, hence before torch.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)
