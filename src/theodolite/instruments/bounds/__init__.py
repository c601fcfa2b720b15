"""What can be proven of a network from its layers: slopes, linear bounds, certificates of distances, exact answers."""
