#!/bin/sh
# Writes requirements.lock from requirements.in; with --check it only says whether they are in step.
# What is locked stays as it is, so nothing changes but what requirements.in asks for.
set -eu

cd "$(dirname "$0")/.."
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
cp requirements.lock "$fresh"

flags="--overrides requirements.overrides --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-emit-find-links"
# The header must not name the temporary file.
header="uv pip compile requirements.in $flags -o requirements.lock"
# shellcheck disable=SC2086  the flags are words
"$PYTHON" -m uv pip compile -q requirements.in $flags --custom-compile-command "$header" -o "$fresh" >/dev/null

if [ "${1:-}" != --check ]; then
    cp "$fresh" requirements.lock
elif ! diff -u requirements.lock "$fresh" >&2; then
    echo "tandem: requirements.lock is not in step with requirements.in; run \`make lock\`" >&2
    exit 1
fi
