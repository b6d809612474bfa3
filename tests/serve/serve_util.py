"""A server under test, raw sockets to it, and what must hold after every case. Standard library."""

import http.client
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

GLOSS = os.environ["GLOSS"]
BASE = {k: v for k, v in os.environ.items() if not k.startswith(("GLOSS", "HF_", "XDG_"))}
BASE.update(HOME="/nonexistent", LC_ALL="C.UTF-8")


CONTROL = {"messages": [{"role": "user", "content": "Name three colours."}], "seed": 7,
           "max_tokens": 24, "temperature": 0.8, "logprobs": True}
SLACK_MEMORY = 96 << 20  # cache pages once used, compiled grammars (64 MB), what the allocator keeps


class Server:
    """`script`: lines (dicts, or texts with control tokens written out) for --scripted. As a context that
    ends well, it ends with the three closing checks; `key` is then what the control request shows, and
    `checked` False leaves them out: for servers that the test itself ends."""

    def __init__(self, *args, script=None, tls=False, limit_files=None, env=None, checked=True, key=None):
        self.clients = []
        self.checked, self.key = checked and not tls, key
        self.control = script is None or len(script) == 1
        self.dir = tempfile.TemporaryDirectory()
        self.log_path = os.path.join(self.dir.name, "log")
        if script is not None:
            path = os.path.join(self.dir.name, "script.jsonl")
            with open(path, "w") as f:
                for line in script:
                    f.write(json.dumps(line if isinstance(line, dict) else {"text": line}) + "\n")
            args += ("--scripted", path)
        self.log_file = open(self.log_path, "w+b")
        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit_files, limit_files))

        self.process = subprocess.Popen([GLOSS, "serve", "--port", "0", *args], env={**BASE, **(env or {})}, stderr=self.log_file,
                                        stdout=subprocess.DEVNULL, preexec_fn=limit if limit_files else None)
        self.port = None
        until = time.monotonic() + 30
        while time.monotonic() < until:
            m = re.search(r"listening on \w+://\S+:(\d+) after", self.log())
            if m:
                self.port = int(m.group(1))
                break
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        if not self.port:
            raise RuntimeError("the server did not start: " + self.log())
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def alive(self):
        return self.process.poll() is None

    def stop(self, sig=signal.SIGTERM, timeout=30):
        self.close_clients()
        if self.alive():
            self.process.send_signal(sig)
        try:
            code = self.process.wait(timeout)
        finally:
            if self.alive():
                self.process.kill()
                self.process.wait()
            self.log_file.close()
        self.dir.cleanup()
        return code

    def __enter__(self):
        if self.checked:
            self.baseline()
        return self

    def __exit__(self, kind, *_):
        try:
            if self.checked and kind is None:
                self.closing_checks()
        finally:
            self.stop()

    # ---- the closing checks ----

    def run_control(self):
        status, answer = self.post("/v1/chat/completions", CONTROL, headers={"Authorization": f"Bearer {self.key}"} if self.key else None)
        assert status == 200, answer
        c = answer["choices"][0]
        return c["message"]["content"], c["message"].get("reasoning"), c["logprobs"]

    def baseline(self):
        """What will be compared."""
        if self.control:
            for _ in range(3):
                self.control = self.run_control()
        eventually(lambda: self.metric("gloss:connections") <= 1, 5, "the control's connections are closed")
        self.fds, self.rss = self.descriptors(), self.memory()

    def closing_checks(self, slack=SLACK_MEMORY):
        """Alive and healthy within a second, a control request bit for bit, resources at the baseline."""
        self.close_clients()
        assert self.alive(), self.log()
        eventually(lambda: self.ask("GET", "/health", timeout=1)[0] == 200, 1, "/health is green")
        if self.control:
            again = self.run_control()
            assert again == self.control, (again, self.control)
        eventually(lambda: self.metric("gloss:num_requests_running") == 0 and
                   self.metric("gloss:num_requests_waiting") == 0, 5, "no request is left")
        eventually(lambda: self.metric("gloss:kv_cache_usage_perc") == 0, 5, "pages are back")
        eventually(lambda: self.descriptors() <= self.fds + 1, 5,
                   f"descriptors back at {self.fds}: {self.descriptors()}")
        eventually(lambda: self.memory() <= self.rss + slack, 5,
                   f"memory back near {self.rss}: {self.memory()}")

    def close_clients(self):
        for c in self.clients:
            c.close()
        self.clients.clear()

    # ---- requests ----

    def ask(self, method, path, body=None, headers=None, timeout=30):
        """(status, headers, bytes) by the plain client of the standard library."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            h = dict(headers or {})
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
                h.setdefault("Content-Type", "application/json")
            elif body is not None:
                h.setdefault("Content-Type", "application/json")
            if isinstance(body, str):
                body = body.encode()
            c.request(method, path, body=body, headers=h)
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def post(self, path, body, **kw):
        status, _, data = self.ask("POST", path, body, **kw)
        return status, json.loads(data)

    def get(self, path, **kw):
        status, _, data = self.ask("GET", path, **kw)
        return status, json.loads(data)

    def chat(self, text="Hi", **kw):
        return self.post("/v1/chat/completions",
                         {"messages": [{"role": "user", "content": text}], **kw})

    def socket(self, timeout=30):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return s

    def raw(self, data, timeout=5, close=False):
        """Everything the server answers to these bytes until it closes, or is silent."""
        s = self.socket(timeout)
        try:
            s.sendall(data)
            if close:
                s.shutdown(socket.SHUT_WR)
            return read_all(s, timeout)
        except (ConnectionResetError, BrokenPipeError):
            return b""
        finally:
            s.close()

    # ---- what it uses ----

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu(self):
        """Seconds of processor time of all threads so far, user and system."""
        total, folder = 0, f"/proc/{self.process.pid}/task"
        for task in os.listdir(folder):
            with open(f"{folder}/{task}/schedstat") as f:
                total += int(f.read().split()[0])
        return total * 1e-9

    def metric(self, name):
        _, _, data = self.ask("GET", "/metrics", headers={"Authorization": f"Bearer {self.key}"} if self.key else None)
        for line in data.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise KeyError(name)


def read_all(s, timeout=5):
    data, until, poll = b"", time.monotonic() + timeout, select.poll()
    poll.register(s, select.POLLIN)
    while True:
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(1000 * left):
            return data
        try:
            more = s.recv(65536)
        except ConnectionResetError:
            return data
        if not more:
            return data
        data += more


def post_bytes(path, body, extra=""):
    """A request as bytes, for raw sockets."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{extra}\r\n").encode() + body


def chat_bytes(text="Hi", extra="", **kw):
    return post_bytes("/v1/chat/completions",
                      {"messages": [{"role": "user", "content": text}], **kw}, extra)


def events(data):
    """The data of server-sent events; [DONE] as None."""
    out = []
    for block in data.decode().replace("\r\n", "\n").split("\n\n"):
        for line in block.split("\n"):
            if line.startswith("data: "):
                out.append(None if line == "data: [DONE]" else json.loads(line[6:]))
    return out


def eventually(check, seconds=5, what="condition"):
    until = time.monotonic() + seconds
    while True:
        try:
            if check():
                return
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

class Case(unittest.TestCase):
    """A server per class (cls.args, cls.script), and the closing checks after every test."""

    args, script, key = (), None, None

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.args, script=cls.script, key=cls.key)
        cls.addClassCleanup(cls.server.stop)
        cls.server.baseline()

    def tearDown(self):
        self.server.closing_checks()


def side_by_side(*groups):
    """Runs the classes of each group (names in one text) in a process of its own, all at once; what they print
    in order. Exits with 1 if one failed."""
    runs = [(g, subprocess.Popen([sys.executable, sys.argv[0], *g.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)) for g in groups]
    outputs = [(g, *p.communicate(), p.returncode) for g, p in runs]
    for g, text, _, code in outputs:
        print(f"== {g}: exit {code}\n{text.decode(errors='replace')}", flush=True)
    sys.exit(any(code for *_, code in outputs))
