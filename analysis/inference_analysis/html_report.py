"""A verdict as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import jinja2

from inference_analysis import drawing
from inference_analysis.wording import effect, moment, number, points, share, title

if TYPE_CHECKING:
    from collections.abc import Mapping


def page(document: Mapping[str, Any]) -> str:
    """The page of a verdict document that has ``figures``; equal documents give equal bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("inference_analysis", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {f.__name__: f for f in (effect, moment, number, points, share)}
    found = document["figures"]
    pods = found["pods"]
    draw = drawing.styled
    plain = {key: value for key, value in document.items() if key != "figures"}
    return environment.get_template("report.html.j2").render(
        document=document,
        title=title(document),
        forest=draw(lambda: [drawing.forest(document["gates"])])[0],
        pods=draw(lambda: [drawing.pods(entry, i) for i, entry in enumerate(pods)]),
        distributions=draw(partial(drawing.distributions, found["distributions"])),
        paths=draw(partial(drawing.paths, found["paths"], found["looks"])),
        boundary=draw(lambda: [drawing.boundary(found["boundary"])])[0],
        json=json.dumps(plain, indent=2, sort_keys=True),
    )
