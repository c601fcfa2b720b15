"""One offline HTML page from a saved survey: scripts, figures and pictures inside, nothing fetched."""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline
import xarray as xr
from markupsafe import Markup

from theodolite.errors import UserError
from theodolite.report import words
from theodolite.report.boundary_section import boundary_section
from theodolite.report.ensemble_section import ensemble_section
from theodolite.report.landscape_section import landscape_section
from theodolite.report.learning_section import learning_section
from theodolite.report.lipschitz_section import lipschitz_section
from theodolite.report.overlay_section import overlay_section
from theodolite.report.section import density_section
from theodolite.report.stability_section import stability_section
from theodolite.report.units_section import units_section
from theodolite.result import open_survey

Survey = xr.Dataset | xr.DataTree | str | Path

# In the order of the page.
_SECTIONS: dict[str, Callable[[xr.Dataset, str], dict[str, Any]]] = {
    "density": density_section,
    "landscape": landscape_section,
    "boundary": boundary_section,
    "stability": stability_section,
    "lipschitz": lipschitz_section,
    "units": units_section,
    "learning": learning_section,
    "ensemble": ensemble_section,
}

_FEW = 2  # different answers that fit one line of the title block
_FACTS = [
    ("space", "space_sentence"),
    ("output", "observable_sentence"),
    ("method", "method"),
    ("seed", "seed"),
    ("machine", "machine"),
    ("date", "date"),
]


def write_report(survey_or_path: Survey | Sequence[Survey], file: str | Path) -> Path:
    """Write the survey sheet of a result to one HTML file and return its path.

    Takes a Dataset of one instrument, a DataTree with a group an instrument, the path of a saved survey, or a list
    of these. Two landscapes of one space are also laid over each other.
    An existing file is replaced in one move, so that an interrupted write leaves the old page.

    Raises UserError: `survey` where nothing in it can be drawn, `file` where it is a directory.
    """
    path = Path(file)
    if path.is_dir():
        raise UserError("file", "the name of a page to write", f"the directory {path}", f"give {path / 'report.html'}")
    page = render(survey_or_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, path)
    return path


def render(survey_or_path: Survey | Sequence[Survey]) -> str:
    """The page as text; see `write_report`."""
    surveys = _datasets(survey_or_path)
    drawable = {name: data for name, data in surveys.items() if data.attrs.get("instrument") in _SECTIONS}
    if not drawable:
        found = words.listing([str(data.attrs.get("instrument", "nothing")) for data in surveys.values()]) or "nothing"
        known = " or ".join(_SECTIONS)
        raise UserError("survey", f"a result of the instrument {known}", found, "run `theodolite density` first")
    order = list(_SECTIONS)
    keys = sorted(drawable, key=lambda name: order.index(str(drawable[name].attrs["instrument"])))
    sections = [_SECTIONS[str(drawable[key].attrs["instrument"])](drawable[key], key) for key in keys]
    loader = jinja2.PackageLoader("theodolite.report")
    kinds = [section["instrument"] for section in sections]
    for section in sections:
        if kinds.count(section["instrument"]) > 1:
            section["question"] += f": {section['key']}"
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    attributes = [drawable[key].attrs for key in keys]
    overlay = _overlay({key: drawable[key] for key in keys})
    shown = sections + ([overlay] if overlay else [])
    scripts = dict.fromkeys(["page.js", *(name for section in shown for name in section["scripts"])])
    styles = dict.fromkeys(["page.css", *(name for section in shown for name in section["styles"])])
    return environment.get_template("page.html.j2").render(
        title=_title(attributes),
        facts=_facts(attributes, sections),
        sections=sections,
        shown=shown,
        others=sorted(set(surveys) - set(drawable)),
        style=_sources(environment, loader, styles),
        script=_sources(environment, loader, scripts),
        plotly=Markup(plotly.offline.get_plotlyjs()),  # noqa: S704
        data=_embedded({part["key"]: {"figures": part["drawn"], **part["script"]} for part in shown}),
        settings=_each(sections, attributes, "settings"),
        commands=list(dict.fromkeys(str(attrs["command"]) for attrs in attributes if str(attrs.get("command", "")))),
        citations=list(dict.fromkeys(text for attrs in attributes for text in _listed(attrs.get("citations", "[]")))),
        versions=_versions(attributes[0]),
        model_hash=_common(attributes, "model_hash"),
    )


def _overlay(surveys: dict[str, xr.Dataset]) -> dict[str, Any] | None:
    pair = [key for key, data in surveys.items() if data.attrs["instrument"] == "landscape"][:2]
    if len(pair) < 2:
        return None
    return overlay_section(surveys[pair[0]], surveys[pair[1]], (pair[0], pair[1]), "overlay")


def _datasets(survey: Survey | Sequence[Survey]) -> dict[str, xr.Dataset]:
    if isinstance(survey, xr.Dataset):
        return {str(survey.attrs.get("instrument", "survey")): survey}
    if isinstance(survey, str | Path):
        return _datasets(open_survey(survey))
    if not isinstance(survey, xr.DataTree):
        return _side_by_side(survey)
    groups = {node.path.strip("/"): node.to_dataset() for node in survey.subtree if node.has_data}
    return {
        path.replace("/", "-") or str(data.attrs.get("instrument", "survey")): data for path, data in groups.items()
    }


def _side_by_side(surveys: Sequence[Survey]) -> dict[str, xr.Dataset]:
    found: dict[str, xr.Dataset] = {}
    for survey in surveys:
        for key, data in _datasets(survey).items():
            free = (f"{key}-{number}" for number in itertools.count(2) if f"{key}-{number}" not in found)
            found[key if key not in found else next(free)] = data
    return found


def _sources(environment: jinja2.Environment, loader: jinja2.BaseLoader, names: Iterable[str]) -> Markup:
    """The page's own scripts or styles as they are, without reading a template's marks in them."""
    return Markup("\n".join(loader.get_source(environment, name)[0] for name in names))  # noqa: S704


def _embedded(value: Any) -> Markup:
    # "<" never appears in the text, so that no string of a result can end the script element.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _facts(attributes: list[dict[Any, Any]], sections: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The title block: what all surveys share once, what differs a line for each."""
    rows: list[tuple[str, str]] = []
    keys = [str(section["key"]) for section in sections]
    names = [] if _named(attributes) else [("networks", "model_name")]
    for head, name in names + _FACTS:
        values = [str(attrs.get(name, "")) for attrs in attributes]
        told = _span(values) if name == "date" else _told(keys, values)
        rows += [(head, told)] if told else []
    place = 2 + len(names)
    sets = [f"{row['name']} ({row['count']})" for section in sections for row in section["sets"]]
    if len(sets) > 6:
        rows.insert(place, ("data sets", f"{len(sets)}, listed below"))
    elif sets:
        rows.insert(place, ("data sets", ", ".join(sets)))
    efforts = [_effort(attrs) for attrs in attributes]
    if len(attributes) > 1:
        efforts = [f"{key}: {effort}" for key, effort in zip(keys, efforts, strict=True) if effort]
    if any(efforts):
        rows.insert(
            -2, ("effort", ("\n" if len(efforts) > _FEW else "; ").join(effort for effort in efforts if effort))
        )
    if str(attributes[0].get("version", "")):
        rows.append(("theodolite", str(attributes[0]["version"])))
    return rows


def _title(attributes: list[dict[Any, Any]]) -> str:
    """What was surveyed, by name; of many, how many."""
    if not _named(attributes):
        return f"{len(attributes)} surveys"
    return _common(attributes, "model_name") or "a field"


def _named(attributes: list[dict[Any, Any]]) -> bool:
    """Whether the names of what was surveyed are few enough for a title."""
    return len({str(attrs.get("model_name", "")) for attrs in attributes} - {""}) <= _FEW


def _told(keys: list[str], values: list[str]) -> str:
    """Each different answer once; of many, a line each with the sections that give it."""
    different = list(dict.fromkeys(value for value in values if value))
    if len(different) <= _FEW:
        return "; ".join(different)
    given = {value: [key for key, other in zip(keys, values, strict=True) if other == value] for value in different}
    return "\n".join(f"{', '.join(by)}: {value}" for value, by in given.items())


def _span(dates: list[str]) -> str:
    """From the first to the last of dates in ISO 8601."""
    known = sorted({date for date in dates if date})
    return " to ".join(dict.fromkeys([known[0], known[-1]])) if known else ""


def _effort(attrs: dict[Any, Any]) -> str:
    parts = []
    if "evaluations" in attrs:
        parts.append(f"{int(attrs['evaluations']):,} evaluations")
    if "seconds" in attrs:
        parts.append(words.duration(float(attrs["seconds"])))
    return " in ".join(parts)


def _common(attributes: list[dict[Any, Any]], name: str) -> str:
    """What the surveys say, each different answer once."""
    return "; ".join(dict.fromkeys(str(attrs.get(name, "")) for attrs in attributes if str(attrs.get(name, ""))))


def _each(sections: list[dict[str, Any]], attributes: list[dict[Any, Any]], name: str) -> str:
    texts = [str(attrs.get(name, "")) for attrs in attributes]
    if len(set(texts)) <= 1:
        return texts[0] if texts else ""
    return "\n".join(f"# {section['key']}\n{text}" for section, text in zip(sections, texts, strict=True) if text)


def _listed(text: str) -> list[str]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        return [text]
    return [str(value) for value in values]


def _versions(attrs: dict[Any, Any]) -> list[tuple[str, str]]:
    try:
        values = json.loads(str(attrs.get("versions", "{}")))
    except json.JSONDecodeError:
        return []
    return [(str(name), str(version)) for name, version in values.items()]
