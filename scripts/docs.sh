#!/usr/bin/env bash
# Renews the part of docs/cli.md that comes from the option table. Usage: scripts/docs.sh GLOSS
# With --check, only tells whether it is up to date.
set -euo pipefail
gloss=$1 mode=${2:-}
case $gloss in /*) ;; *) gloss=$PWD/$gloss ;; esac
cd "$(dirname "$0")/.."

new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
    sed '/^<!-- made by: make docs -->$/q' docs/cli.md
    echo
    "$gloss" help --as markdown
} >"$new"

if cmp -s "$new" docs/cli.md; then
    exit 0
elif [ "$mode" = --check ]; then
    echo "docs/cli.md is behind the option table; run: make docs" >&2
    exit 1
fi
cat "$new" >docs/cli.md
