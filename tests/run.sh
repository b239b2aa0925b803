#!/bin/bash
# Everything that must hold before a change goes in: format, lints, documentation, the demo, all tests on real servers.
#
#   run.sh [cargo test arguments...]      with arguments: only `cargo test` with them, after the servers are there
#
# The servers come from testbed/setup.sh on the first run. Each step says how long it took; the last line sums the tests
# up. Exit 0 if all is well. Tests whose servers are pods need network namespaces: root has the right to make them, anybody
# else's tests run in a user namespace. RUST_TEST_THREADS: tests of one file that run at the same time; a test starts up to six
# servers, so the default is two however many cores there are. HOLDFAST_TLS: without arguments each client library is tried with
# TLS on one kind of server and without on the other (`turns`), with arguments both ways on both (`both`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/testbed/lib.sh
say() { printf 'run.sh: %s\n' "$*"; }
die() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }
command -v cargo > /dev/null || PATH=$PATH:$HOME/.cargo/bin
command -v cargo > /dev/null || die "no cargo: install Rust, see https://rustup.rs"
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}
if [ "$(id -u)" != 0 ]; then
  HOST=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  export "CARGO_TARGET_${HOST}_RUNNER=$PWD/tests/testbed/in-namespace.sh"
fi
BEGIN=$(now)
OUT=$(mktemp)
trap 'rm -f "$OUT"' EXIT

step() { # NAME COMMAND...
  local t name=$1; shift; t=$(now)
  say "$name: $*"
  "$@" || die "$name failed: $*"
  TIMES+=("$(printf '%10s  %s' "$(since "$t")" "$name")")
}

# The demo on ports and in a folder of its own, so that one the user runs goes on.
demo() { # [OPTIONS...]
  local range=${HOLDFAST_TESTBED_PORTS:-11000-31999} base
  base=$((${range%-*} + RANDOM % ((${range#*-} - ${range%-*}) / 100 + 1) * 100))
  while ports_taken "$base"; do base=$((base + 100)); [ "$base" -lt 32700 ] || die "no ports for the demo"; done
  HOLDFAST_DEMO_PROFILE=dev HOLDFAST_DEMO_DIR=$TESTBED/demo-of-tests HOLDFAST_DEMO_PORT=$base HOLDFAST_DEMO_ADMIN=$((base + 1)) \
    HOLDFAST_DEMO_SERVERS=$((base + 10)) bash deploy/local/demo.sh --once "$@"
}
ports_taken() { local o; for o in 0 1 2 11 12 13 61 62 63; do ! port_taken $(($1 + o)) || return 0; done; return 1; }

tests() {
  local code=0 t; t=$(now)
  say "tests: cargo test $* (RUST_TEST_THREADS=$RUST_TEST_THREADS)"
  cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$OUT" || code=$?
  TIMES+=("$(printf '%10s  %s' "$(since "$t")" "tests")")
  printf '\nrun.sh: times (of the test files, without building)\n'
  printf '%s\n' "${TIMES[@]}"
  awk '/^ +Running |^ +Doc-tests / { name = $2 == "unittests" ? $3 : $2 }
       /^test result:/ { if (match($0, /finished in .*/)) printf "%10s    %s\n", substr($0, RSTART + 12), name }' "$OUT" |
    sort -rn | head -n 12
  say "$(since "$BEGIN") altogether"
  awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$OUT"
  return "$code"
}

TIMES=()
step "servers" bash tests/testbed/setup.sh
step "client libraries" bash tests/clients/setup.sh
if [ $# = 0 ]; then
  step "format" cargo fmt --check
  step "lints" cargo clippy --quiet --locked --all-targets -- -D warnings
  # With the examples: so the dependencies have the features that the lints have checked them with already.
  step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --lib --bins --examples
  step "build of the tests" cargo test --quiet --locked --no-run
  step "demo" demo
  step "demo in Kubernetes" demo --kubernetes
  export HOLDFAST_TLS=${HOLDFAST_TLS:-turns}
fi
tests "$@"
