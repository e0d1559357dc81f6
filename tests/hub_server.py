"""A hub for the tests: a server on 127.0.0.1 with the requests that huggingface_hub makes.

It logs its requests, and can be broken, gated, mute, or fail as `Hub.fault` says. A token in
`Hub.owners` may write.

Run its users: pytest -m 'faults or not faults' tests/test_*hub.py tests/test_push.py
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Files = Mapping[str, bytes]

# /api/models/owner/name[/revision/main | /tree/main], and /[datasets/]owner/name/resolve/main/file
API = re.compile(r"/api/(model|dataset)s/([^/]+(?:/[^/]+)??)(?:/(revision|tree)/([^/]+))?")
FILE = re.compile(r"/(datasets/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)")
# /api/models/owner/name/commit/main, and where large files are announced
WRITE = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|branch|commit)/([^/]+)")
LARGE = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")


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
        self.owners: dict[str, str] = {}  # by token
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}  # uploaded files by sha256
        # Called with "info", "tree", "HEAD name" or "GET name", and the content to send; with
        # "PUT", and the content that has come. Returns True if it has answered instead.
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
            info["private"] = name in self.hub.private
            content = json.dumps(tree if what == "tree" else info).encode()
            request, headers = "tree" if what == "tree" else "info", {}
        if not self.hub.fault(self, request, content):
            self.answer(200, content, headers)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path, data = self.path_and_lines()
        write, large = WRITE.fullmatch(path), LARGE.fullmatch(path)
        if path == "/api/validate-yaml":
            wrong = "not: valid: YAML" in data[0]["content"]
            errors = [{"message": "is not YAML"}] * wrong
            return self.answer_json({"errors": errors}, 400 if wrong else 200)
        found = write or large
        name = found[1] if found else f"{data[0]['organization']}/{data[0]['name']}"
        owner = self.hub.owners.get((self.headers["Authorization"] or "").removeprefix("Bearer "))
        if owner != name.partition("/")[0]:
            return self.refuse(401 if owner is None else 403, "")
        if path == "/api/repos/create":
            return self.create(name, private=data[0].get("visibility") == "private")
        if large:
            objects = [{**x, "actions": self.upload(x["oid"])} for x in data[0]["objects"]]
            return self.answer_json({"transfer": "basic", "objects": objects})
        assert write
        what, revision = write[2], unquote(write[3])
        files = dict(self.hub.repositories["model", name].get(revision, {}))
        if what == "preupload":
            modes = {
                x["path"]: "lfs" if x["size"] > 10_000 else "regular" for x in data[0]["files"]
            }
            listed = [{"path": x, "uploadMode": modes[x], "shouldIgnore": False} for x in modes]
            return self.answer_json({"files": listed})
        for line in data[1:]:  # of a commit, after its header
            value = line["value"]
            if line["key"] == "deletedFile":
                del files[value["path"]]
                continue
            small = line["key"] == "file"
            content = base64.b64decode(value["content"]) if small else self.hub.large[value["oid"]]
            files[value["path"]] = content
        commit = self.hub.add("model", name, files, revision)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self.answer_json({"commitUrl": url, "commitOid": commit})

    def do_PUT(self) -> None:
        path = urlsplit(self.path).path
        self.hub.log.append(f"PUT {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.hub.fault(self, "PUT", body):
            self.hub.large[path.removeprefix("/large/")] = body
            self.answer(200, b"")

    def path_and_lines(self) -> tuple[str, list[Any]]:
        """Log a POST, and read the lines of JSON that it sends."""
        path = urlsplit(self.path).path
        self.hub.log.append(f"POST {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        return path, [json.loads(line) for line in body.splitlines()]

    def create(self, name: str, *, private: bool) -> None:
        """Make an empty repository, unless it is there."""
        is_new = ("model", name) not in self.hub.repositories
        if is_new:
            self.hub.add("model", name, {})
            self.hub.private |= {name} if private else set()
        self.answer_json({"url": f"{self.hub.url}/{name}"}, 200 if is_new else 409)

    def upload(self, oid: str) -> dict[str, dict[str, str]]:
        """Say where a large file goes."""
        return {"upload": {"href": f"{self.hub.url}/large/{oid}"}}

    def answer_json(self, data: object, status: int = 200) -> None:
        self.answer(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

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
