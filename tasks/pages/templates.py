"""The templates of pages, opened in one way."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from tasks.pages.hidden_signs import visible


def template(name: str, filters: Mapping[str, Callable[..., Any]] | None = None) -> jinja2.Template:
    """Open a template of this folder: what nobody marked as markup is escaped, and a name without a value is an error.

    Args:
        name: of the file; in one that is not HTML nothing is escaped.
        filters: of its own, beside `visible`.
    """
    is_html = name.endswith(".html.jinja")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=is_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not is_html,
    )
    environment.filters |= {"visible": visible, **(filters or {})}
    return environment.get_template(name)
