"""The colours of the figures, light and dark, and the colour and dash of each data set."""

from dataclasses import dataclass

import numpy as np
import plotly.colors

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Theme:
    """The colours of a figure; blue and orange differ in lightness too, so that they survive greyscale."""

    paper: str
    ink: str
    muted: str
    grid: str
    accent: str
    band: str
    warning: str
    hatch: str
    categories: tuple[str, str]
    sequential: tuple[float, float]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1c2127",
    muted="#57606a",
    grid="#e3e6e8",
    accent="#175a9c",
    band="rgba(23,90,156,0.22)",
    warning="#a24a00",
    hatch="rgba(162,74,0,0.45)",
    categories=("#175a9c", "#e08214"),
    sequential=(0.0, 0.85),
)
DARK = Theme(
    paper="#171b20",
    ink="#e6e9ec",
    muted="#a3adb8",
    grid="#2e353d",
    accent="#7fb8f0",
    band="rgba(127,184,240,0.28)",
    warning="#f5a85a",
    hatch="rgba(245,168,90,0.5)",
    categories=("#5b9fe0", "#f7b267"),
    sequential=(0.2, 1.0),
)


@dataclass(frozen=True)
class Styled:
    """How one data set is drawn, wherever it appears."""

    colour: str
    dash: str


def set_styles(names: list[str], theme: Theme) -> list[Styled]:
    """A colour for each class (the words after the colon), a dash for each group (the words before it)."""
    classes = list(dict.fromkeys(name.rpartition(":")[2].strip() for name in names))
    groups = list(dict.fromkeys(name.rpartition(":")[0].strip() for name in names))
    if len(classes) <= 2:
        colours = list(theme.categories)
    else:
        low, high = theme.sequential
        colours = plotly.colors.sample_colorscale("Viridis", list(np.linspace(low, high, len(classes))))
    dashes = ["solid", "dot", "dash", "longdash", "dashdot"]
    return [
        Styled(
            str(colours[classes.index(name.rpartition(":")[2].strip())]),
            dashes[groups.index(name.rpartition(":")[0].strip()) % len(dashes)],
        )
        for name in names
    ]
