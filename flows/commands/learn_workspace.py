"""A workspace of its own beside that of the demo: the same code and stages, other settings, and data of its own.

Code and settings are links, so that there is one of each; what stages make lies in the folder.
"""

import os
from pathlib import Path

from flows import stages
from flows.params import PARAMS, load_params

_DVC_YAML = Path("dvc.yaml")
_CODE = (
    _DVC_YAML,
    *map(Path, (".dvcignore", "pyproject.toml", "flows", "tasks", "stiv_model", "prompts", "audits", "infra")),
)
"""What a workspace has of the code: Prefect has its settings in pyproject.toml, and verbs the sizes in infra/params."""


def prepare(folder: Path, params: Path) -> None:
    """Make the folder a workspace in which the stages of this one run with other settings, unless it is one already.

    Args:
        params: the file of settings; paths in it are looked up from `folder`.

    Raises:
        FileNotFoundError: there is no such file of settings, or this is not the top of the repository.
        ValueError: settings are wrong, or the folder is something else, or was made for other settings or code; nothing
            was touched.
    """
    load_params(params)
    links = {folder / name: name for name in _CODE} | {folder / PARAMS: params}
    if absent := [str(name) for name in links.values() if not name.exists()]:
        raise FileNotFoundError(f"{absent[0]} does not exist here: run stiv at the top of the repository")
    _refuse_other_folder(folder)
    for link, target in links.items():
        _refuse_other_file(link, target)
    folder.mkdir(parents=True, exist_ok=True)
    for link, target in links.items():  # dvc.yaml first: by it the folder is known
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(target.resolve(), folder.resolve()))
    (folder / ".gitignore").write_text("*\n")
    stages.make_workspace(folder)


def _refuse_other_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--folder {folder} is a file: name a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _DVC_YAML).is_symlink():
        raise ValueError(f"--folder {folder} holds something that stiv learn did not make: name a new folder")


def _refuse_other_file(link: Path, target: Path) -> None:
    if link.is_symlink():
        if link.resolve() != target.resolve():
            raise ValueError(
                f"{link} leads to {link.resolve()}, and not to {target}: name another --folder for that, or delete "
                f"{link}, and what has changed is made again"
            )
    elif link.exists():
        raise ValueError(
            f"{link} is a copy, and must be a link to {target}: change settings there, or name a file of your own by "
            f"--params with a --folder of its own; delete {link} to go on"
        )
