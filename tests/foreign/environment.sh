# shellcheck shell=bash
# Sourced by scripts that need the broker's binary or clients in other languages.
# A thing that cannot be had makes the function fail and sets `why`; the caller says NOT RUN.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
foreign=$top/tests/foreign
# What a script returns that could not run: neither passed nor failed.
NOT_RUN=77

# Builds the broker and sets `binary`: `broker_build release` or `broker_build debug`.
broker_build() {
  local flags=()
  [ "$1" = release ] && flags=(--release)
  (cd "$top" && cargo build --quiet --bin ringmq "${flags[@]}") || return 1
  binary=${CARGO_TARGET_DIR:-$top/target}/$1/ringmq
}

# Sets `python` to an interpreter that has paho-mqtt and aiomqtt.
python_environment() {
  python=$foreign/.venv/bin/python
  "$python" -c 'import paho.mqtt.client, aiomqtt' 2>/dev/null && return 0
  if ! command -v python3 >/dev/null; then why="no python3"; return 1; fi
  if ! python3 -m venv "$foreign/.venv" >/dev/null 2>&1; then
    # Debian keeps venv in a package of its own.
    system_package python3-venv && python3 -m venv --clear "$foreign/.venv" >/dev/null 2>&1 ||
      { why="python3 has no venv module"; return 1; }
  fi
  timeout 180 "$python" -m pip install --quiet --disable-pip-version-check -r "$foreign/requirements.txt" \
    >/dev/null 2>&1 || { why="pip could not install paho-mqtt and aiomqtt"; return 1; }
}

# Puts MQTT.js where the tests find it.
node_environment() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then why="no node with npm"; return 1; fi
  [ -d "$foreign/node_modules/mqtt" ] && return 0
  (cd "$foreign" && timeout 180 npm install --silent --no-audit --no-fund >/dev/null 2>&1) ||
    { why="npm could not install mqtt"; return 1; }
}

# Installs a Debian package where that is possible.
system_package() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  timeout 180 apt-get install -y -qq "$1" >/dev/null 2>&1 && return 0
  timeout 120 apt-get update -qq >/dev/null 2>&1 && timeout 180 apt-get install -y -qq "$1" >/dev/null 2>&1
}
