#!/usr/bin/env bash
# The README's commands, run for real; called by `make demo`, which has built what they need.
# As root: two lab hosts with one stand-in GPU each, and a tiny Qwen2 that is tensor parallel over them through Ray.
# Otherwise: the same commands on this machine alone, `connection: local`.
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=$PWD
python=${PYTHON:-python3}
venv=$("$python" tests/environments/build.py node)
FSD_TINY_MODEL=$("$python" tests/environments/build.py model)
export FSD_TINY_MODEL PATH=$repository/.venv/bin:$PATH
work=$repository/outputs/demo
rm -rf "$work"
mkdir -p "$work"
# What `run` prints for people to paste is pasted as it is; here an HTTP error has to fail, and logs need no progress bar.
printf 'fail\nsilent\nshow-error\n' >"$work/.curlrc"
export CURL_HOME=$work
bold= plain=
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

# Prints a command line, and runs exactly what it printed.
type_in() {
  printf '\n%s$ %s%s\n' "$bold" "$1" "$plain"
  eval "$1"
}

# The curl line that `run` printed, with the lines it goes on over.
printed_curl() {
  awk '/^[[:space:]]*curl / { on = 1 } on { print } on && !/\\$/ { exit }' "$1"
}

two_hosts() {
  base=$(dirname "$(dirname "$(readlink -f "$venv/bin/python")")")
  # The lab ends with this script's process, however that ends.
  up=$(python -m tests.lab up 2 --gpus 1 --owner $$ --mount "$venv" --mount "$base" --mount "$FSD_TINY_MODEL" \
    --inventory "$work/hosts.yaml" --var venv="$venv")
  echo "$up"
  slot=$(sed -E 's/^slot ([0-9]+):.*/\1/' <<<"$up")
  cp tests/demo/qwen-two-hosts.yaml "$work/qwen.yaml"
}

this_machine() {
  echo "this machine alone, instead of two lab hosts"
  printf 'hosts:\n  - name: localhost\n    connection: local\n    venv: %s\n' "$venv" >"$work/hosts.yaml"
  cp examples/tiny-qwen2-cpu.yaml "$work/qwen.yaml"
}

take_back() {
  status=$?
  trap - EXIT
  if [ "$status" != 0 ]; then
    echo "demo: a command failed with status $status; what it says is above, logs are in $work" >&2
    flagscale-deploy cleanup -i hosts.yaml -c qwen.yaml >/dev/null 2>&1 || true
  fi
  [ -z "${slot:-}" ] || (cd "$repository" && python -m tests.lab --slot "$slot" down) || status=1
  exit "$status"
}

trap take_back EXIT
if python -m tests.lab possible; then two_hosts; else this_machine; fi
cd "$work"
type_in 'cat hosts.yaml qwen.yaml'
type_in 'flagscale-deploy plan -i hosts.yaml -c qwen.yaml'
type_in 'flagscale-deploy check -i hosts.yaml -c qwen.yaml'
type_in 'flagscale-deploy run -i hosts.yaml -c qwen.yaml | tee run.txt'
type_in 'flagscale-deploy call -i hosts.yaml -c qwen.yaml --max-tokens 16 "The quick brown fox"'
curl=$(printed_curl run.txt)
[ -n "$curl" ] || { echo "demo: run printed no curl line" >&2; exit 1; }
type_in "$curl"
echo
type_in 'flagscale-deploy status -i hosts.yaml -c qwen.yaml'
type_in 'flagscale-deploy logs -i hosts.yaml -c qwen.yaml -o logs'
type_in 'flagscale-deploy stop -i hosts.yaml -c qwen.yaml'
type_in 'flagscale-deploy cleanup -i hosts.yaml -c qwen.yaml'
printf '\nThe tokens are random, as the weights are; plans, logs and scripts of this demo are in %s\n' "$work"
