"""schemathesis over /openapi.json: no 5xx, and every answer is one the document promises."""

import json
import os
import subprocess
import sys
import unittest

from serve_util import Case

TOOL = os.path.join(os.path.dirname(sys.executable), "schemathesis")


class Api(Case):
    args = ("--ctx-size", "512", "--parallel", "4")

    def test_document_lists_every_path(self):
        doc = json.loads(self.server.ask("GET", "/openapi.json")[2])
        for path, ops in doc["paths"].items():
            for method, op in ops.items():
                code, _, data = self.server.ask(method.upper(), path.replace("{id}", "tiny"), {} if method == "post" else None)
                self.assertIn(str(code), op["responses"], (method, path, data))

    def test_schemathesis(self):
        r = subprocess.run([TOOL, "run", self.server.url + "/openapi.json", "--url", self.server.url, "--max-examples", "10", "--seed", "1",
                            "--phases", "examples,coverage,fuzzing", "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
                            "--request-timeout", "20", "--no-color"], capture_output=True, timeout=150, cwd=self.server.dir.name)
        self.assertEqual(r.returncode, 0, r.stdout.decode()[-6000:] + r.stderr.decode()[-2000:])


if __name__ == "__main__":
    unittest.main()
