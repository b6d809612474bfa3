"""The HTTP client (src/remote/client.c) against a server that misbehaves, and against gloss serve."""

import email.utils
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "serve"))
from serve_util import Server  # noqa: E402

DRIVER = os.path.join(os.environ["GLOSS_BUILD"], "drivers", "client_driver")
E_LIMIT, E_INPUT, E_FORMAT, E_BUSY, E_NOENT, E_NET = -3, -2, -4, -6, -11, -13


def reply(code, body=b"", *headers, length=None):
    head = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + body


EVENTS = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


class Bad(socketserver.ThreadingTCPServer):
    """Answers by path. Remembers when each path was asked, and the requests."""
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BadHandler)
        self.seen, self.lock = [], threading.Lock()
        self.now = self.most = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_):
        pass


class BadHandler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.one():
            pass

    def one(self):
        line = self.rfile.readline().decode()
        if not line:
            return False
        headers = {}
        while True:
            h = self.rfile.readline().decode().strip()
            if not h:
                break
            k, _, v = h.partition(":")
            headers[k.lower()] = v.strip()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        method, path, _ = line.split()
        path = path.removeprefix("/v1")
        with self.server.lock:
            n = sum(p == path for p, *_ in self.server.seen)
            self.server.seen.append((path, time.monotonic(), method, headers, body))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            return getattr(self, "do_" + path[1:].partition("?")[0].replace("/", "_"))(n, body)
        finally:
            with self.server.lock:
                self.server.now -= 1

    def send(self, data):
        self.wfile.write(data if isinstance(data, bytes) else data.encode())
        self.wfile.flush()
        return True

    def do_echo(self, n, body):
        return self.send(reply(200, body, "x-request-id: req-7"))

    def do_slow(self, n, body):
        time.sleep(0.1)
        return self.send(reply(200, b"{}"))

    def do_never(self, n, body):
        time.sleep(2)

    def do_r429(self, n, body):
        if n < 2:
            return self.send(reply(429, b'{"error":{"message":"slow\\ndown"}}', "Retry-After: 0.2"))
        return self.send(reply(200, b"fine"))

    def do_r429ms(self, n, body):
        if n < 1:
            return self.send(reply(429, b"", "retry-after-ms: 150", "Retry-After: 30"))
        return self.send(reply(200, b"fine"))

    def do_date(self, n, body):
        if n < 1:
            at = email.utils.formatdate(time.time() + 3600, usegmt=True)
            return self.send(reply(503, b"", f"Retry-After: {at}"))
        return self.send(reply(200, b"fine"))

    def do_r500(self, n, body):
        return self.send(reply(500, b'{"error":"broken \x1b[31m inside"}'))

    def do_r400(self, n, body):
        return self.send(reply(400, b'{"error":{"message":"no such field","code":null}}'))

    def do_r404(self, n, body):
        return self.send(reply(404, b'{"detail":"unknown model"}'))

    def do_no_retry(self, n, body):
        return self.send(reply(500, b"", "x-should-retry: false"))

    def do_please_retry(self, n, body):
        return self.send(reply(400, b"", "x-should-retry: true") if n < 1 else reply(200, b"ok"))

    def do_moved(self, n, body):
        return self.send(reply(302, b"", "Location: /v1/echo"))

    def do_huge(self, n, body):
        return self.send(reply(200, b"x" * 300000))

    def do_huge_error(self, n, body):
        return self.send(reply(400, b"y" * 3000000))

    def do_cut(self, n, body):
        self.send(reply(200, b"half", length=100) if n < 1 else reply(200, b"whole"))
        return False

    def do_drop(self, n, body):
        if n < 2:
            return False
        return self.send(reply(200, b"third"))

    def do_sse(self, n, body):
        """Every way to end a line, cut at every byte."""
        stream = (b": hello\n\ndata: one\n\ndata:two\r\n\r\nevent: x\rdata: a\rdata: b\r\r"
                  b"data\n\nid: 4\ndata:  \xc3\xa9\n\ndata: [DONE]\n\ndata: cut")
        self.send(EVENTS + "Transfer-Encoding: chunked\r\n\r\n")
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for c in stream:
            self.send(b"1\r\n" + bytes([c]) + b"\r\n")
            time.sleep(0.0005)
        return self.send("0\r\n\r\n")

    def do_sse_timed(self, n, body):
        self.send(EVENTS + "Connection: close\r\n\r\n")
        for i in range(4):
            time.sleep(0.1)
            self.send(f"data: {i}\n\n")

    def do_sse_cut(self, n, body):
        self.send(EVENTS + "Content-Length: 1000\r\n\r\ndata: 1\n\n")

    def do_sse_refused(self, n, body):
        return self.send(EVENTS + "Content-Length: 15\r\n\r\ndata: refuse\n\n ")

    def do_sse_endless(self, n, body):
        self.send(EVENTS + "\r\ndata: ")
        while True:
            self.send(b"z" * 4096)

    def do_garbage(self, n, body):
        self.send(b"\x00\x01 what is this\r\n\r\n")


class Remote(unittest.TestCase):
    def setUp(self):
        self.bad = Bad()
        self.addCleanup(self.bad.server_close)
        self.addCleanup(self.bad.shutdown)
        self.url = f"http://127.0.0.1:{self.bad.server_address[1]}/v1/"

    def run_calls(self, *calls, url=None, parallel=8, retries=3, pause=0.02, longest=0.5,
                  limit=3, most=100000):
        text = "".join(json.dumps({"path": c} if isinstance(c, str) else c) + "\n" for c in calls)
        done = subprocess.run([DRIVER, url or self.url, str(parallel), str(retries), str(pause),
                               str(longest), str(limit), str(most)], input=text.encode(),
                              capture_output=True, timeout=60)
        self.assertEqual(done.stderr, b"")
        out = [json.loads(x) for x in done.stdout.splitlines()]
        return sorted(out, key=lambda x: x.get("i", 0))

    def one(self, call, **kw):
        return self.run_calls(call, **kw)[0]

    def times(self, path):
        return [t for p, t, *_ in self.bad.seen if p == path]

    def test_post_and_get(self):
        body = "{\"text\": \"\u00e9\"}" + " " * 50000
        a, b = self.run_calls({"path": "/echo", "body": body}, "/echo")
        self.assertEqual((a["status"], a["answer"], a["http"], a["n_try"], a["request_id"]),
                         (0, body, 200, 1, "req-7"))
        self.assertEqual((b["status"], b["answer"]), (0, ""))
        by = {m: h for _, _, m, h, _ in self.bad.seen}
        self.assertEqual(sorted(by), ["GET", "POST"])
        self.assertEqual(by["POST"]["authorization"], "Bearer sk-test")
        self.assertEqual(by["POST"]["content-type"], "application/json")
        self.assertNotIn("expect", by["POST"])

    def test_parallel_is_kept(self):
        out = self.run_calls(*["/slow"] * 24, parallel=6)
        self.assertEqual([x["status"] for x in out], [0] * 24)
        self.assertEqual(self.bad.most, 6)

    def test_retry_after(self):
        r = self.one("/r429")
        self.assertEqual((r["status"], r["answer"], r["n_try"]), (0, "fine", 3))
        t = self.times("/r429")
        self.assertGreaterEqual(min(t[1] - t[0], t[2] - t[1]), 0.19)
        r = self.one("/r429ms")
        t = self.times("/r429ms")
        self.assertEqual((r["answer"], r["n_try"]), ("fine", 2))
        self.assertGreaterEqual(t[1] - t[0], 0.14)
        r = self.one("/date")  # an hour from now: shortened to the longest pause
        t = self.times("/date")
        self.assertEqual((r["answer"], r["n_try"]), ("fine", 2))
        self.assertGreaterEqual(t[1] - t[0], 0.45)

    def test_gives_up(self):
        r = self.one("/r429", retries=1)
        self.assertEqual((r["status"], r["http"], r["n_try"]), (E_BUSY, 429, 2))
        self.assertEqual(r["error"], "the server answered 429: slow down")
        r = self.one("/r500", retries=2, pause=0.05)
        self.assertEqual((r["status"], r["http"], r["n_try"]), (E_NET, 500, 3))
        self.assertIn("broken [31m inside", r["error"].replace("\x1b", ""))
        self.assertNotIn("\x1b", r["error"])
        t = self.times("/r500")
        self.assertGreaterEqual(t[1] - t[0], 0.024)  # half of the pause at least
        self.assertGreaterEqual(t[2] - t[1], 0.049)  # twice that

    def test_short_pauses_are_short(self):
        start = time.monotonic()
        r = self.one("/r500", retries=15, pause=0.01, longest=0.02)
        self.assertEqual((r["status"], r["n_try"]), (E_NET, 16))
        self.assertLess(time.monotonic() - start, 8)  # 0.3 s of pauses, and a busy machine

    def test_no_retry(self):
        for path, code, status, text in (("/r400", 400, E_INPUT, "no such field"),
                                         ("/r404", 404, E_NOENT, "unknown model"),
                                         ("/no_retry", 500, E_NET, "(no text)"),
                                         ("/moved", 302, E_INPUT, "redirects")):
            r = self.one(path)
            self.assertEqual((r["status"], r["http"], r["n_try"]), (status, code, 1), path)
            self.assertIn(text, r["error"])
        self.assertEqual(self.times("/echo"), [])
        r = self.one("/please_retry")
        self.assertEqual((r["status"], r["answer"], r["n_try"]), (0, "ok", 2))

    def test_ceilings(self):
        r = self.one("/huge")
        self.assertEqual((r["status"], r["n_try"]), (E_LIMIT, 1))
        self.assertIn("100000 bytes", r["error"])
        self.assertEqual(len(self.one("/huge", most=300000)["answer"]), 300000)
        r = self.one("/huge_error")
        self.assertEqual((r["status"], r["http"]), (E_INPUT, 400))
        self.assertLess(len(r["error"]), 256)
        r = self.one({"path": "/sse_endless", "stream": True})
        self.assertEqual((r["status"], r["n_try"]), (E_LIMIT, 1))

    def test_broken_connections(self):
        r = self.one("/cut")
        self.assertEqual((r["status"], r["answer"], r["n_try"]), (0, "whole", 2))
        r = self.one("/cut", retries=0)
        self.assertEqual((r["status"], r["answer"]), (0, "whole"))
        r = self.one("/drop", retries=5)
        self.assertEqual((r["status"], r["answer"]), (0, "third"))
        r = self.one("/garbage", retries=1)
        self.assertEqual((r["status"], r["n_try"]), (E_NET, 2))
        with socket.socket() as s:  # a port where nobody listens
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        r = self.one("/echo", url=f"http://127.0.0.1:{port}", retries=2)
        self.assertEqual((r["status"], r["http"], r["n_try"]), (E_NET, 0, 3))
        r = self.one("/never", retries=0, limit=0.3)
        self.assertEqual(r["status"], E_NET)
        self.assertIn("timed out", r["error"].lower())

    def test_bad_addresses(self):
        for url in ("localhost:8000", "ftp://x/", "http://", "http:///v1", "http://a b/", "file:///x",
                    "http://a/?x=1"):
            self.assertEqual(self.one("/x", url=url)["status"], E_INPUT, url)

    def test_events(self):
        r = self.one({"path": "/sse", "stream": True})
        self.assertEqual(r["status"], 0, r)
        self.assertEqual([t for _, t in r["data"]], ["one", "two", "a\nb", "", " \u00e9"])
        self.assertEqual(r["answer"], "")

    def test_event_times(self):
        r = self.one({"path": "/sse_timed", "stream": True})
        at = [t for t, _ in r["data"]]
        self.assertEqual(len(at), 4)
        for i, t in enumerate(at):
            self.assertGreaterEqual(t, 100 * (i + 1) - 2)
        self.assertGreaterEqual(min(b - a for a, b in zip(at, at[1:])), 30)

    def test_events_not_repeated(self):
        r = self.one({"path": "/sse_cut", "stream": True})
        self.assertEqual((r["status"], r["n_try"], len(r["data"])), (E_NET, 1, 1))
        self.assertIn("broke off", r["error"])
        r = self.one({"path": "/sse_refused", "stream": True})
        self.assertEqual((r["status"], r["error"], r["n_try"]),
                         (E_FORMAT, "refused by the caller", 1))
        r = self.one({"path": "/echo", "stream": True, "body": "{\"error\":\"not here\"}"})
        self.assertEqual(r["status"], E_FORMAT)
        self.assertIn("not here", r["error"])

    def test_gloss(self):
        script = ["<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
                  "<|message|>Four.<|return|>"]
        ask = {"messages": [{"role": "user", "content": "2+2?"}]}
        with Server(script=script) as s:
            out = self.run_calls({"path": "/chat/completions", "body": json.dumps(ask)},
                                 {"path": "/chat/completions", "stream": True,
                                  "body": json.dumps({**ask, "stream": True})},
                                 "/models", "/nothing", url=s.url + "/v1")
            self.assertEqual([x["status"] for x in out], [0, 0, 0, E_NOENT])
            m = json.loads(out[0]["answer"])["choices"][0]["message"]
            self.assertEqual((m["content"], m["reasoning"]), ("Four.", "Hm."))
            chunks = [json.loads(t) for _, t in out[1]["data"]]
            text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks
                           if c["choices"])
            self.assertEqual(text, "Four.")
            self.assertTrue(out[0]["request_id"])


if __name__ == "__main__":
    unittest.main()
