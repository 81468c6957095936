"""A Hub on 127.0.0.1: as much of its protocol as the real client needs to pull and push.

Model info, files with redirects to a store and ranges, repositories, LFS uploads, commits. A test
sets what goes wrong: see `Hub`.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"
LARGE = (".safetensors", ".bin")
BLOCK = 1 << 16


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass
class Hub:
    """What lies on the server, what it is asked to do wrong, and what it was asked.

    Attributes:
        repositories: By OWNER/NAME, commits in order: (revision, {file: content}).
        private: Repositories that don't exist for others than the owner.
        gated: Repositories whose terms nobody accepted.
        cut_after: By file: the connection breaks after so many bytes; removed one by one.
        corrupt: By file: bytes served in place of the right ones.
        status: An answer to everything, such as 503.
        no_ranges: Ranges are ignored, as some proxies do.
        bad_card: What the Hub has against every card.
        requests: METHOD path, in order; ranges are appended.
    """

    repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    corrupt: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    no_ranges: bool = False
    bad_card: str = ""
    requests: list[str] = field(default_factory=list)
    store: dict[str, bytes] = field(default_factory=dict)
    address: str = ""

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Put files on top of a repository; returns the revision."""
        history = self.repositories.setdefault(repository, [])
        merged = {**(history[-1][1] if history else {}), **files}
        digest = hashlib.sha1(repr((len(history), sorted(merged.items()))).encode())
        history.append((digest.hexdigest(), merged))
        return digest.hexdigest()

    def find(self, repository: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a revision names."""
        history = self.repositories.get(repository, [])
        if revision in (None, "main"):
            return history[-1] if history else None
        return next((commit for commit in history if commit[0] == revision), None)


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._read()

    def do_GET(self) -> None:
        self._read()

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    def log_message(self, *args: Any) -> None:
        pass

    # -- reading ---------------------------------------------------------------------------------

    def _read(self) -> None:
        path = self._begin()
        if path is None:
            return
        if match := re.fullmatch(r"/store/(\w+)/(.+)", path):
            self._content(self.hub.store[match[1]], match[2], {})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if commit := self._commit(match[1], match[2]):
                self._info(match[1], *commit)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if commit := self._commit(match[1], match[2]):
                self._file(*commit, match[3])
        else:
            self._answer(404, {"error": f"no route {path}"})

    def _commit(self, repository: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """The commit asked for; None when an error was answered."""
        owner = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository in self.hub.gated:
            return self._answer(401, {}, {"X-Error-Code": "GatedRepo"})
        if repository not in self.hub.repositories or (
            repository in self.hub.private and not owner
        ):
            return self._answer(404 if owner else 401, {}, {"X-Error-Code": "RepoNotFound"})
        commit = self.hub.find(repository, revision)
        if commit is None:
            return self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _info(self, repository: str, revision: str, files: dict[str, bytes]) -> None:
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": blob_id(content),
                **(
                    {"lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 134}}
                    if name.endswith(LARGE)
                    else {}
                ),
            }
            for name, content in files.items()
        ]
        self._answer(200, {"id": repository, "sha": revision, "siblings": siblings})

    def _file(self, revision: str, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            return self._answer(404, {}, {"X-Error-Code": "EntryNotFound"})
        content = files[name]
        headers = {"X-Repo-Commit": revision, "ETag": f'"{blob_id(content)}"'}
        if not name.endswith(LARGE):
            return self._content(content, name, headers)
        digest = sha256(content)
        self.hub.store[digest] = content
        headers |= {
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{digest}"',
            "Location": f"{self.hub.address}/store/{digest}/{name}",
        }
        return self._answer(302, {}, headers)

    def _content(self, content: bytes, name: str, headers: dict[str, str]) -> None:
        content = self.hub.corrupt.get(name, content)
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and not self.hub.no_ranges:
            start = int(asked[1])
            headers = {
                **headers,
                "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
            }
        self.send_response(206 if asked and not self.hub.no_ranges else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = content[start:]
        cuts = self.hub.cut_after.get(name)
        if cuts:
            self.wfile.write(body[: cuts.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(body)

    # -- writing ---------------------------------------------------------------------------------

    def _write(self) -> None:
        path = self._begin()
        if path is None:
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if match := re.fullmatch(r"/lfs/(\w+)", path):  # signed address: needs no token
            self.hub.store[match[1]] = body
            return self._answer(200, {})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":  # the client shows a card to the Hub before a commit
            bad = self.hub.bad_card
            errors = [{"message": bad}] if bad else []
            return self._answer(400 if bad else 200, {"errors": errors, "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            return self._take(match[1], body)
        return self._answer(404, {"error": f"no route {path}"})

    def _create(self, wanted: dict[str, Any]) -> None:
        owner = wanted.get("organization") or "owner"
        repository = f"{owner}/{wanted['name']}"
        address = {"url": f"{self.hub.address}/{repository}"}
        if repository in self.hub.repositories:
            return self._answer(409, {**address, "error": "You already created this model repo"})
        self.hub.commit(repository, {".gitattributes": b"*.safetensors filter=lfs"})
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.hub.private.add(repository)
        return self._answer(200, address)

    def _take(self, repository: str, body: bytes) -> None:
        files = {}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.store[value["oid"]]
        revision = self.hub.commit(repository, files)
        address = f"{self.hub.address}/{repository}/commit/{revision}"
        self._answer(200, {"success": True, "commitOid": revision, "commitUrl": address})

    # -- both ------------------------------------------------------------------------------------

    def _begin(self) -> str | None:
        """Note the request; None when the server refuses everything."""
        path = unquote(urlsplit(self.path).path)
        asked = self.headers.get("Range")
        self.hub.requests.append(f"{self.command} {path}" + (f" {asked}" if asked else ""))
        if self.hub.status is not None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(self.hub.status, {"error": "down"})
            return None
        return path

    def _answer(
        self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A Hub that answers while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
