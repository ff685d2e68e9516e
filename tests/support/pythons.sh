#!/bin/sh
# Runs the unit tests on each installed Python from 3.8 to 3.13, with the oldest and with the newest
# dependencies that pyproject.toml allows. Reports the missing Pythons.
#
#   pythons.sh [VERSION…]
set -eu

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/slurm-usage-history-exporter-tests/pythons
cd "$(dirname "$0")/../.."
unset PYTHONPATH

# The interpreter of a version: in PATH, or one of pyenv's.
find_python() {
    for python in "$(command -v "python$1" || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        # pyenv also has names in PATH for versions that are not active.
        [ -x "$python" ] && "$python" -c '' 2>/dev/null && echo "$python" && return
    done
}

# The lower bounds in pyproject.toml as exact versions, without those of tools that the unit tests do not need.
# shellcheck disable=SC2317  # called by the name of the column
oldest() { grep -o '"[a-z-][a-z-]*>=[0-9.]*' pyproject.toml | tr -d '"' | grep -vE '^(setuptools|coverage)' | sort -u | sed 's/>=/==/'; }
# shellcheck disable=SC2317
newest() { oldest | sed 's/==.*//'; }

run() { # PYTHON VERSION oldest|newest
    venv=$CACHE/$2-$3-$("$3" | cksum | cut -d' ' -f1)
    if [ ! -e "$venv/ready" ]; then
        "$1" -m venv --clear "$venv" || return
        # shellcheck disable=SC2046  # a list
        "$venv/bin/pip" install --quiet --disable-pip-version-check pytest pytest-timeout hypothesis $("$3") ||
            return
        touch "$venv/ready"
    fi
    echo "Python $2 with the $3 of $("$venv/bin/pip" freeze --disable-pip-version-check | grep -iE '^(requests|tomli|urllib3)=' | tr '\n' ' ')"
    "$venv/bin/python" -m pytest --quiet -p no:cacheprovider tests/unit
}

status=0
[ $# -gt 0 ] || set -- 3.8 3.9 3.10 3.11 3.12 3.13
for version; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "Python $version is not here"
        continue
    fi
    for which in oldest newest; do run "$python" "$version" "$which" || status=1; done
done
exit $status
