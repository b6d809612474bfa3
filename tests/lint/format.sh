#!/usr/bin/env bash
# clang-format 14 over every C file (generated tables excepted). Prints the files that differ.
set -u
cd "$(dirname "$0")/../.." || exit 1
find src include tests scripts -name '*.[ch]' -not -name '*_tab.[ch]' -print0 |
    xargs -0 clang-format-14 --dry-run -Werror 2>&1 | grep -E 'error:' | cut -d: -f1 | sort | uniq -c |
    awk '{ print "format: " $2 " (" $1 " places; run clang-format-14 -i)"; bad = 1 } END { exit bad }'
