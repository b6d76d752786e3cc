"""A hub on loopback: the few answers of huggingface.co that loading and uploading a repository ask for."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = 40 * "a"
ORGANISATION, TOKEN, READING = "org", "hf_writes", "hf_reads"
"""Who may write with TOKEN; READING may only read."""


@dataclass
class Repository:
    """What was uploaded: content by path, of each branch and each commit."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        self.messages.append(message)
        oid = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid


@dataclass
class Hub:
    """Where it is, what it has, and what of its files it was asked for."""

    url: str
    folders: Mapping[str, Path]
    fetched: set[str] = field(default_factory=set)
    uploaded: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files, by sha256."""
    asked: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    """Status that an address with these words is answered with, once it is asked; 0 closes the connection."""

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return commit and content."""
        if name in self.folders:
            folder = self.folders[name]
            return COMMIT, {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        if (repository := self.uploaded.get(name)) is None:
            return None
        commit = repository.branches.get(revision, revision)
        return (commit, repository.commits[commit]) if commit in repository.commits else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.is_faulty():
            return
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "whoami-v2"]:
            self.whoami()
            return
        is_api = parts[:2] == ["api", "models"]
        name, rest = ("/".join(parts[2:4]), parts[4:]) if is_api else ("/".join(parts[:2]), parts[2:])
        repository = self.hub.uploaded.get(name)
        hidden = repository is not None and repository.private and self.role() is None
        if hidden or not (repository or name in self.hub.folders):
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return
        found = self.hub.files(name, rest[1] if len(rest) > 1 else "main")
        if found is None:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Revision not found"})
            return
        commit, files = found
        if is_api and rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in sorted(files.items())
            ]
            self.answer(200, json.dumps(tree).encode())
        elif is_api:
            siblings = [{"rfilename": path} for path in sorted(files)]
            about = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}
            self.say(about | {"private": repository is not None and repository.private})
        elif (path := "/".join(rest[2:])) in files:
            if self.command == "GET":
                self.hub.fetched.add(path)
            etag = {"ETag": f'"{hashlib.sha1(files[path]).hexdigest()}"', "X-Repo-Commit": commit}
            self.answer(200, files[path], etag)
        else:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.is_faulty():
            return
        self.hub.stored[self.path.rpartition("/")[2]] = body
        self.answer(200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.is_faulty():
            return
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.role() is None:
            self.answer(401, b'{"error": "Invalid username or password."}')
        elif parts == ["api", "validate-yaml"]:
            self.say({"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif parts[-1] == "batch":
            self.batch(json.loads(body))
        else:
            self.write("/".join(parts[2:4]), parts[4], parts[5], body)

    def role(self) -> str | None:
        return {f"Bearer {TOKEN}": "write", f"Bearer {READING}": "read"}.get(self.headers.get("Authorization", ""))

    def whoami(self) -> None:
        if (role := self.role()) is None:
            self.answer(401, b'{"error": "Invalid username or password."}')
        else:
            token = {"displayName": "mine", "role": role}
            self.say({"name": "someone", "type": "user", "orgs": [], "auth": {"accessToken": token}})

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != ORGANISATION or self.role() != "write":
            self.answer(403, b'{"error": "You have no rights to create a model under this namespace"}')
        elif name in self.hub.uploaded or name in self.hub.folders:
            said = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            self.answer(409, json.dumps(said).encode())
        else:
            repository = Repository("private" in (asked.get("visibility"), *(["private"] * bool(asked.get("private")))))
            repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
            self.hub.uploaded[name] = repository
            self.say({"url": f"{self.hub.url}/{name}"})

    def batch(self, asked: dict[str, Any]) -> None:
        """Say where large files go, as Git LFS does."""
        objects = [
            one | {"actions": {"upload": {"href": f"{self.hub.url}/stored/{one['oid']}"}}} for one in asked["objects"]
        ]
        self.say({"transfer": "basic", "objects": objects})

    def write(self, name: str, what: str, branch: str, body: bytes) -> None:
        repository = self.hub.uploaded[name]
        if self.role() != "write":
            self.answer(403, b'{"error": "Forbidden: write access required"}')
        elif what == "branch":
            if branch in repository.branches:
                self.answer(409, b'{"error": "Reference already exists"}')
            else:
                repository.branches[branch] = repository.branches["main"]
                self.say({})
        elif what == "preupload":
            modes = {True: "lfs", False: "regular"}
            files = [one["path"] for one in json.loads(body)["files"]]
            told = [{"path": p, "uploadMode": modes[p.endswith(".safetensors")], "shouldIgnore": False} for p in files]
            self.say({"files": told})
        else:
            self.commit(name, repository, branch, [json.loads(line) for line in body.splitlines()])

    def commit(self, name: str, repository: Repository, branch: str, lines: list[dict[str, Any]]) -> None:
        header, *changes = lines
        if header["value"].get("parentCommit") not in (None, repository.branches[branch]):
            self.answer(412, b'{"error": "A commit has happened since. Please refresh and try again."}')
            return
        files = dict(repository.commits[repository.branches[branch]])
        for change in changes:
            path, value = change["value"]["path"], change["value"]
            if change["key"] == "deletedFile":
                del files[path]
            else:
                is_large = change["key"] == "lfsFile"
                files[path] = self.hub.stored[value["oid"]] if is_large else base64.b64decode(value["content"])
        oid = repository.commit(branch, files, header["value"]["summary"])
        self.say({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def is_faulty(self) -> bool:
        self.hub.asked.append(f"{self.command} {self.path}")
        for words, status in self.hub.faults.items():
            if words in self.path:
                if status:
                    self.answer(status, b'{"error": "a fault"}')
                self.close_connection = True
                return True
        return False

    def say(self, content: dict[str, Any]) -> None:
        self.answer(200, json.dumps(content).encode())

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        told = {"Content-Length": str(len(body)), "Content-Type": "application/json"} | (headers or {})
        for header in told.items():
            self.send_header(*header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve folders as repositories `ORGANISATION/NAME`, each of one commit, and what is uploaded; nothing else."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.hub = here = Hub(f"http://127.0.0.1:{server.server_port}", repositories)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(patch: pytest.MonkeyPatch, url: str, token: str | None = None) -> None:
    """Let libraries of this process ask that hub, by that token."""
    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.setenv("HF_TOKEN", token) if token else patch.delenv("HF_TOKEN", raising=False)
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # it needs servers of its own; large files go by Git LFS
