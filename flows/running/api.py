"""Whether there is a Prefect server that shows a run: the work does not depend on one."""

import base64
import json
from http.client import InvalidURL
from socket import create_connection
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from prefect.settings import get_current_settings

from stiv_model.errors.redaction import redact

_SECONDS = 3.0
_BUSY_SECONDS = 30.0
"""For a server that accepts and is slow: it may start, or share a busy machine."""
_BYTES = 1000


def trouble() -> str | None:
    """Ask the server that PREFECT_API_URL, or a profile, names; return in one line why it shows nothing.

    Returns:
        None where it answers, an empty line where none is named.
    """
    settings = get_current_settings().api
    if settings.url is None:
        return ""
    named = urlsplit(settings.url)
    user, _, host = named.netloc.rpartition("@")
    place = f"PREFECT_API_URL names {urlsplit(redact(settings.url)).netloc.rpartition('@')[2] or 'no host'}"
    # urllib takes what stands before the host for a part of it, and says so
    asked = Request(f"{urlunsplit(named._replace(netloc=host)).rstrip('/')}/admin/version")
    if settings.key is not None:
        asked.add_header("Authorization", f"Bearer {settings.key.get_secret_value()}")
    elif said := settings.auth_string.get_secret_value() if settings.auth_string else unquote(user):
        asked.add_header("Authorization", f"Basic {base64.b64encode(said.encode()).decode()}")
    try:
        with _answer(asked, named.hostname, named.port) as answer:
            if isinstance(json.loads(answer.read(_BYTES)), str):
                return None
        return f"{place}, which is no server of Prefect: check the address"
    except HTTPError as error:
        remedy = "PREFECT_API_AUTH_STRING" if error.code in (401, 403) else "the address, which ends in /api"
        return f"{place}, which answers {error.code}: check {remedy}"
    except json.JSONDecodeError:
        return f"{place}, which is no server of Prefect: check the address"
    except (OSError, ValueError, InvalidURL):
        return f"{place}, where no server answers: start it, or unset PREFECT_API_URL"


def _answer(asked: Request, host: str | None, port: int | None) -> Any:
    """Ask for seconds, and for longer where somebody listens.

    Raises:
        OSError: nobody answers.
    """
    try:
        return urlopen(asked, timeout=_SECONDS)
    except HTTPError:
        raise
    except OSError:
        if port is None:
            raise
        with create_connection((host, port), timeout=_SECONDS):
            pass
        return urlopen(asked, timeout=_BUSY_SECONDS)
