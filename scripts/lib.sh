# shellcheck shell=bash
# Sourced by the other scripts: the cache directory, messages, directories keyed by a digest.

set -euo pipefail

# shellcheck disable=SC2034 # used by those who source this
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Not exported: Weir refuses to start with a WEIR_ variable that is no setting.
WEIR_TEST_HOME=${WEIR_TEST_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/weir-test}
KEEP_KEYS=3 # per kind: enough for a few checkouts at different revisions

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# digest TEXT_OR_FILE...: 16 hex digits over the arguments; a file counts with its content.
digest() {
    local part
    for part in "$@"; do
        if [[ -f $part ]]; then cat -- "$part"; else printf '%s\n' "$part"; fi
    done | sha256sum | cut -c1-16
}

# keyed_dir KIND KEY BUILDER...: prints the directory of this kind and key under the cache. When it is not
# complete yet, runs `BUILDER... DIR` to fill it. Only the KEEP_KEYS last used keys of a kind stay.
keyed_dir() {
    local kind=$1 key=$2 dir old
    shift 2
    dir=$WEIR_TEST_HOME/$kind/$key
    mkdir -p "$WEIR_TEST_HOME/$kind"
    exec 9>"$WEIR_TEST_HOME/$kind/.lock"
    flock 9
    if [[ ! -e $dir/.complete ]]; then
        say "installing $kind ($key) into $dir"
        rm -rf "$dir"
        mkdir -p "$dir"
        "$@" "$dir" >&2 9>&- || die "could not install $kind"
    fi
    touch "$dir/.complete"
    while read -r old; do
        rm -rf "${old%/.complete}"
    done < <(find "$WEIR_TEST_HOME/$kind" -mindepth 2 -maxdepth 2 -name .complete -printf '%T@ %p\n' |
        sort -rn | tail -n "+$((KEEP_KEYS + 1))" | cut -d' ' -f2-)
    exec 9>&-
    printf '%s\n' "$dir"
}

# free_port: a TCP port that was free on the loopback a moment ago; whoever binds it retries.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
