"""A hub for the tests: a server on 127.0.0.1 with the requests that huggingface_hub makes.

It logs its requests, and can be broken, gated, mute, or fail as `Hub.fault` says.

Run its users: pytest tests/test_hub.py; pytest -m faults tests/test_faults_hub.py
"""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Files = Mapping[str, bytes]

# /api/models/owner/name[/revision/main | /tree/main], and /[datasets/]owner/name/resolve/main/file
API = re.compile(r"/api/(model|dataset)s/([^/]+(?:/[^/]+)??)(?:/(revision|tree)/([^/]+))?")
FILE = re.compile(r"/(datasets/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)")


def files_of(folder: Path) -> dict[str, bytes]:
    """Read a folder into the form that `Hub.add` takes."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def commit_of(files: Files) -> str:
    """Return 40 hex digits for these files, like a commit."""
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name] + b"\0")
    return digest.hexdigest()


class Hub:
    """Repositories by (kind, name), their revisions by name, and a log of all requests."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], dict[str, Files]] = {}
        self.log: list[str] = []
        self.gated: set[str] = set()
        self.broken = False
        self.missing_status = 404
        self.gated_status = 403
        self.ranges: list[str] = []
        self.agents: set[str] = set()
        # Called with "info", "tree", "HEAD name" or "GET name", and the content to send. Returns
        # True if it has answered instead.
        self.fault: Callable[[Handler, str, bytes], bool] = lambda *_: False
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, kind: str, name: str, files: Files, revision: str = "main") -> str:
        """Serve files under a branch and under their commit; returns the commit."""
        commit = commit_of(files)
        self.repositories.setdefault((kind, name), {}).update({revision: files, commit: files})
        return commit

    def downloads(self) -> set[str]:
        """Return the names of the files whose content was fetched."""
        found = (re.fullmatch(rf"GET {FILE.pattern}", line) for line in self.log)
        return {match[4] for match in found if match}

    def stop(self) -> None:
        """Close the port: new connections are refused."""
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request: the list of a repository's files, or one file."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.hub.log.append(f"{self.command} {path}")
        self.hub.agents.add(self.headers["User-Agent"] or "")
        if self.hub.broken:
            return self.answer(503, b"")
        api, file = API.fullmatch(path), FILE.fullmatch(path)
        if api:
            kind, name, what, revision = api.groups()
        elif file:
            kind, name, revision = "dataset" if file[1] else "model", file[2], file[3]
        else:
            return self.answer(404, b"")
        revisions = self.hub.repositories.get((kind, name))
        if revisions is None:
            return self.refuse(self.hub.missing_status, "RepoNotFound")
        # The hub shows a gated repository's list to everybody, its files only to users with access.
        if name in self.hub.gated and file:
            return self.refuse(self.hub.gated_status, "GatedRepo")
        files = revisions.get(unquote(revision or "main"))  # refs/pr/1 comes as refs%2Fpr%2F1
        if files is None:
            return self.refuse(404, "RevisionNotFound")
        commit = {"X-Repo-Commit": commit_of(files)}
        if file and file[4] not in files:
            return self.refuse(404, "EntryNotFound", commit)
        if file:
            content, request = files[file[4]], f"{self.command} {file[4]}"
            headers = {"ETag": f'"{digest(content)}"', **commit}
        else:
            listed = [(path, len(content)) for path, content in files.items()]
            tree = [
                {"type": "file", "path": path, "size": size, "oid": digest(files[path])}
                for path, size in listed
            ]
            siblings = [{"rfilename": path, "size": size} for path, size in listed]
            info = {"id": name, "sha": commit["X-Repo-Commit"], "siblings": siblings}
            content = json.dumps(tree if what == "tree" else info).encode()
            request, headers = "tree" if what == "tree" else "info", {}
        if not self.hub.fault(self, request, content):
            self.answer(200, content, headers)

    do_HEAD = do_GET

    def refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, b"", {"X-Error-Code": code, **(headers or {})})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send the body, or its end from the requested byte."""
        headers = headers or {}
        if status == 200 and (requested := self.headers["Range"]):
            self.hub.ranges.append(requested)
            start, end = int(requested.removeprefix("bytes=").rstrip("-")), len(body)
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{end}"}
            status, body = 206, body[start:]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing: `Hub.log` has the requests."""


class MuteHub:
    """A port that accepts connections and never answers, as in a broken network."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __enter__(self) -> "MuteHub":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def digest(content: bytes) -> str:
    """Return the hash by which the cache names a file's content."""
    return hashlib.sha1(content).hexdigest()
