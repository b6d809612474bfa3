#!/usr/bin/env bash
# Asks the built-in model a real question and shows what it thinks. Usage: scripts/demo.sh GLOSS
set -euo pipefail
gloss=$1

echo
echo "\$ $gloss infer -r medium --temperature 0 --show-analysis 'What is 127 + 385?'"
echo
"$gloss" infer -r medium --temperature 0 --show-analysis 'What is 127 + 385?'
echo
echo "That was the built-in model, a small one for demonstration and tests, running in $gloss."
echo "Next: ask it something yourself with '$gloss infer', see '$gloss help', or run 'make test'."
