"""A model hub on this machine: a real HTTP server with what the hub's client uses of its protocol.

Commits, trees and branches as the hub has them; small files in the commit, others by LFS. A test can make
it slow, let it fail, or look at the requests it got.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.bundles import ROOT

TOKEN = "hf_" + "s3cr3t" * 6
#: Files of this size and larger go by LFS, unless they are text.
LFS_BYTES = 20_000


@dataclass
class Repository:
    """Commits by name, each with its files; branches, and who may see them."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit whose tree is exactly these files."""
        seed = json.dumps([len(self.commits), branch, *sorted(files)]).encode()
        name = hashlib.sha1(seed + b"".join(files[k] for k in sorted(files))).hexdigest()
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


@dataclass(frozen=True)
class Failure:
    """What to answer instead: a status, or nothing at all (0), to paths that have a text in them."""

    status: int
    path: str = ""
    method: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


class Hub:
    """The hub's state.

    Attributes:
        repositories: By "OWNER/NAME".
        requests: Method, path and range of each request.
        failures: What fails.
        stalls_after: Bytes of a body after which it waits until ``goes_on`` is set; None for none.
        sizes: Whether it tells the sizes of files.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.authorizations: set[str | None] = set()
        self.failures: list[Failure] = []
        self.stalls_after: int | None = None
        self.goes_on = threading.Event()
        self.sizes = True
        self.before_commit: Callable[[], None] | None = None
        self.url = ""

    def add(self, name: str, files: Mapping[str, bytes], **options: Any) -> str:
        """A repository with one commit; returns the commit's name."""
        repository = self.repositories.setdefault(name, Repository(**options))
        return repository.commit(files)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Variables with which huggingface_hub asks this hub and keeps everything below ``home``."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **more,
        }

    def paths(self, method: str = "GET") -> list[str]:
        return [path for one, path, _ in self.requests if one == method]


#: Runs commands one after the other in one process, which loads the hub's client once.
_DRIVER = """
import contextlib, io, json, os, sys, time
time.sleep = lambda seconds: None  # the client's patience with servers that fail is half a minute
from edge_mrl.cli import main
before = dict(os.environ)
for line in sys.stdin:
    job = json.loads(line)
    os.environ.clear()
    os.environ.update(before, **job["env"])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if isinstance(job["run"], str):
                exec(job["run"], {"__name__": "driven"})
                code = 0
            else:
                code = main(job["run"])
        except SystemExit as ended:
            code = ended.code
    sys.__stdout__.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\\n")
    sys.__stdout__.flush()
"""


@dataclass(frozen=True)
class Said:
    """What a command has ended with, and printed."""

    code: int
    out: str
    err: str


class Driver:
    """A process that asks a hub, with its own home for each call if that is wanted."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )

    def __call__(self, *arguments: object, **env: str) -> Said:
        return self._ask([str(one) for one in arguments], env)

    def python(self, code: str, **env: str) -> Said:
        return self._ask(textwrap.dedent(code), env)

    def _ask(self, job: list[str] | str, env: Mapping[str, str]) -> Said:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"run": job, "env": env}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the driver has ended"
        return Said(*json.loads(line))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def files_of(bundle: Path) -> dict[str, bytes]:
    """A bundle's files by name."""
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """Serve a hub on the loopback until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        state = hub

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._chunks()
        else:
            self.body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((method, path, self.headers.get("Range")))
        self.state.authorizations.add(self.headers.get("Authorization"))
        for failure in self.state.failures:
            if failure.path in path and failure.method in ("", method):
                self.close_connection = True
                if failure.status:
                    self._send(
                        failure.status, failure.body, {**failure.headers, "Connection": "close"}
                    )
                return
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            self._api(method, parts[1:])
        elif parts[0] == "lfs":
            self._lfs(method, parts[1])
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch()
        elif len(parts) > 4 and parts[2] == "resolve":
            self._resolve(method, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._error(404, "EntryNotFound")

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        sent = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)

    def _write(self, body: bytes) -> None:
        first = self.state.stalls_after
        try:
            self.wfile.write(body[:first])
            if first is not None and len(body) > first:
                self.wfile.flush()
                self.state.goes_on.wait(60)
                self.wfile.write(body[first:])
        except OSError:  # the client was killed
            self.close_connection = True

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode())

    def _error(self, status: int, code: str, message: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message or code})

    def _seen(self, name: str) -> Repository | None:
        """A repository that the asker may see; says so if there is none."""
        repository = self.state.repositories.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            self._error(404 if known else 401, "RepoNotFound")
            return None
        return repository

    def _api(self, method: str, parts: list[str]) -> None:
        if parts[0] == "validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif method == "GET" and parts[0] == "models":
            self._info("/".join(parts[1:3]), "/".join(parts[4:]) or "main")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(401, "", "Invalid username or password.")
        elif parts[:2] == ["repos", "create"]:
            self._create(json.loads(self.body))
        elif parts[3] == "branch":
            self._branch("/".join(parts[1:3]), "/".join(parts[4:]))
        elif parts[3] == "preupload":
            self._preupload(json.loads(self.body))
        elif parts[3] == "commit":
            self._commit("/".join(parts[1:3]), "/".join(parts[4:]))
        else:
            self._error(404, "")

    def _info(self, name: str, revision: str) -> None:
        if (repository := self._seen(name)) is None:
            return
        commit = repository.find(revision)
        if commit is None:
            self._error(404, "RevisionNotFound")
            return
        siblings = [
            {"rfilename": file, **({"size": len(data)} if self.state.sizes else {})}
            for file, data in repository.commits[commit].items()
        ]
        about = {"id": name, "modelId": name, "sha": commit, "private": repository.private}
        self._json({**about, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})

    def _resolve(self, method: str, name: str, revision: str, file: str) -> None:
        if (repository := self._seen(name)) is None:
            return
        commit = repository.find(revision)
        if commit is None or file not in repository.commits[commit]:
            self._error(404, "RevisionNotFound" if commit is None else "EntryNotFound")
            return
        data = repository.commits[commit][file]
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not _is_lfs(data):
            headers["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
            self._bytes(data, headers)
            return
        digest = hashlib.sha256(data).hexdigest()
        self.state.blobs[digest] = data
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        # Elsewhere, as the hub's own store of large files is.
        elsewhere = self.state.url.replace("127.0.0.1", "localhost")
        headers |= {"Location": f"{elsewhere}/lfs/{digest}", "Content-Type": "text/plain"}
        self._send(302, b"" if method == "HEAD" else b"Found", headers)

    def _bytes(self, data: bytes, headers: Mapping[str, str]) -> None:
        asked = self.headers.get("Range", "")
        start, _, end = asked.removeprefix("bytes=").partition("-")
        if asked and start:
            last = int(end) if end else len(data) - 1
            part = data[int(start) : last + 1]
            span = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
            self._send(206, part, {**headers, "Content-Range": span})
        else:
            self._send(200, data, headers)

    def _lfs(self, method: str, digest: str) -> None:
        if method == "PUT":
            if hashlib.sha256(self.body).hexdigest() != digest:
                self._error(422, "")
                return
            self.state.blobs[digest] = self.body
            self._send(200)
        else:
            self._bytes(self.state.blobs[digest], {"ETag": f'"{digest}"'})

    def _batch(self) -> None:
        asked = json.loads(self.body)
        objects = []
        for one in asked["objects"]:
            upload = {"href": f"{self.state.url}/lfs/{one['oid']}", "header": {}}
            objects.append({**one, "authenticated": True, "actions": {"upload": upload}})
        self._json({"transfer": "basic", "objects": objects})

    def _create(self, asked: Mapping[str, Any]) -> None:
        name = (
            f"{asked['organization']}/{asked['name']}"
            if asked.get("organization")
            else asked["name"]
        )
        there = name in self.state.repositories
        if not there:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.state.add(name, {".gitattributes": b"*.data filter=lfs\n"}, private=bool(private))
        self._json(
            {"url": f"{self.state.url}/{name}", "name": name, "id": name}, 409 if there else 200
        )

    def _branch(self, name: str, branch: str) -> None:
        repository = self.state.repositories[name]
        there = branch in repository.branches
        repository.branches.setdefault(branch, repository.branches["main"])
        self._json({}, 409 if there else 201)

    def _preupload(self, asked: Mapping[str, Any]) -> None:
        files = []
        for one in asked["files"]:
            sample = base64.b64decode(one["sample"])
            lfs = one["size"] >= LFS_BYTES and b"\0" in sample
            mode = "lfs" if lfs else "regular"
            files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False})
        self._json({"files": files})

    def _commit(self, name: str, branch: str) -> None:
        if self.state.before_commit is not None:
            self.state.before_commit()
        repository = self.state.repositories[name]
        lines = [json.loads(line) for line in self.body.splitlines()]
        head = repository.branches[branch]
        parent = next(one["value"] for one in lines if one["key"] == "header").get("parentCommit")
        if parent not in (None, head):
            self._error(412, "", "A commit has happened since. Please refresh and try again.")
            return
        files = dict(repository.commits[head])
        for one in lines:
            value = one["value"]
            if one["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                files[value["path"]] = self.state.blobs[value["oid"]]
            elif one["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files, branch)
        url = f"{self.state.url}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


def _is_lfs(data: bytes) -> bool:
    return len(data) >= LFS_BYTES and b"\0" in data[:512]
