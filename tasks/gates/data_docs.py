"""Great Expectations' Data Docs, made to open whole without a network."""

import ast
import html
import re
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from stiv_model import package_files

DOCS_INDEX = "index.html"
"""Of the Data Docs of a gate: the page to begin with."""

# What pages would fetch from a CDN: its name in the URL, the installed package that carries it, and where.
_CARRIED = {
    "bootstrap.min.css": ("flask_bootstrap", "static/bootstrap4/css/bootstrap.min.css"),
    "bootstrap.min.js": ("flask_bootstrap", "static/bootstrap4/js/bootstrap.min.js"),
    "jquery-3.7.1.min.js": ("flask_bootstrap", "static/bootstrap4/jquery.min.js"),
    "popper.min.js": ("flask_bootstrap", "static/bootstrap4/umd/popper.min.js"),
    "all.min.css": ("fontawesomefree", "static/fontawesomefree/css/all.min.css"),
}
# The stylesheet of the icons asks for ../webfonts.
_ICON_FONTS = ("fontawesomefree", "static/fontawesomefree/webfonts")


def localise(docs: Path) -> None:
    """Make the pages below `docs` open whole without a network.

    Installed packages' files take the place of CDN addresses. What no package carries goes (the logo,
    sorting of tables); rows that a script would have drawn are written into the page.

    Raises:
        FileNotFoundError: a package that carries the files is not installed.
    """
    assets = docs / "assets"
    for name, source in _CARRIED.items():
        target = assets / ("css" if name.endswith(".css") else "js") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_carried(*source), target)
    (assets / "webfonts").mkdir()
    for font in sorted(_carried(*_ICON_FONTS).glob("*.woff2")):
        shutil.copyfile(font, assets / "webfonts" / font.name)
    for page in sorted(docs.rglob("*.html")):
        up = "../" * (len(page.relative_to(docs).parts) - 1)
        page.write_text(_localise_page(page.read_text(), f"{up}assets"))
    shutil.rmtree(docs / "static")  # fonts and pictures for the documentation of Great Expectations


def _carried(package: str, path: str) -> Path:
    for place in package_files.places(package, path):
        if place.exists():
            return place
    raise FileNotFoundError(f"package {package} with {path} is not installed: run make setup")


def _localise_page(page: str, assets: str) -> str:
    def resource(tag: re.Match[str]) -> str:
        name = PurePosixPath(urlsplit(tag["url"]).path).name
        if name not in _CARRIED:
            return ""
        if name.endswith(".css"):
            return f'<link rel="stylesheet" href="{assets}/css/{name}">'
        return f'<script src="{assets}/js/{name}"></script>'

    page = re.sub(r'<script\b[^>]*\bsrc="(?P<url>[^"]*)"[^>]*>\s*</script>', resource, page)
    page = re.sub(r'<link\b[^>]*\bhref="(?P<url>[^"]*)"[^>]*>', resource, page)
    page = re.sub(r"<img\b[^>]*>", "Data Docs", page)  # the logo, within the link to the first page
    page = re.sub(r"<footer\b.*?</footer>", "", page, flags=re.DOTALL)  # an invitation to a newsletter
    page = re.sub(r'<button\b[^>]*onclick="clearTableFilters.*?</button>', "", page, flags=re.DOTALL)
    for script in re.findall(r"<script>.*?</script>", page, flags=re.DOTALL):
        if drawn := re.search(r"\$\('#(\S+?)'\)\.bootstrapTable\(", script):
            page = page.replace(script, "")
            empty = re.search(rf'<table\s+id="{drawn[1]}"[^>]*>', page)
            assert empty is not None, f"no table {drawn[1]} to draw"
            page = page[: empty.end()] + _rows(script) + page[empty.end() :]
        elif "bootstrapTable" in script or "vegaEmbed" in script:
            page = page.replace(script, "")
    return page


def _rows(script: str) -> str:
    """Return what a call of bootstrapTable would draw; columns and data are Python literals there."""
    columns, data = map(ast.literal_eval, re.findall(r"^\s*(?:columns|data): (\[.*\]),?$", script, flags=re.MULTILINE))
    lines = ["".join(f"<th>{html.escape(column['title'])}</th>" for column in columns)]
    for row in data:
        cells = [row.get(column["field"], "") for column in columns]
        link = row["_table_row_link_path"]
        cells = [cell if "<a " in cell else f'<a href="{link}">{cell}</a>' for cell in cells]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    return "".join(f"<tr>{line}</tr>" for line in lines)
