"""OpenAI's own Node library, whole and streamed, over the tiny model and every malformed form."""

import json
import os
import subprocess
import unittest

from forms import CONTROL_WORDS, FORMS
from serve_util import Case, Server

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.abspath(os.path.join(HERE, "../../build/node"))


def node(server, kind):
    r = subprocess.run(["node", os.path.join(HERE, "node_client.mjs"), server.url, kind],
                       capture_output=True, timeout=100, env={**os.environ, "NODE_FOLDER": FOLDER})
    assert r.returncode == 0, r.stderr.decode()
    return json.loads(r.stdout)


class Node(Case):
    def test_tiny(self):
        r = node(self.server, "tiny")
        self.assertEqual(r["models"], ["tiny"])
        self.assertEqual(r["whole"], r["streamed"])
        self.assertEqual(r["whole"]["finish"], "stop")
        self.assertTrue(r["whole"]["content"])
        self.assertEqual(r["error"]["name"], "BadRequestError")
        self.assertEqual((r["error"]["status"], r["error"]["param"]), (400, "temperature"))
        self.assertTrue(r["error"]["id"])
        self.assertEqual(*r["completion"])
        a = r["responses"]
        self.assertTrue(a["texts"][0])
        self.assertEqual(len(set(a["texts"])), 1)
        self.assertIn("response.completed", a["types"])
        self.assertEqual((a["items"], a["gone"], a["next"]), (["message"], 404, "completed"))


class NodeForms(unittest.TestCase):
    def test_forms(self):
        doubled = [text for text, _, _ in FORMS.values() for _ in (0, 1)]
        with Server(script=doubled) as server:
            for (name, (_, words, finish)), (one, two) in zip(FORMS.items(), node(server, f"forms:{len(FORMS)}")):
                self.assertEqual(one["finish"], finish, name)
                self.assertEqual(one, two, name)
                everything = "\n".join([one["content"], one["reasoning"]] +
                                       [x for c in one["calls"] for x in c])
                for w in words:
                    self.assertIn(w, everything, name)
                for w in CONTROL_WORDS:
                    self.assertNotIn(w, everything, name)


if __name__ == "__main__":
    unittest.main()
