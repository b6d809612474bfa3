"""Runs the program for the tests of the command line. Standard library only."""

import json
import os
import subprocess
import tempfile
import time
import unittest

GLOSS = os.environ["GLOSS"]

# A clean environment: no GLOSS_ variable, no model cache of the person who runs the tests.
BASE = {k: v for k, v in os.environ.items() if not k.startswith(("GLOSS", "HF_", "XDG_"))}
BASE.update(HOME="/nonexistent", LC_ALL="C.UTF-8", TERM="xterm")
BASE.pop("NO_COLOR", None)


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.text = self.out.decode("utf-8", "surrogateescape")
        self.errors = self.err.decode("utf-8", "surrogateescape")

    def json(self):
        return json.loads(self.out)


def gloss(*args, stdin=b"", env=None, timeout=60, **kw):
    if isinstance(stdin, str):
        stdin = stdin.encode()
    done = subprocess.run([GLOSS, *args], input=stdin, capture_output=True,
                          env={**BASE, **(env or {})}, timeout=timeout, **kw)
    return Result(done)


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        self.start = time.perf_counter()

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def tearDown(self):
        if os.environ.get("DURATIONS"):
            print(f"{time.perf_counter() - self.start:6.2f} s  {self.id()}")

    def write(self, name, content):
        with open(self.path(name), "wb") as f:
            f.write(content.encode() if isinstance(content, str) else content)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def ok(self, *args, **kw):
        r = gloss(*args, **kw)
        self.assertEqual(r.code, 0, f"{args}: {r.errors}")
        return r

    def fails(self, code, *args, says=(), out=b"", **kw):
        """Exit code, exactly one line on standard error with every word of `says`, and what was
        printed (nothing, unless said)."""
        r = gloss(*args, **kw)
        self.assertEqual(r.code, code, f"{args}: {r.errors}")
        lines = r.errors.splitlines()
        self.assertEqual(len(lines), 1, f"{args}: {r.errors}")
        self.assertTrue(lines[0].startswith("gloss: "), lines[0])
        for word in [says] if isinstance(says, str) else says:
            self.assertIn(word, lines[0])
        if out is not None:
            self.assertEqual(r.out, out)
        return r


def main():
    unittest.main(verbosity=1)
