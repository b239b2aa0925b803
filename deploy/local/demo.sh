#!/bin/bash
# Holdfast on one machine: three MySQL servers in a group, the proxy in front, clients that write and read, and a kill -9.
#
#   demo.sh           shows it, then stays up for your own mysql client; Ctrl-C stops everything
#   demo.sh --once    shows it, then stops everything; exit 0 if every promise was kept
#
# Needs Debian 12 or similar with Rust (cargo), a C compiler, and a network for packages. Nothing is installed on the host
# except, as root and only if it is missing, the compiler. MySQL goes where tests/testbed/setup.sh puts it:
# ${HOLDFAST_TESTBED:-~/.cache/holdfast/testbed}; a mysqld of the host can be named with HOLDFAST_MYSQLD.
#
# Listens on 127.0.0.1 only: HOLDFAST_DEMO_PORT=6446 the proxy, HOLDFAST_DEMO_ADMIN=6480 its admin port,
# HOLDFAST_DEMO_SERVERS=6450 the servers (6451-6453, and 6501-6503 among themselves). HOLDFAST_DEMO_PROFILE=dev builds
# quicker and runs slower. HOLDFAST_DEMO_DIR is where its servers and logs live (a folder in the testbed's).
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/tests/testbed/lib.sh"
say() { printf 'demo: %s\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

PORT=${HOLDFAST_DEMO_PORT:-6446} ADMIN=${HOLDFAST_DEMO_ADMIN:-6480} P0=${HOLDFAST_DEMO_SERVERS:-6450}
PROFILE=${HOLDFAST_DEMO_PROFILE:-release}
D=${HOLDFAST_DEMO_DIR:-$TESTBED/demo} GROUP=${HOLDFAST_DEMO_DIR:-$TESTBED/demo}/group
BEGIN=$(now)
once=
case ${1:-} in
  '') ;;
  --once) once=1 ;;
  *) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; [ "$1" = --help ] || [ "$1" = -h ] || exit 2; exit 0 ;;
esac

main() {
  [ -z "$once" ] || say "--once: ends by itself; all of it takes about 30 s when MySQL and the build are there, else minutes"
  tools
  mkdir -p "$D"
  leftovers
  echo $$ > "$D/pid"
  trap 'code=$?; trap - EXIT INT TERM HUP; cleanup; exit $code' EXIT
  trap 'echo; say "stopped by a signal"; exit 130' INT TERM HUP

  step "MySQL server and client"
  "$HERE/setup.sh" mysql
  load_env
  done_step
  build
  servers
  proxy
  workload
  [ -n "$once" ] || stay
}

step() { STEP=$(now); say "$*..."; }
done_step() { say "    took $(since "$STEP")"; }

# Rust and what it links with.
tools() {
  command -v cargo > /dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo > /dev/null || die "no cargo: install Rust, see https://rustup.rs"
  command -v cc > /dev/null && return
  [ "$(id -u)" = 0 ] || die "no C compiler, which Rust links with: sudo apt-get install gcc libc6-dev"
  step "C compiler, which Rust links with (apt-get install gcc libc6-dev)"
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends gcc libc6-dev; } > /tmp/holdfast-demo-apt.log 2>&1 ||
    die "could not install it, see /tmp/holdfast-demo-apt.log"
  done_step
}

# An earlier demo that still runs, or was killed and left its servers.
leftovers() {
  local p i
  if p=$(running pid demo.sh); then
    say "an earlier demo still runs (pid $p): stopping it"
    kill -TERM "$p"
    for i in $(seq 600); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
    ! kill -0 "$p" 2>/dev/null || die "it does not stop; end it yourself: kill -9 $p, and run this again"
  fi
  if running proxy.pid "$D/holdfast.toml" > /dev/null || [ -e "$GROUP/group" ]; then
    say "cleaning up what an earlier demo left"
    cleanup
  fi
  for p in "$PORT" "$ADMIN" $((P0 + 1)) $((P0 + 2)) $((P0 + 3)); do
    ! port_taken "$p" || die "port $p is taken; choose others: HOLDFAST_DEMO_PORT, HOLDFAST_DEMO_ADMIN, HOLDFAST_DEMO_SERVERS"
  done
}
running() { # FILE WORD: the pid in that file, if it is a process whose command line has the word
  local p; p=$(cat "$D/$1" 2>/dev/null) && [ -n "$p" ] && [ "$p" != $$ ] || return 1
  { tr '\0' ' ' < "/proc/$p/cmdline"; } 2>/dev/null | grep -qF -- "$2" && echo "$p"
}

cleanup() {
  local p i
  if p=$(running workload.pid demo-workload); then kill -9 "$p" 2>/dev/null || true; fi
  if p=$(running proxy.pid "$D/holdfast.toml"); then
    kill -TERM "$p" 2>/dev/null || true
    for i in $(seq 100); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$p" 2>/dev/null || true
  fi
  if [ -e "$GROUP/group" ]; then "$HERE/group.sh" stop "$GROUP" || true; fi
  rm -rf "$GROUP" "$D"/*.pid "$D/pid"
  say "stopped; nothing is left running (the proxy's log: $D/proxy.log)"
}

build() {
  step "building the proxy and the demo's clients ($PROFILE; the first time takes minutes)"
  local flags=(); [ "$PROFILE" = dev ] || flags=(--profile "$PROFILE")
  (cd "$ROOT" && cargo build --quiet --locked "${flags[@]}" --bin holdfast --example demo-workload) || die "the build failed"
  local target
  target=$(cd "$ROOT" && cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d '"' -f 4)
  BIN=$target/${PROFILE/#dev/debug}
  done_step
}

servers() {
  step "a group of three MySQL servers on 127.0.0.1:$((P0 + 1))-$((P0 + 3)) (member_expel_timeout=0, so that a dead primary is replaced after some 6 s)"
  EXPEL_TIMEOUT=0 "$HERE/group.sh" start "$GROUP" "$P0"
  done_step
}

proxy() {
  step "the proxy on 127.0.0.1:$PORT, admin port 127.0.0.1:$ADMIN"
  cat > "$D/holdfast.toml" <<T
[admin]
listen = "127.0.0.1:$ADMIN"

[[listener]]
name = "app"
listen = "127.0.0.1:$PORT"
cluster = "demo"

[[cluster]]
name = "demo"
source = "members"
seeds = ["127.0.0.1:$((P0 + 1))", "127.0.0.1:$((P0 + 2))", "127.0.0.1:$((P0 + 3))"]
account = { user = "holdfast", password = "holdfast" }
T
  setsid "$BIN/holdfast" proxy -c "$D/holdfast.toml" > "$D/proxy.log" 2>&1 < /dev/null &
  echo $! > "$D/proxy.pid"
  await_followers 2
  done_step
}
# http PATH: the body of the admin port's answer
http() {
  exec 7<> "/dev/tcp/127.0.0.1/$ADMIN" || return 1
  printf 'GET %s HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n' "$1" >&7
  sed '1,/^\r$/d' <&7
  exec 7>&-
}
followers() { (http /topology) 2>/dev/null | grep -c '"role": "follower"' || true; }
await_followers() { # COUNT: until the proxy has proven a primary and so many followers
  local i
  for i in $(seq 600); do
    [ "$( (http /readyz) 2>/dev/null)" = ready ] && [ "$(followers)" -ge "$1" ] && return
    running proxy.pid "$D/holdfast.toml" > /dev/null || { tail -n 5 "$D/proxy.log" >&2; die "the proxy ended"; }
    sleep 0.1
  done
  die "the proxy does not see a primary and $1 followers after 60 s: $( (http /readyz) 2>/dev/null)"
}

workload() {
  local before after code=0
  before=$("$HERE/group.sh" primary "$GROUP")
  step "clients write and read through the proxy; then the primary, $before, is killed with -9"
  "$BIN/examples/demo-workload" --proxy "127.0.0.1:$PORT" --admin "127.0.0.1:$ADMIN" --user app --password app \
    --kill "$(node_pid "$GROUP/$((before - P0))")" &
  echo $! > "$D/workload.pid"
  wait $! || code=$?
  rm -f "$D/workload.pid"
  after=$("$HERE/group.sh" primary "$GROUP") || after=none
  done_step
  say "primary before: $before, after: $after"
  [ "$after" != "$before" ] && [ "$after" != none ] || code=1
  [ "$code" = 0 ] || { say "FAILED: a promise was broken, see above"; tail -n 20 "$D/proxy.log" >&2; exit 1; }
  say "every promise was kept, in $(since "$BEGIN") altogether"
}

stay() {
  local p
  step "the killed server comes back as a follower"
  for p in $((P0 + 1)) $((P0 + 2)) $((P0 + 3)); do
    node_pid "$GROUP/$((p - P0))" > /dev/null || "$HERE/group.sh" rejoin "$GROUP" "$p"
  done
  await_followers 2
  done_step
  cat <<T

Yours now. In another terminal:

  $MYSQL --no-defaults -h127.0.0.1 -P$PORT -uapp -papp --get-server-public-key

  SELECT @@port;                                    a follower answers
  /* holdfast:primary */ SELECT @@port;             the primary answers
  SELECT server, COUNT(*) FROM holdfast_demo.writes GROUP BY server;

Kill the primary as often as you like, and bring it back:

  G="$HERE/group.sh"; HOLDFAST_TESTBED=$TESTBED bash "\$G" status $GROUP
  HOLDFAST_TESTBED=$TESTBED bash "\$G" kill   $GROUP \$(HOLDFAST_TESTBED=$TESTBED bash "\$G" primary $GROUP)
  HOLDFAST_TESTBED=$TESTBED bash "\$G" rejoin $GROUP PORT

Status page http://127.0.0.1:$ADMIN/, metrics http://127.0.0.1:$ADMIN/metrics, log $D/proxy.log
Ctrl-C stops everything.
T
  wait "$(cat "$D/proxy.pid")" || true
  tail -n 5 "$D/proxy.log" >&2
  die "the proxy ended"
}

main
