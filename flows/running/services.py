"""The web services that we start, as programs: `python -m flows.running.services NAME PORT`. All stand behind a guard.

They listen on the loopback interface. Secrets come in the environment, which other users of the machine cannot read.
"""

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial

from flows.running.web_guard import App, WebGuard

TOKEN = "STIV_SERVICE_TOKEN"
_STREAMLIT = {
    "server.headless": True,
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "server.baseUrlPath": "",  # whatever a configuration in the home folder says, as the next two
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
}


def prefect_server(port: int) -> App:
    """Return Prefect's server with its UI; who may use the API, Prefect itself checks (its authentication string)."""
    from prefect.server.api.server import create_app

    return WebGuard(create_app(final=True), port)


def page(script: str, port: int) -> App:
    """Return a page of Streamlit; who has the token may see it.

    Args:
        script: its module, of the package `flows`, which is imported now: that takes seconds, and nobody waits yet.
    """
    from streamlit import config
    from streamlit.starlette import App as StreamlitApp

    for name, value in _STREAMLIT.items():
        config.set_option(name, value)
    config.set_option("server.port", port)
    module = importlib.import_module(f"flows.{script}")
    return WebGuard(StreamlitApp(str(module.__file__)), port, os.environ[TOKEN])


SERVICES: dict[str, Callable[[int], App]] = {
    "prefect": prefect_server,
    "browse": partial(page, "commands.browse_page"),
    "studio": partial(page, "commands.studio_page"),
}


def main(name: str, port: str) -> None:
    import uvicorn

    level = os.environ.get("PREFECT_SERVER_LOGGING_LEVEL", "warning").lower()
    app = SERVICES[name](int(port))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=int(port), workers=1, log_level=level, access_log=False, proxy_headers=False
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
