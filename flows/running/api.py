"""Whether there is a Prefect server that shows a run: the work does not depend on one."""

import base64
import json
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from prefect.settings import get_current_settings

_SECONDS = 3.0
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
    # without user and password, which may stand in front of it
    place = f"PREFECT_API_URL names {named.netloc.rpartition('@')[2] or 'no host'}"
    asked = Request(f"{settings.url.rstrip('/')}/admin/version")
    if settings.key is not None:
        asked.add_header("Authorization", f"Bearer {settings.key.get_secret_value()}")
    elif settings.auth_string is not None:
        packed = base64.b64encode(settings.auth_string.get_secret_value().encode()).decode()
        asked.add_header("Authorization", f"Basic {packed}")
    try:
        with urlopen(asked, timeout=_SECONDS) as answer:
            if isinstance(json.loads(answer.read(_BYTES)), str):
                return None
        return f"{place}, which is no server of Prefect: check the address"
    except HTTPError as error:
        remedy = "PREFECT_API_AUTH_STRING" if error.code in (401, 403) else "the address, which ends in /api"
        return f"{place}, which answers {error.code}: check {remedy}"
    except json.JSONDecodeError:
        return f"{place}, which is no server of Prefect: check the address"
    except (OSError, ValueError):
        return f"{place}, where no server answers: start it, or unset PREFECT_API_URL"
