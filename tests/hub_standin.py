"""hub 的替身：用标准库的 http.server 在本机应答 Hugging Face Hub 的 HTTP 接口，只绑 127.0.0.1，不出网。

只实现真正的客户端（huggingface_hub、datasets、transformers）读数据集、分词器、模型时会发的请求：
    GET  /api/{datasets|models}/名字[/revision/版本]              仓库信息（sha、siblings）
    GET  /api/{datasets|models}/名字/tree/版本[/文件夹]           列文件
    POST /api/{datasets|models}/名字/paths-info/版本              查几个路径
    HEAD、GET  /[datasets/]名字/resolve/版本/路径                  取文件；大文件 302 转到另一个端口的「CDN」
改了名的仓库用 307 转到新名字；出错时的状态码和 X-Error-Code 与真的一样。
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(r"/api/(?P<kind>datasets|models)/(?P<rest>.+)")
RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
LFS = (".parquet", ".safetensors")                         # 这些扩展名按大文件处理


@dataclass
class Repo:
    """一个仓库。

    属性：
        versions: {版本名: {路径: 内容}}，例如 {"main": {...}, "v1": {...}}。
        token: 私有仓库要的令牌；None 表示公开。
        gated: 公开可见，但没有令牌不能下载。
    """

    versions: dict[str, dict[str, bytes]]
    token: str | None = None
    gated: bool = False

    def __post_init__(self) -> None:
        self._commits = {name: hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest() for name, files in self.versions.items()}

    def commit(self, revision: str) -> str | None:
        """版本名或提交号 → 提交号（由内容算出）；没有就是 None。"""
        return self._commits.get(revision) or (revision if revision in self._commits.values() else None)

    def files(self, commit: str) -> dict[str, bytes]:
        """一个提交里的全部文件。"""
        return next(files for name, files in self.versions.items() if self._commits[name] == commit)


@dataclass
class StandIn:
    """替身：用 with 启动和关掉。

    属性：
        repos: {("datasets" 或 "models", 名字): Repo}。
        renamed: {旧名字: 新名字}。
        seen: 收到的请求：（"hub" 或 "cdn"，方法，路径，带的令牌）。
        endpoint: 给 HF_ENDPOINT 的网址。
    """

    repos: dict[tuple[str, str], Repo]
    renamed: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, str, str, str]] = field(default_factory=list)
    endpoint: str = ""

    def __enter__(self) -> StandIn:
        handlers = [type(place, (Handler,), {"standin": self, "place": place}) for place in ("hub", "cdn")]
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in handlers]
        self.endpoint, self.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class Handler(BaseHTTPRequestHandler):
    """一个请求的应答。standin 与 place 由 StandIn 填上。"""

    protocol_version = "HTTP/1.1"
    standin: StandIn
    place: str

    def log_message(self, *_) -> None:
        """不往屏幕上写日志。"""

    def _send(self, status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> None:
        whole, start = len(body), 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if status == 200 and asked and kind != "application/json":
            start, end = int(asked[1]), min(whole, int(asked[2] or whole) + 1)
            if start >= whole:
                status, body = 416, b""
            else:
                status, body = 206, body[start:end]
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{whole}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, data) -> None:
        self._send(200, json.dumps(data).encode())

    def _fail(self, status: int, code: str, message: str) -> None:
        self._send(status, json.dumps({"error": message}).encode(), X_Error_Code=code, X_Error_Message=message)

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.sent = self.rfile.read(length).decode()
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.standin.seen.append((self.place, self.command, path, self.token))
        if self.place == "cdn":
            return self._cdn(path.strip("/"))
        if match := API.fullmatch(path):
            return self._api(match["kind"], match["rest"], parse_qs(url.query))
        if match := RESOLVE.fullmatch(path):
            return self._resolve("datasets" if match["kind"] else "models", match["name"], match["revision"], match["path"])
        self._fail(404, "NotFound", "Sorry, we can't find the page you are looking for.")

    do_GET = do_HEAD = do_POST = _answer

    def _open(self, kind: str, name: str, revision: str, download: bool) -> tuple[str, dict[str, bytes]] | None:
        """（提交号，文件）；改了名、没有、没有权限、没有这个版本时自己应答，返回 None。"""
        repo = self.standin.repos.get((kind, name))
        if name in self.standin.renamed:
            self._send(307, Location=self.path.replace(name, self.standin.renamed[name]))
        elif self.token and self.token not in {r.token for r in self.standin.repos.values()}:
            self._fail(401, "", "Invalid credentials in Authorization header")
        elif repo is None or repo.token and not repo.gated and self.token != repo.token:
            self._fail(404 if self.token else 401, "RepoNotFound", "Repository not found")
        elif repo.gated and download and self.token != repo.token:
            self._fail(403 if self.token else 401, "GatedRepo", f"Access to {name} is restricted.")
        elif (commit := repo.commit(revision)) is None:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return commit, repo.files(commit)

    def _entry(self, path: str, body: bytes) -> dict:
        sha256 = hashlib.sha256(body).hexdigest()
        entry = {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
        return entry | ({"lfs": {"oid": sha256, "size": len(body), "pointerSize": 130}} if path.endswith(LFS) else {})

    def _api(self, kind: str, rest: str, query: dict) -> None:
        owner, repo, *more = rest.split("/")
        name, (what, revision, *folder) = f"{owner}/{repo}", more or ("", "main")
        inside = "/".join(folder)
        opened = self._open(kind, name, revision, download=False)
        if opened is None:
            return None
        commit, files = opened
        if what in ("", "revision"):
            return self._json({"id": name, "sha": commit, "private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0,
                               "tags": [], "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
                               "siblings": [{"rfilename": path} for path in files]})
        folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
        entries = [self._entry(*item) for item in files.items()]
        entries += [{"type": "directory", "path": f, "size": 0, "oid": hashlib.sha1(f.encode()).hexdigest()} for f in folders]
        if what == "paths-info":
            return self._json([e for e in entries if e["path"] in parse_qs(self.sent).get("paths", [])])
        if what == "tree":
            prefix, deep = inside + "/" if inside else "", query.get("recursive", ["false"])[0].lower() == "true"
            if inside and inside not in folders:
                return self._fail(404, "EntryNotFound", f"{inside} does not exist on \"{revision}\"")
            found = [e for e in entries if e["path"].startswith(prefix) and (deep or "/" not in e["path"][len(prefix):])]
            return self._json(sorted(found, key=lambda e: e["path"]))
        return self._fail(404, "NotFound", "not in the stand-in")

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        opened = self._open(kind, name, revision, download=True)
        if opened is None:
            return None
        commit, files = opened
        if path not in files:
            return self._send(404, b"Entry not found", "text/plain", X_Error_Code="EntryNotFound", X_Error_Message="Entry not found",
                              X_Repo_Commit=commit)
        entry = self._entry(path, files[path])
        if "lfs" in entry:
            oid = entry["lfs"]["oid"]
            return self._send(302, Location=f"{self.standin.cdn}/{oid}", X_Repo_Commit=commit, X_Linked_Etag=f'"{oid}"',
                              X_Linked_Size=str(entry["size"]))
        self._send(200, files[path], "text/plain; charset=utf-8", X_Repo_Commit=commit, ETag=f'"{entry["oid"]}"', Accept_Ranges="bytes")

    def _cdn(self, oid: str) -> None:
        blobs = (body for repo in self.standin.repos.values() for files in repo.versions.values() for body in files.values())
        body = next((b for b in blobs if hashlib.sha256(b).hexdigest() == oid), None)
        if body is None:
            return self._fail(404, "NotFound", "no such blob")
        self._send(200, body, "application/octet-stream", ETag=f'"{oid}"', Accept_Ranges="bytes")
