"""Disconnectivity graphs of made-up minima, for tests of what is said and drawn of them."""

import numpy as np

from theodolite import disconnectivity


def random_tree(seed, n, missing=0.0):
    generator = np.random.default_rng(seed)
    energy = generator.normal(size=n)
    height = np.triu(generator.exponential(size=(n, n)), 1)
    upper = np.maximum(energy[:, None], energy) + height + height.T
    gone = np.triu(generator.random((n, n)) < missing, 1)
    upper[gone | gone.T] = np.inf
    return energy, disconnectivity.tree(energy, upper, np.maximum(energy[:, None], energy))
