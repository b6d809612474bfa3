#!/usr/bin/env bash
# Runs every test and ends with "N passed, N failed". Usage: tests/run.sh BUILD [pattern]
#
# A test is an executable: build/tests/test_*, tests/{golden,e2e,fault,fuzz,kern,lint}/*.test.
# It passes by exiting 0 within its limit (a first comment line "# limit: SECONDS" raises the default);
# exit 77 skips it, with its reason as the last line it printed.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build} pattern=${2:-}
export GLOSS="$PWD/$build/gloss" GLOSS_BUILD="$PWD/$build" PYTHON="${PYTHON:-$PWD/build/venv/bin/python}"
unset GLOSS_CPU
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

run_one() {
    local name=$1 limit=300 start=$SECONDS rc
    case $name in *.test) limit=$(sed -n '2,5s/^# limit: \([0-9]*\).*/\1/p' "$name" | head -1) ;; esac
    timeout -k 10 "${limit:-300}" "$name" >"$log" 2>&1 </dev/null
    rc=$?
    case $rc in
    0) passed=$((passed + 1)); printf 'ok    %s (%ss)\n' "$name" $((SECONDS - start)) ;;
    77) skipped=$((skipped + 1)); printf 'skip  %s: %s\n' "$name" "$(tail -n 1 "$log")" ;;
    *)
        failed=$((failed + 1))
        printf 'FAIL  %s (exit %s, %ss)\n' "$name" $rc $((SECONDS - start))
        tail -n 40 "$log" | sed 's/^/      /'
        ;;
    esac
    grep -h '^seed' "$log" | sed 's/^/      /'
}

for t in "$build"/tests/test_* tests/*/*.test; do
    case $t in *.d | *'*'*) continue ;; esac
    case $t in *"$pattern"*) run_one "$t" ;; esac
done

if [ $skipped -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ $failed -eq 0 ] && [ $passed -gt 0 ]
