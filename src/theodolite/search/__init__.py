"""How to find a point: descent, exact enumeration of basins, paths over the passes between minima."""
