#!/usr/bin/env bash
# Every lint check; each runs even when an earlier one failed.
set -u
cd "$(dirname "$0")" || exit 1
rc=0
for check in layers.sh banned.sh format.sh "$@"; do
    ./"$check" || rc=1
done
[ $rc -eq 0 ] && echo "lint: clean"
exit $rc
