"""One offline HTML page from a saved survey: scripts, figures and pictures inside, nothing fetched."""

import json
import os
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline
import xarray as xr
from markupsafe import Markup

from theodolite.errors import UserError
from theodolite.report import words
from theodolite.report.section import density_section
from theodolite.result import open_survey

_FACTS = [
    ("space", "space_sentence"),
    ("output", "observable_sentence"),
    ("method", "method"),
    ("seed", "seed"),
    ("machine", "machine"),
    ("date", "date"),
]


def write_report(survey_or_path: xr.Dataset | xr.DataTree | str | Path, file: str | Path) -> Path:
    """Write the survey sheet of a result to one HTML file and return its path.

    Takes a Dataset of one instrument, a DataTree with one group an instrument, or the path of a saved survey.
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


def render(survey_or_path: xr.Dataset | xr.DataTree | str | Path) -> str:
    """The page as text; see `write_report`."""
    surveys = _datasets(survey_or_path)
    drawable = {name: data for name, data in surveys.items() if data.attrs.get("instrument") == "density"}
    if not drawable:
        found = words.listing([str(data.attrs.get("instrument", "nothing")) for data in surveys.values()]) or "nothing"
        raise UserError("survey", "a result of the instrument density", found, "run `theodolite density` first")
    sections = [density_section(data, key) for key, data in drawable.items()]
    attrs = next(iter(drawable.values())).attrs
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("theodolite.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = {section["key"]: {"figures": section["drawn"], "gallery": section["gallery"]} for section in sections}
    return environment.get_template("page.html.j2").render(
        title=str(attrs.get("model_name") or "a field"),
        facts=_facts(attrs, sections),
        sections=sections,
        others=sorted(set(surveys) - set(drawable)),
        style=_source(environment, "page.css"),
        script=_source(environment, "page.js"),
        plotly=Markup(plotly.offline.get_plotlyjs()),  # noqa: S704
        data=_embedded(script),
        settings=str(attrs.get("settings", "")),
        command=str(attrs.get("command", "")),
        citations=_listed(attrs.get("citations", "[]")),
        versions=_versions(attrs),
        model_hash=str(attrs.get("model_hash", "")),
    )


def _datasets(survey: xr.Dataset | xr.DataTree | str | Path) -> dict[str, xr.Dataset]:
    if isinstance(survey, xr.Dataset):
        return {str(survey.attrs.get("instrument", "survey")): survey}
    tree = open_survey(survey) if isinstance(survey, str | Path) else survey
    found = {node.path.strip("/"): node.to_dataset() for node in tree.subtree if node.has_data}
    return {path.replace("/", "-") or str(data.attrs.get("instrument", "survey")): data for path, data in found.items()}


def _source(environment: jinja2.Environment, name: str) -> Markup:
    if environment.loader is None:
        return Markup("")
    return Markup(environment.loader.get_source(environment, name)[0])  # noqa: S704


def _embedded(value: Any) -> Markup:
    # "<" never appears in the text, so that no string of a result can end the script element.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _facts(attrs: dict[Any, Any], sections: list[dict[str, Any]]) -> list[tuple[str, str]]:
    rows = [(head, str(attrs[name])) for head, name in _FACTS if str(attrs.get(name, ""))]
    sets = [f"{row['name']} ({row['count']})" for row in sections[0]["sets"]]
    if len(sets) > 6:
        rows.insert(2, ("data sets", f"{len(sets)}, listed below"))
    elif sets:
        rows.insert(2, ("data sets", ", ".join(sets)))
    effort = []
    if "evaluations" in attrs:
        effort.append(f"{int(attrs['evaluations']):,} evaluations")
    if "seconds" in attrs:
        effort.append(words.duration(float(attrs["seconds"])))
    if effort:
        rows.insert(-2, ("effort", " in ".join(effort)))
    if str(attrs.get("version", "")):
        rows.append(("theodolite", str(attrs["version"])))
    return rows


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
