#!/bin/bash
# Holdfast beside HAProxy, MySQL Router and no proxy at all: same backend, client, machine and run.
#
#   bash benches/compare/run.sh [--quick] [--rounds N] [--port-base PORT]
#   bash benches/compare/run.sh --real [SECONDS]       a smaller comparison on a real mysqld with sysbench
#
# Fetches HAProxy and Router into the testbed's folder if they are not there (nothing is installed), builds with
# optimization, and writes results.json, RESULTS.md and compare.svg to target/compare. Full: 7 minutes; --quick: 1 minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/testbed/lib.sh
real=
[ "${1:-}" != --real ] || { real=1; shift; }
bash tests/testbed/setup.sh ${real:+mysql} haproxy router
load_env
if [ -d "${MYSQLROUTER_PLUGINS:-}" ]; then export MYSQLROUTER_PLUGINS; else unset MYSQLROUTER_PLUGINS; fi
export HAPROXY MYSQLROUTER
cargo build --release --bin holdfast --example compare
target=${CARGO_TARGET_DIR:-target}
export HOLDFAST=$target/release/holdfast
# Each of a thousand idle sessions has two sockets in a proxy.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
if [ -n "$real" ]; then exec bash benches/compare/real.sh "$@"; fi
exec "$target/release/examples/compare" run "$@"
