"""Energies learned from data: their networks, how they are sampled and trained, and how they are judged."""
