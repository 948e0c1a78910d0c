#!/bin/sh
# Makes .venv exactly as requirements.lock says. Safe to run twice at once and to interrupt.
set -eu

# Whatever the caller's shell says: every user may read what is installed, and it goes into .venv.
umask 022
unset CDPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT UV_SYSTEM_PYTHON PYTHONHOME PYTHONPATH

cd "$(dirname "$0")/.."
stamp=.venv/.installed

fail() {
    echo "tandem: $1" >&2
    exit 1
}

find_python() {
    # The distribution's own, where it can make an environment as it is: it is compiled with all optimisations, and a
    # version manager's, which comes first in many a PATH, is not as a rule and takes a fifth more CPU for everything.
    own=/usr/bin/python3
    if [ -z "${PYTHON:-}" ] &&
        "$own" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$own"
        return
    fi
    for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3.14 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer was not found"
}

as_root() {
    # sudo passes no proxy on.
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo env ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
            ${no_proxy:+"no_proxy=$no_proxy"} "$@"
    fi
}

# apt's first error; where apt did not get to run, the last line, in which sudo says why it refused.
complaint() {
    grep -m 1 '^E: ' "$1" | cut -c 4- | grep . || tail -n 1 "$1"
}

make_venv() {
    python=$(find_python)
    # Debian splits the module that `venv` needs into a package of its own.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
        echo "installing $package"
        mkdir -p .run
        log=.run/bootstrap-apt.log
        as_root apt-get -q -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 || true
        as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -q -y -o DPkg::Lock::Timeout=300 install \
            --no-install-recommends "$package" >>"$log" 2>&1 ||
            fail "apt-get could not install $package: $(complaint "$log") (all it said is in $log)"
    fi
    # A venv whose Python has gone, or that was moved here from another clone, does not start.
    if ! [ .venv/bin/python -ef "$PWD/.venv/bin/python" ] || ! .venv/bin/python -c '' 2>/dev/null; then
        rm -rf .venv
    fi
    [ -d .venv ] || "$python" -m venv .venv || fail "a virtual environment could not be made with $python"
}

main() {
    # Another make may have finished while this one waited for the lock.
    if [ -f "$stamp" ] && ! [ requirements.lock -nt "$stamp" ]; then exit 0; fi
    started=$(date +%s)
    echo "… installing the Python packages of requirements.lock into .venv"
    make_venv
    # uv does in seconds what takes pip a minute; its version and hashes are those of the lock file itself.
    only_uv=.venv/uv-requirement.txt
    awk '/^uv==/ { found = 1; print; next } found && /^ *(--hash|#)/ { print; next } { found = 0 }' \
        requirements.lock >"$only_uv"
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r "$only_uv" ||
        fail "pip could not install uv"
    # Compiled now: else every process compiles for itself (5 s of CPU each) where Python may not write bytecode.
    .venv/bin/uv pip sync -q --compile-bytecode --python .venv/bin/python --require-hashes requirements.lock ||
        fail "the packages of requirements.lock could not be installed"
    touch "$stamp"
    echo "✓ installing the Python packages ($(($(date +%s) - started)) s)"
}

if command -v flock >/dev/null 2>&1 && [ -z "${TANDEM_BOOTSTRAP_LOCKED:-}" ]; then
    mkdir -p .run
    exec env TANDEM_BOOTSTRAP_LOCKED=1 flock .run/bootstrap.lock sh deploy/bootstrap.sh
fi
main
