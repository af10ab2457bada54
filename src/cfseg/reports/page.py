"""A page is one file: style, scripts and data are inside, and nothing else may be loaded.

The content security policy names the hash of each script and style that the page brings along and
allows nothing beside them, so neither a name that was meant as markup nor anything else can run,
and no request can leave.
"""

import base64
import json
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cfseg.labels import LABELS
from cfseg.tables import shown

_POLICY = (
    "default-src 'none'; img-src data:; font-src data:; connect-src data:; form-action 'none'; "
    "base-uri 'none'; script-src {scripts}; style-src {styles}"
)


def render(template: str, scripts: tuple[str, ...] = (), **values: object) -> str:
    """Return a page.

    Args:
        template: its name in ``templates``.
        scripts: the text of each script, run in this order.
        values: what the template shows; all of it is escaped, and control characters are shown.
    """
    style = _style()
    policy = _POLICY.format(
        scripts=" ".join(map(_source, scripts)) or "'none'", styles=_source(style)
    )
    return _environment().get_template(template).render(
        policy=policy, style=style, scripts=scripts, **values
    )  # fmt: skip


def data_block(values: object) -> str:
    """Return values as JSON that may stand inside a ``script`` element."""
    text = json.dumps(values, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def data_url(content: bytes, kind: str) -> str:
    """Return content as a URL that holds it, for example of kind ``image/png``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@cache
def viewer_scripts() -> tuple[str, ...]:
    """Return the scripts of the viewer: NiiVue and what drives it."""
    return _text("vendored/niivue/niivue.umd.js"), _text("static/viewer.js")


@cache
def viewer_license() -> Markup:
    """Return NiiVue's license, which every page that carries it has to show, line by line."""
    return escape(_text("vendored/niivue/LICENSE"))


@cache
def _style() -> str:
    colors = "\n".join(
        f".label-{label.id} {{ --label: rgb{label.color}; }}"
        for label in LABELS
    )  # fmt: skip
    return f"{_text('static/report.css')}\n{colors}\n"


def _text(name: str) -> str:
    """Return a file of this room as a browser will read it inside of a page."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    ending = ("</style",) if name.endswith(".css") else ("</script", "<!--")
    if any(end in text.lower() for end in ending):
        raise ValueError(f"{name} would end the element that holds it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _source(text: str) -> str:
    """Return a script's or style's source expression: the hash of its text."""
    digest = base64.b64encode(sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cfseg.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    environment.filters["number"] = _number
    return environment


def _shown(value: object) -> object:
    """Return what a template inserts: what is not seen, as in foreign text, as escapes."""
    return value if isinstance(value, Markup) else shown(str(value))


def _number(value: Any, digits: int = 1) -> str:  # noqa: ANN401 - whatever a record holds
    """Return a figure with a fixed number of digits, or a dash where there is none."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "–"
