"""What the data tests share: no cache and no network but their own, small files, a local server."""

import gzip
import hashlib
import os
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import xpmlp.backend
from xpmlp.data.download import RemoteFile

REAL_DATA = os.environ.get("XPMLP_DATA", "")
BACKENDS = ("numpy", "array_api_strict", "torch", "jax", "cupy")
IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """An empty cache, no XPMLP_DATA, and no way to a host other than this one."""
    monkeypatch.delenv("XPMLP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def local_only(self, address):
        if address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"the test suite does not connect to {address}")
        return connect(self, address)

    def local_names_only(host, *args, **kwargs):
        if host not in ("127.0.0.1", "localhost", "::1", None):
            raise socket.gaierror(f"the test suite does not look up {host}")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket, "getaddrinfo", local_names_only)


@pytest.fixture
def real_data(monkeypatch):
    """The folder with the real data sets, if XPMLP_DATA names one."""
    if not REAL_DATA:
        pytest.skip("XPMLP_DATA is not set: no real data to read")
    monkeypatch.setenv("XPMLP_DATA", REAL_DATA)
    return Path(REAL_DATA)


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each array library that works here, chosen while the test runs."""
    problem = xpmlp.backend.backend_problems()[request.param]
    if problem is not None:
        pytest.skip(problem)
    with xpmlp.backend.use_backend(request.param) as chosen:
        yield chosen


@pytest.fixture
def idx_bytes():
    """A function: the bytes of an idx file that holds an array."""

    def make(array: np.ndarray) -> bytes:
        code = IDX_CODES[array.dtype.str[1:]]
        header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        return header + array.astype(array.dtype.newbyteorder(">")).tobytes()

    return make


@pytest.fixture
def mnist_files(idx_bytes):
    """A function: write a small data set in MNIST's format; returns its arrays."""

    def write(folder: Path, n_train: int = 30, n_test: int = 20, seed: int = 0) -> dict:
        rng = np.random.default_rng(seed)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for part, n in (("train", n_train), ("t10k", n_test)):
            arrays[f"{part}-images-idx3"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
            arrays[f"{part}-labels-idx1"] = rng.integers(0, 10, n, dtype=np.uint8)
        for name, array in arrays.items():
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))
        return arrays

    return write


class Server:
    """A web server on this machine that can misbehave.

    ``behaviour`` maps a path's first folder to one of: ok, no-range, wrong, missing, slow, long,
    encoded, short, no-length (short, and without saying how much was to come). ``requests`` lists
    what was asked: (path, Range header).
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.behaviour: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.answer(self)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def remote(self, name: str, data: bytes, mirrors: tuple[str, ...] = ("a",)) -> RemoteFile:
        self.files[name] = data
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return RemoteFile(name, digest, len(data), tuple(f"{self.url}/{m}/{name}" for m in mirrors))

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        mirror, name = handler.path.strip("/").split("/", 1)
        kind = self.behaviour.get(mirror, "ok")
        data = self.files.get(name)
        if kind == "missing" or data is None:
            handler.send_error(404)
            return
        if kind == "wrong":
            data = bytes(reversed(data))
        if kind == "long":
            data = data + b"more" * 1000
        start = 0
        if asked and kind != "no-range":
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        body = data[start:]
        if kind != "no-length":
            handler.send_header("Content-Length", str(len(body)))
        if kind == "encoded":
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        if kind == "slow":
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            time.sleep(1.0)
            return
        handler.wfile.write(body[: len(body) // 2] if kind in ("short", "no-length") else body)


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()
