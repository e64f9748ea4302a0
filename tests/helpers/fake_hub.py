"""A server on this machine that stands in for the Hugging Face hub, with a folder for each repository."""

import hashlib
import json
import re
import shutil
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

INFO = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)")
TREE = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)/?(?P<path>.*)")
FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class FakeHub:
    """Repositories below `root`, as OWNER/REPO, or OWNER/REPO@REVISION where it is not `main`."""

    def __init__(self, root):
        self.root = root
        self.asked = []
        """Files whose content was asked for."""

    def folder(self, repository, revision="main"):
        return self.root / (repository if revision == "main" else f"{repository}@{revision}")

    def revision_of(self, repository, revision):
        """A revision by its own name or by its commit."""
        return next(
            (one for one in ("main", revision, "v2") if revision in (one, commit(repository, one))),
            revision,
        )


def commit(repository, revision):
    return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        info, tree, file = (pattern.fullmatch(path) for pattern in (INFO, TREE, FILE))
        match = info or tree or file
        if match is None:
            return self._send(404, {})
        repository = match["repository"]
        revision = hub.revision_of(repository, match["revision"])
        folder = hub.folder(repository, revision)
        if not hub.folder(repository).is_dir():
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        if not folder.is_dir():
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if info:
            return self._json({"id": repository, "sha": commit(repository, revision)})
        if tree:
            return self._tree(folder, tree["path"])
        return self._file(folder / file["path"], commit(repository, revision))

    def _tree(self, folder, wanted):
        if not (folder / wanted).is_dir():
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        recursive = "recursive=True" in self.path or "recursive=true" in self.path
        found = sorted((folder / wanted).rglob("*") if recursive else (folder / wanted).iterdir())
        rows = [
            {
                "type": "directory" if one.is_dir() else "file",
                "path": one.relative_to(folder).as_posix(),
                "oid": "0" * 40,
            }
            | ({} if one.is_dir() else {"size": one.stat().st_size})
            for one in found
        ]
        return self._json(rows)

    def _json(self, content):
        return self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _file(self, file, sha):
        if not file.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        content = file.read_bytes()
        if self.command == "GET":
            self.server.hub.asked.append(file.name)
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            content = content[int(span[1]) : int(span[2]) + 1 if span[2] else None]
        etag = hashlib.sha1(file.read_bytes()).hexdigest()
        return self._send(206 if span else 200, {"X-Repo-Commit": sha, "ETag": f'"{etag}"'}, content)

    def _send(self, status, headers, content=b""):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def serve(root):
    """A hub of the repositories below `root`, asked in place of the real one, with an empty cache."""
    hub = FakeHub(Path(root))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    cache = hub.root / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()
            shutil.rmtree(cache, ignore_errors=True)
