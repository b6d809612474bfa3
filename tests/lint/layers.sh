#!/usr/bin/env bash
# The layer rule of docs/design.md: who may include whom, and which file alone may include a
# third-party header. Prints each breach; exit 1 if there is any.
set -u
cd "$(dirname "$0")/../.." || exit 1

# folder: the folders it may include from (itself is implied); "gloss.h" is the public header
declare -A may=(
    [base]=""
    [text]="base"
    [model]="base"
    [ref]="base model"
    [cpu]="base model"
    [cuda]="base model"
    [engine]="base text model"
    [lib]="base text model ref cpu engine gloss.h"
    [serve]="base gloss.h"
    [remote]="base gloss.h"
    [eval]="base gloss.h remote"
    [bench]="base gloss.h remote"
    [mlperf]="base gloss.h remote"
    [cli]="base gloss.h serve/serve.h remote eval bench mlperf"
)
# third-party header: the one file (of each program) that may include it
declare -A only=(
    [jansson.h]=src/base/json.c
    [microhttpd.h]=src/serve/http.c
    [sqlite3.h]="src/serve/store.c src/eval/journal.c" # a store per program: they share no table
    [curl/curl.h]=src/remote/client.c
    [pcre2.h]=src/eval/pattern.c
    [yaml.h]=src/cli/yaml.c
    [zstd.h]=src/mlperf/unpack.c
    [loadgen.h]=src/mlperf/loadgen_shim.cc
    [gnutls/gnutls.h]=src/serve/seal.c
    [gnutls/crypto.h]=src/serve/seal.c
)

bad=0
breach() {
    echo "layers: $1"
    bad=1
}

while IFS=: read -r file line text; do
    folder=$(dirname "${file#src/}")
    [ "$folder" = . ] && folder=lib
    if [ -z "${may[$folder]+x}" ]; then
        breach "$file: folder '$folder' is not in the table of tests/lint/layers.sh"
        continue
    fi
    inc=$(sed -n 's/.*#include *[<"]\([^>"]*\)[>"].*/\1/p' <<<"$text")
    case $text in
    *\"*)
        case $inc in
        serve/serve.h) from=serve/serve.h && [ "$folder" = serve ] && from=serve ;;
        */*) from=${inc%%/*} ;;
        gloss.h) from=gloss.h ;;
        *.h) from=lib && [ -f "src/$inc" ] || breach "$file:$line: \"$inc\" has no folder" ;;
        esac
        [ "$from" = "$folder" ] && continue
        case " ${may[$folder]} " in
        *" $from "*) ;;
        *) breach "$file:$line: $folder may not include $inc" ;;
        esac
        ;;
    *)
        [ -n "${only[$inc]+x}" ] && [[ " ${only[$inc]} " != *" $file "* ]] &&
            breach "$file:$line: <$inc> belongs to ${only[$inc]}"
        ;;
    esac
done < <(grep -n '^ *#include' -r src --include='*.[chS]' --include='*.cu' --include='*.cc')

# One C++ file.
other=$(find src -name '*.cc' -not -path src/mlperf/loadgen_shim.cc)
[ -n "$other" ] && breach "C++ beside the shim of LoadGen: $other"

# Unique file names, so that a name is a place.
dup=$(find src -name '*.[ch]' -printf '%f\n' | sort | uniq -d)
[ -n "$dup" ] && breach "file name used twice: $dup"

exit $bad
