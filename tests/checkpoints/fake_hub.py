"""A small Hugging Face Hub on 127.0.0.1, with the answers and headers that its library needs."""

import contextlib
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """What the Hub has of one model: commit -> file name -> content, and names of commits."""

    commits: dict = field(default_factory=dict)
    refs: dict = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def commit(self, revision):
        commit = self.refs.get(revision, revision)
        matching = [known for known in self.commits if known.startswith(commit)]
        return matching[0] if len(matching) == 1 else None


@dataclass
class FakeHub:
    """The Hub, and the ways in which it can be made to fail.

    `answer` replaces every answer: a status and a body. `content` replaces the content of a file
    when it is sent, by its name. `delay` is waited before content is sent, and `together` before
    the first answer, for as many callers as it has parties.
    """

    repos: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    answer: tuple | None = None
    content: dict = field(default_factory=dict)
    delay: float = 0.0
    together: threading.Barrier | None = None
    port: int = 0

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def add(self, name, files, commit=None, revision="main", **settings):
        """Add a commit, made from the files unless it is given, and let the revision name it."""
        repo = self.repos.setdefault(name, Repo(**settings))
        if commit is None:
            commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repo.commits[commit] = dict(files)
        repo.refs[revision] = commit
        return commit

    def fetched(self):
        """The names of the files whose content was asked for."""
        return [path.split("/")[-1] for method, path in self.requests if method == "CONTENT"]


def is_large(name):
    return name.endswith((".safetensors", ".bin"))


def etag(name, content):
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def serve():
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            respond(hub, self, body=True)

        def do_HEAD(self):
            respond(hub, self, body=False)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def respond(hub, handler, body):
    path = unquote(urlsplit(handler.path).path).strip("/")
    hub.requests.append((handler.command, path))
    if hub.answer is not None:
        send(handler, *hub.answer, body=body)
    elif path.startswith("api/models/"):
        describe(hub, handler, path.removeprefix("api/models/"))
    elif path.startswith("cdn/"):
        _, name, revision, file = path.replace("%2F", "/").rsplit("/", 3)
        deliver(hub, handler, hub.repos[name.replace("--", "/")], revision, file, body)
    elif "/resolve/" in path:
        resolve(hub, handler, path, body)
    else:
        send(handler, 404, b"")


def describe(hub, handler, path):
    if hub.together is not None:
        hub.together.wait(timeout=60)
    name, _, revision = path.partition("/revision/")
    repo = find(hub, handler, name)
    if repo is None:
        return
    commit = repo.commit(revision or "main")
    if commit is None:
        send(handler, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return
    siblings = [
        {
            "rfilename": file,
            "size": len(content),
            "blobId": "0" * 40 if is_large(file) else etag(file, content),
        }
        | (
            {"lfs": {"sha256": etag(file, content), "size": len(content), "pointerSize": 134}}
            if is_large(file)
            else {}
        )
        for file, content in repo.commits[commit].items()
    ]
    answer = {"id": name, "sha": commit, "siblings": siblings, "private": repo.token is not None}
    send(handler, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


def resolve(hub, handler, path, body):
    name, _, rest = path.partition("/resolve/")
    revision, _, file = rest.partition("/")
    repo = find(hub, handler, name, content=True)
    if repo is None:
        return
    commit = repo.commit(revision)
    if commit is None:
        send(handler, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        return
    headers = {"X-Repo-Commit": commit}
    if file not in repo.commits[commit]:
        send(handler, 404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        return
    content = repo.commits[commit][file]
    if not is_large(file):
        deliver(hub, handler, repo, commit, file, body, headers)
        return
    # Large files are elsewhere, as on the Hub: another host, to which no token is sent.
    headers |= {
        "X-Linked-Etag": f'"{etag(file, content)}"',
        "X-Linked-Size": str(len(content)),
        "Location": f"http://localhost:{hub.port}/cdn/{name.replace('/', '--')}/{commit}/{file}",
    }
    send(handler, 302, b"", headers)


def deliver(hub, handler, repo, commit, file, body, headers=None):
    content = repo.commits[commit][file]
    if body:
        hub.requests.append(("CONTENT", file))
        content = hub.content.get(file, content)
        time.sleep(hub.delay)
    found = {"ETag": f'"{etag(file, repo.commits[commit][file])}"'} | (headers or {})
    # Some versions of the library go on where an earlier call ended.
    rest = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    if rest and body:
        start, size = int(rest[1]), len(content)
        found["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        send(handler, 206, content[start:], found)
    else:
        send(handler, 200, content, found, body=body)


def find(hub, handler, name, content=False):
    repo = hub.repos.get(name)
    token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
    if repo is None or (repo.token is not None and token != repo.token and not repo.gated):
        send(handler, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        return None
    # What a gated model is called may be known to all; its files not.
    if repo.gated and content and token != repo.token:
        send(handler, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        return None
    return repo


def send(handler, status, content, headers=None, body=True):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if body and handler.command != "HEAD":
            handler.wfile.write(content)
