"""Many streams at once on the scripted backend: none fails, nobody waits much longer than the rest,
memory per connection is small and comes back, and a streamed token costs little. Loopback, bounded.

`python load_cases.py --measure` prints the numbers of docs/performance.md instead of asserting."""

import json
import os
import selectors
import socket
import statistics
import sys
import time
import unittest

from serve_util import Server, chat_bytes, eventually

WORDS = "<|channel|>final<|message|>" + "word " * 4000 + "<|return|>"


class Stream:
    def __init__(self, port):
        self.s = socket.create_connection(("127.0.0.1", port))
        self.s.setblocking(False)
        self.data, self.first, self.sent, self.done = b"", None, None, False

    def send(self, request):
        self.sent = time.perf_counter()
        self.s.sendall(request)

    def read(self):
        try:
            more = self.s.recv(1 << 16)
        except BlockingIOError:
            return
        if self.first is None and b'"content":"w' in more:
            self.first = time.perf_counter() - self.sent
        self.data = (self.data + more)[-65536:]
        self.done = not more or b"data: [DONE]" in self.data[-64:]


def run_streams(server, n, tokens, hold=None):
    """n streams of so many tokens, sent one after the other; returns them. `hold` is called when
    all have their first token."""
    sel, all_streams = selectors.DefaultSelector(), [Stream(server.port) for _ in range(n)]
    request = chat_bytes(stream=True, max_tokens=tokens)
    for s in all_streams:
        sel.register(s.s, selectors.EVENT_READ, s)
    for s in all_streams:
        s.send(request)
        for key, _ in sel.select(0):
            key.data.read()
    until, held = time.monotonic() + 60, hold is None
    while not all(s.done for s in all_streams) and time.monotonic() < until:
        for key, _ in sel.select(1):
            key.data.read()
            if key.data.done:
                sel.unregister(key.data.s)
        if not held and all(s.first is not None for s in all_streams):
            held = True
            hold()
    for s in all_streams:
        s.s.close()
    return all_streams


def thousand(n=1000, tokens=60):
    """Numbers of n streams at once."""
    with Server("--parallel", str(n), script=[WORDS]) as server:
        run_streams(server, 50, 20)  # buffers and code are there
        eventually(lambda: server.metric("gloss:connections") <= 1, 5)
        before, peak = server.memory(), []
        streams = run_streams(server, n, tokens, hold=lambda: peak.append(server.memory()))
        eventually(lambda: server.metric("gloss:connections") <= 1, 10, "connections are closed")
        first = sorted(s.first for s in streams if s.first is not None)
        fds = server.descriptors()
        run_streams(server, n, tokens)
        eventually(lambda: server.metric("gloss:connections") <= 1, 10, "connections are closed")
        until = time.monotonic() + 5  # given back after a second of quiet
        while server.memory() > before + n * (8 << 10) and time.monotonic() < until:
            time.sleep(0.1)
        return {"streams": n, "failed": sum(not s.done or s.first is None for s in streams),
                "ttft_median_ms": 1e3 * statistics.median(first), "ttft_p99_ms": 1e3 * first[int(0.99 * len(first))],
                "kb_per_connection": (peak[0] - before) / n / 1024,
                "kb_left_per_connection": (server.memory() - before) / n / 1024, "descriptors": fds}


def overhead(n=64, tokens=3000, delay_ms=0):
    """CPU of the whole process per streamed token: the scripted backend computes nothing, so this is
    engine, pump, HTTP and kernel. With a delay the tokens come one by one, as a model makes them,
    and each is a write of its own; without, they queue up and leave together."""
    with Server("--parallel", str(n), script=[{"text": WORDS, "delay_ms": delay_ms}]) as server:
        run_streams(server, n, 50)
        cpu, made = server.cpu(), server.metric("gloss:generation_tokens_total")
        start = time.perf_counter()
        streams = run_streams(server, n, tokens)
        wall = time.perf_counter() - start
        cpu = server.cpu() - cpu
        assert all(s.done for s in streams)
        assert server.metric("gloss:generation_tokens_total") - made == n * tokens
        return {"streams": n, "tokens": n * tokens, "delay_ms": delay_ms, "us_cpu_per_token": 1e6 * cpu / (n * tokens),
                "tokens_per_s": n * tokens / wall}


def bare_sends(n=64, rounds=200):
    """What the kernel alone takes for a send of a token's size to n clients in turn, all in 10 ms."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=n)
    out_fd, in_fd = os.pipe()
    child = os.fork()
    if child == 0:
        socks = [listener.accept()[0] for _ in range(n)]
        for s in socks:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start, data = time.process_time(), b"x" * 260
        for _ in range(rounds):
            for first in range(10):
                for s in socks[first::10]:
                    s.send(data)
                time.sleep(0.0009)
        os.write(in_fd, str(1e6 * (time.process_time() - start) / (n * rounds)).encode())
        os._exit(0)
    sel = selectors.DefaultSelector()
    for _ in range(n):
        sel.register(socket.create_connection(listener.getsockname()), selectors.EVENT_READ)
    while sel.get_map():
        for key, _ in sel.select(1):
            if not key.fileobj.recv(65536):
                sel.unregister(key.fileobj)
                key.fileobj.close()
    os.waitpid(child, 0)
    listener.close()
    us = float(os.read(out_fd, 100))
    os.close(out_fd)
    os.close(in_fd)
    return {"bare_sends": n * rounds, "us_cpu_per_send": us}


class Load(unittest.TestCase):
    def test_thousand_streams(self):
        r = thousand()
        print(r)
        self.assertEqual(r["failed"], 0)
        self.assertLess(r["ttft_p99_ms"], 4 * r["ttft_median_ms"])
        self.assertLess(r["kb_per_connection"], 256)
        self.assertLess(r["kb_left_per_connection"], 16)  # back at the baseline

    def test_token_overhead(self):
        r = overhead(tokens=1500)
        print(r)
        self.assertLess(r["us_cpu_per_token"], 15)
        print(overhead(tokens=100, delay_ms=10))  # docs/performance.md says why this one is more


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        for f in (thousand, overhead, lambda: overhead(tokens=200, delay_ms=10), bare_sends):
            for _ in range(3):
                print(json.dumps({k: round(v, 2) for k, v in f().items()}))
    else:
        unittest.main()
