#!/usr/bin/env bash
# Banned calls, raw allocation outside src/base, exit outside src/cli, variable-length arrays,
# non-ASCII in sources, over-long files. Prints each breach; exit 1 if there is any.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0
# breach MESSAGE FILE... : greps stdin-free; a hit is a breach
hits() {
    local what=$1 pattern=$2
    shift 2
    local out
    # comments are prose: a line that begins with a comment or continues one does not count
    out=$(grep -nE "$pattern" "$@" /dev/null | grep -vE '^[^:]+:[0-9]+: *(\*|/\*|//)')
    if [ -n "$out" ]; then
        echo "banned ($what):"
        echo "$out"
        bad=1
    fi
}
mapfile -t all < <(find src include tests scripts -name '*.[chS]')
mapfile -t outside_base < <(find src -name '*.[ch]' -not -path 'src/base/mem.*')
mapfile -t outside_cli < <(find src -name '*.[ch]' -not -path 'src/cli/*')

hits "unsafe call" '\b(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|atof|strtol|gets|alloca|setjmp|longjmp|system|popen|rand|srand)\(' "${all[@]}"
hits "allocation outside base/mem" '\b(malloc|calloc|realloc|free|posix_memalign|aligned_alloc|strdup|strndup)\(' "${outside_base[@]}"
hits "exit outside cli" '[^_a-z]exit\(' "${outside_cli[@]}"
hits "typedef" '^typedef' $(find src -name '*.[ch]' -not -name err.h)
hits "feature #ifdef outside base" '^ *#if(def)? .*(__AVX|__ARM|__x86)' $(find src -name '*.c' -not -name 'kern_*' -not -name 'detect.c')

non_ascii=$(grep -nP '[^\x00-\x7F]' "${all[@]}" Makefile scripts/*.mk scripts/*.sh 2>/dev/null)
[ -n "$non_ascii" ] && { echo "banned (non-ASCII):"; echo "$non_ascii"; bad=1; }

long=$(wc -l "${all[@]}" | awk '$1 > 2000 && $2 != "total"' | grep -v '_tab\.[ch]')
[ -n "$long" ] && { echo "banned (over 2000 lines):"; echo "$long"; bad=1; }

exit $bad
