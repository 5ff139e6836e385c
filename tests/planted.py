"""A service of embeddings on this machine that fails as it is told: rate limits, time-outs, bad answers.

`Service.plan` gives for each request, in their order, what is done with it: a name from ACTIONS. A text's
vector is a function of the text alone (`vector`), so that a misplaced one is seen.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIM = 6
GOOD = ("ok", "shuffled", "base64")
PASSING = ("429", "429 later", "429 date", "500", "503", "529", "reset", "cut", "timeout", "slow body", "html", "no json", "truncated",
           "error inside", "fewer", "more", "twice", "no index", "far index", "dims", "nan", "strings", "empty", "null", "closed", "drip")  # fmt: skip


def vector(text: str, dim: int = DIM, salt: str = "") -> Any:
    raw = hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).digest()
    return (np.frombuffer(raw, np.uint8)[:dim].astype(np.float32) + 1) / 16


class Service:
    """`with Service() as service`: service.url, service.plan, what was asked and done."""

    def __init__(self) -> None:
        self.plan: Callable[[int, list[str]], str] = lambda number, texts: "ok"
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.done: Counter[str] = Counter()
        self.salt = ""
        self.dim = DIM
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> Service:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service._serve(self)

            def log_message(self, *given: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *given: Any) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def texts(self) -> list[str]:
        """Every text that was asked for, as often as it was."""
        return [text for each in self.requests for text in each["input"]]

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            action = self.plan(len(self.requests), body["input"])
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.paths.append(handler.path)
            self.done[action] += 1
        self._answer(handler, action, body["input"])

    def _answer(self, handler: BaseHTTPRequestHandler, action: str, texts: list[str]) -> None:
        rows: list[Any] = [{"object": "embedding", "index": at, "embedding": vector(text, self.dim, self.salt).tolist()}
                           for at, text in enumerate(texts)]  # fmt: skip
        headers, status, body = {}, 200, None
        if action in ("timeout", "slow body"):
            if action == "slow body":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{")
                handler.wfile.flush()
            self._stop.wait(0.4)
            return
        if action == "drip":  # never silent for long, and never done
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
            while not self._stop.wait(0.03):
                try:
                    handler.wfile.write(b" ")
                except OSError:
                    return
        if action in ("reset", "closed"):
            if action == "reset":
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        if action.split()[0].isdigit():
            status = int(action.split()[0])
            body = json.dumps({"error": {"message": f"planted {action}, Bearer sk-secret-key, more"}}).encode()
            if action == "429 later":
                headers["Retry-After"] = "7"
            if action == "429 date":
                headers["Retry-After"] = "Fri, 31 Dec 1999 23:59:59 GMT"
            if action == "429 for ever":
                headers["Retry-After"] = "86400"
            if status == 302:
                headers["Location"] = f"{self.url}/elsewhere"
        elif action == "shuffled":
            rows.reverse()
            rows[1:] = sorted(rows[1:], key=lambda row: row["index"] % 3)
        elif action == "base64":
            for row in rows:
                row["embedding"] = base64.b64encode(np.array(row["embedding"], "<f4").tobytes()).decode()
        elif action == "fewer":
            rows.pop()
        elif action == "more":
            rows.append(dict(rows[0]))
        elif action == "twice":
            rows[-1]["index"] = 0
            rows.insert(0, rows.pop()) if len(rows) > 1 else rows.append(rows[0])
        elif action == "no index":
            rows[0]["index"] = None
        elif action == "far index":
            rows[-1]["index"] = 10**9
        elif action == "dims":
            rows[-1]["embedding"].append(1.0)
        elif action == "nan":
            rows[-1]["embedding"][0] = float("nan")
        elif action == "strings":
            rows[0]["embedding"] = ["1"] * self.dim
        elif action == "null":
            rows[0]["embedding"] = None
        elif action == "html":
            body, headers = b"<html><body>One moment, please</body></html>", {"Content-Type": "text/html"}
        elif action == "no json":
            body = b"\xff\xfe OK"
        elif action == "empty":
            body = b""
        elif action == "error inside":
            body = json.dumps({"error": {"message": "the model is loading"}}).encode()
        if body is None:
            body = json.dumps({"object": "list", "data": rows, "model": "planted", "usage": {}}).encode()
        sent = body[: len(body) // 2] if action in ("truncated", "cut") else body
        handler.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if action == "cut" else len(sent)))
        handler.end_headers()
        handler.wfile.write(sent)
