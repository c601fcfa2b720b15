"""The slopes section of the page: everything its template shows, as plain strings and numbers; it needs no script."""

from typing import Any

import xarray as xr

from theodolite.report import lipschitz as told
from theodolite.report.parts import common, figure_pair


def lipschitz_section(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    """The section's words, tables and figure (light and dark); `key` makes its ids unique."""
    said = told.findings(dataset)
    heads, rows = told.layer_rows(dataset)
    drawn = {}
    if told.slope_figure(dataset) is not None:
        drawn["slopes"] = figure_pair(told.slope_figure, dataset, f"{said.headline}.", told.numbers(dataset))
        # Every layer keeps its name on a phone.
        drawn["slopes"]["narrow"] |= {"xaxis.nticks": None, "xaxis.tickangle": -60}
        drawn["slopes"]["narrow"]["margin"]["b"] = 96
    return common(dataset, key, "How steep it can be") | {
        "template": "lipschitz.html.j2",
        "scripts": [],
        "styles": ["lipschitz.css"],
        "findings": said,
        "script": {},
        "drawn": drawn,
        "norm": told.norm_words(dataset),
        "heads": heads,
        "rows": rows,
        "lost": told.lost(dataset),
        "local": told.local_rows(dataset),
        "local_heading": told.local_heading(dataset),
        "n_images": f"{int(dataset.sizes.get('image', 0)):,}",
    }
