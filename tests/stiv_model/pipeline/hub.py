"""A hub on loopback: the few answers of huggingface.co that loading a repository asks for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.parse import urlsplit

COMMIT = 40 * "a"


class Hub(NamedTuple):
    """Where it is, and what of its files it was asked for."""

    url: str
    fetched: set[str]


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[Hub]:
    """Serve folders as repositories `ORGANISATION/NAME`, each with one commit; others do not exist."""
    fetched: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            is_api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if is_api else parts[:2])
            if name not in repositories:
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
                return
            files = {
                p.relative_to(repositories[name]).as_posix(): p for p in repositories[name].rglob("*") if p.is_file()
            }
            if is_api and parts[4] == "tree":
                tree = [
                    {"type": "file", "path": path, "size": file.stat().st_size, "oid": _sha1(file)}
                    for path, file in sorted(files.items())
                ]
                self.answer(200, json.dumps(tree).encode())
            elif is_api:
                siblings = [{"rfilename": path} for path in sorted(files)]
                about = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
                self.answer(200, json.dumps(about).encode())
            elif (path := "/".join(parts[4:])) in files:
                if self.command == "GET":
                    fetched.add(path)
                etag = {"ETag": f'"{_sha1(files[path])}"', "X-Repo-Commit": COMMIT}
                self.answer(200, files[path].read_bytes(), etag)
            else:
                self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for header in (
                {"Content-Length": str(len(body)), "Content-Type": "application/json"} | (headers or {})
            ).items():
                self.send_header(*header)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Hub(f"http://127.0.0.1:{server.server_port}", fetched)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _sha1(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
