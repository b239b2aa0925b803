#!/bin/bash
# Holdfast on one machine: three MySQL servers in a group, the proxy in front, clients that write and read, and a kill -9.
#
#   demo.sh                   shows it, then stays up for your own mysql client; Ctrl-C stops everything
#   demo.sh --once            shows it, then stops everything; exit 0 if every promise was kept
#   demo.sh --kubernetes [--once]   the same with a real Kubernetes API server: a MysqlCluster is made, `holdfast reconcile` keeps
#                             it, its servers run in pods, each in a network namespace of its own, and the proxy watches the pods
#
# Needs Debian 12 or similar with Rust (cargo), a C compiler, and a network for packages. Nothing is installed on the host
# except, as root and only if it is missing, the compiler. MySQL goes where tests/testbed/setup.sh puts it:
# ${HOLDFAST_TESTBED:-~/.cache/holdfast/testbed}; a mysqld of the host can be named with HOLDFAST_MYSQLD.
#
# Listens on 127.0.0.1 only: HOLDFAST_DEMO_PORT=6446 the proxy, HOLDFAST_DEMO_ADMIN=6480 its admin port (6481 the reconciler's),
# HOLDFAST_DEMO_SERVERS=6450 the servers (6451-6453, and 6501-6503 among themselves). HOLDFAST_DEMO_PROFILE=dev builds
# quicker and runs slower. HOLDFAST_DEMO_DIR is where its servers and logs live (a folder in the testbed's).
#
# --kubernetes: etcd and the API server are obtained the same way (built from Debian's source: 4 to 5 minutes the first time)
# and take ports from HOLDFAST_TESTBED_PORTS. Needs `ip` (iproute2) and the right to make network namespaces: root's, or a
# user namespace, into which everything goes if you are not root.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/tests/testbed/lib.sh"
say() { printf 'demo: %s\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

PORT=${HOLDFAST_DEMO_PORT:-6446} ADMIN=${HOLDFAST_DEMO_ADMIN:-6480} P0=${HOLDFAST_DEMO_SERVERS:-6450}
PROFILE=${HOLDFAST_DEMO_PROFILE:-release}
D=${HOLDFAST_DEMO_DIR:-$TESTBED/demo} GROUP=${HOLDFAST_DEMO_DIR:-$TESTBED/demo}/group
CLUSTER=$D/cluster ACCOUNT_PASSWORD=holdfast
# where the programs are, and when all began: set by ourselves once we are in a namespace of our own
BIN=${HOLDFAST_DEMO_INSIDE:-} BEGIN=${HOLDFAST_DEMO_BEGIN:-$(now)}
once= kubernetes=
for argument in "$@"; do
  case $argument in
    --once) once=1 ;;
    --kubernetes) kubernetes=1 ;;
    *)
      sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'
      [ "$argument" = --help ] || [ "$argument" = -h ] || exit 2
      exit 0 ;;
  esac
done

main() {
  if [ -z "$BIN" ]; then prepare; else load_env; stop_at_the_end; fi
  if [ -n "$kubernetes" ]; then
    own_namespace "$@"
    api_server
    mysql_cluster
    ACCOUNT_PASSWORD=$(password proxy)
    proxy "source = \"kubernetes\"
kubernetes = { kubeconfig = \"$CLUSTER/proxy.kubeconfig\", namespace = \"demo\", preset = \"holdfast\", cluster = \"demo\" }"
    kill_a_pod
    timelines_of_pods
    story
  else
    servers
    proxy "source = \"members\"
seeds = [\"127.0.0.1:$((P0 + 1))\", \"127.0.0.1:$((P0 + 2))\", \"127.0.0.1:$((P0 + 3))\"]"
    kill_a_server
    timelines
  fi
  say "all of it took $(since "$BEGIN")"
  [ -n "$once" ] || stay
}

# All that needs the host's network.
prepare() {
  [ -z "$once" ] || say "--once: ends by itself; all of it takes about 30 s when the servers and the build are there, else minutes"
  tools
  mkdir -p "$D"
  leftovers
  echo $$ > "$D/pid"
  stop_at_the_end
  step "MySQL server and client${kubernetes:+, etcd and the Kubernetes API server}"
  "$HERE/setup.sh" mysql ${kubernetes:+kubernetes}
  load_env
  done_step
  build
}

stop_at_the_end() {
  trap 'code=$?; trap - EXIT INT TERM HUP; cleanup; exit $code' EXIT
  trap 'echo; say "stopped by a signal"; exit 130' INT TERM HUP
}

# Pods need network namespaces, which only root may make: of the host, or of a user namespace. Does not return in the
# latter case: this process goes on there.
own_namespace() {
  if [ -z "${HOLDFAST_DEMO_INSIDE:-}" ] && [ "$(id -u)" != 0 ]; then
    unshare --map-root-user --net true || die "no user namespaces here, which pods need: run this as root"
    HOLDFAST_DEMO_INSIDE=$BIN HOLDFAST_DEMO_BEGIN=$BEGIN exec sh "$HERE/in-namespace.sh" bash "${BASH_SOURCE[0]}" "$@"
  fi
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
  if running proxy.pid "$D/holdfast.toml" > /dev/null || running reconciler.pid "$CLUSTER" > /dev/null || running cluster.pid demo-cluster > /dev/null || [ -e "$GROUP/group" ]; then
    say "cleaning up what an earlier demo left"
    cleanup
  fi
  local ports=("$PORT" "$ADMIN")
  if [ -n "$kubernetes" ]; then ports+=($((ADMIN + 1))); else ports+=($((P0 + 1)) $((P0 + 2)) $((P0 + 3))); fi
  for p in "${ports[@]}"; do
    ! port_taken "$p" || die "port $p is taken; choose others: HOLDFAST_DEMO_PORT, HOLDFAST_DEMO_ADMIN, HOLDFAST_DEMO_SERVERS"
  done
}
running() { # FILE WORD: the pid in that file, if it is a process whose command line has the word
  local p; p=$(cat "$D/$1" 2>/dev/null) && [ -n "$p" ] && [ "$p" != $$ ] || return 1
  lives "$p" "$2" && echo "$p"
}

cleanup() {
  local p i
  if p=$(running workload.pid demo-workload); then kill -9 "$p" 2>/dev/null || true; fi
  if p=$(running proxy.pid "$D/holdfast.toml"); then end "$p"; fi
  if p=$(running reconciler.pid "$CLUSTER"); then end "$p"; fi
  if p=$(running cluster.pid demo-cluster); then end "$p"; fi
  if [ -e "$GROUP/group" ]; then "$HERE/group.sh" stop "$GROUP" || true; fi
  rm -rf "$GROUP" "$CLUSTER" "$D"/*.pid "$D/pid"
  say "stopped; nothing is left running (the proxy's log: $D/proxy.log)"
}

end() { # PID: TERM, and KILL after 10 s
  local i
  kill -TERM "$1" 2>/dev/null || true
  for i in $(seq 100); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
  kill -9 "$1" 2>/dev/null || true
}

build() {
  step "building the proxy and the demo's clients ($PROFILE; the first time takes minutes)"
  local flags=(); [ "$PROFILE" = dev ] || flags=(--profile "$PROFILE")
  (cd "$ROOT" && cargo build --quiet --locked "${flags[@]}" --bin holdfast --example demo-workload ${kubernetes:+--example demo-cluster}) || die "the build failed"
  local target
  target=$(cd "$ROOT" && cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d '"' -f 4)
  BIN=$target/${PROFILE/#dev/debug}
  done_step
}

servers() {
  step "a group of three MySQL servers on 127.0.0.1:$((P0 + 1))-$((P0 + 3)) (member_expel_timeout=0, so that a dead primary is replaced after some 6 s)"
  EXPEL_TIMEOUT=0 "$HERE/group.sh" start "$GROUP" "$P0"
  "$HERE/sql.sh" "$("$HERE/group.sh" primary "$GROUP")" "GRANT REPLICATION SLAVE ON *.* TO holdfast@'%'" # for exactly_once
  done_step
}

api_server() {
  local p
  step "a Kubernetes: API server and controllers, and a node whose pods run in network namespaces of their own"
  rm -rf "$CLUSTER"; mkdir -p "$CLUSTER"
  HOLDFAST_TESTBED=$TESTBED setsid "$BIN/examples/demo-cluster" "$CLUSTER" --holdfast "$BIN/holdfast" 2> "$D/cluster.log" < /dev/null &
  p=$!; echo $p > "$D/cluster.pid"
  await "the Kubernetes cluster" "$p" "$D/cluster.log" test -e "$CLUSTER/pods"
  done_step
}
# await WHAT PID LOG COMMAND...: until the command succeeds, for as long as that process lives
await() {
  local i what=$1 p=$2 log=$3; shift 3
  for i in $(seq 600); do
    ! "$@" > /dev/null 2>&1 || return 0
    kill -0 "$p" 2>/dev/null || { tail -n 5 "$log" >&2; die "$what: its process ended"; }
    sleep 0.2
  done
  tail -n 5 "$log" >&2
  die "$what is not ready after 2 minutes, see $log"
}
kubectl() { "$KUBECTL" --kubeconfig "$CLUSTER/kubeconfig" --cache-dir "$CLUSTER/cache" -n demo "$@"; }
of_pod() { awk -v pod="$1" -v field="$2" '$1 == pod { print $field }' "$CLUSTER/pods"; } # NAME 2: its address; 3: its process
of_myc() { kubectl get mysqlcluster demo -o "jsonpath={$1}"; }
password() { kubectl get secret demo-accounts -o "go-template={{index .data \"$1\" | base64decode}}"; }
is_ready() { [ "$(of_myc '.status.conditions[?(@.type=="Ready")].status')" = True ]; }
# the primary, unless it is about to change
primary_pod() {
  local primary; primary=$(of_myc .status.primary)
  [ "$primary" != "$(of_myc .status.targetPrimary)" ] || echo "$primary"
}

# What the README's MysqlClusters says, with the reconciler as a process of ours.
mysql_cluster() {
  local p folder
  step "a MysqlCluster: its kind, the rights of reconciler and proxy, the reconciler, and the cluster itself"
  kubectl apply --validate=false -f "$ROOT/deploy/crds" | indented
  for folder in base reconciler; do
    kubectl apply -f "$ROOT/deploy/kubernetes/$folder/role.yaml" -f "$ROOT/deploy/kubernetes/$folder/rolebinding.yaml" | indented
  done
  await "the kind MysqlCluster" "$(cat "$D/cluster.pid")" "$D/cluster.log" kubectl get myc,myo
  setsid "$BIN/holdfast" reconcile --kubeconfig "$CLUSTER/reconciler.kubeconfig" --namespace demo --listen "127.0.0.1:$((ADMIN + 1))" > "$D/reconciler.log" 2>&1 < /dev/null &
  p=$!; echo $p > "$D/reconciler.pid"
  kubectl apply -f "$ROOT/deploy/local/cluster/mysqlcluster.yaml" | indented
  await "the MysqlCluster" "$p" "$D/reconciler.log" is_ready
  sql_on_primary "CREATE USER app@'%' IDENTIFIED BY 'app'; GRANT ALL ON *.* TO app@'%'"
  kubectl get myc | indented
  roles
  done_step
}
indented() { sed 's/^/  /'; }
roles() {
  local columns='POD:.metadata.name,ADDRESS:.status.podIP,READY:.status.containerStatuses[0].ready,RESTARTS:.status.containerStatuses[0].restartCount'
  kubectl get pods -o custom-columns="$columns,ROLE:.metadata.labels.holdfast\\.io/role,TERM:.metadata.annotations.holdfast\\.io/term" | indented
}
# as root, on the primary's own address
sql_on_primary() { MYSQL_PWD=$(password root) client -h "$(of_pod "$(primary_pod)" 2)" -uroot -e "$1"; }

# proxy LINES: with these lines, which say where the servers are
proxy() {
  step "the proxy on 127.0.0.1:$PORT, admin port 127.0.0.1:$ADMIN"
  cat > "$D/holdfast.toml" <<T
[admin]
listen = "127.0.0.1:$ADMIN"

[[listener]]
name = "app"
listen = "127.0.0.1:$PORT"
cluster = "demo"
exactly_once = true

[[cluster]]
name = "demo"
$1
account = { user = "holdfast", password = "$ACCOUNT_PASSWORD" }
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

kill_a_server() {
  local before after code=0
  before=$("$HERE/group.sh" primary "$GROUP")
  step "clients write and read through the proxy; then the primary, $before, is killed with -9"
  workload "$(node_pid "$GROUP/$((before - P0))")" || code=$?
  after=$("$HERE/group.sh" primary "$GROUP") || after=none
  done_step
  verdict "$before" "$after" "$code"
}

kill_a_pod() {
  local before after code=0
  before=$(primary_pod)
  step "clients write and read through the proxy; then the server of the primary, pod $before, is killed with -9"
  workload "$(of_pod "$before" 3)" --server @@hostname || code=$?
  after=$(moved_from "$before") || after=none
  proven "$after" || { say "the proxy's primary is not the MysqlCluster's, $after"; code=1; }
  roles
  done_step
  verdict "$before" "$after" "$code"
}
moved_from() { # POD: the primary, once it is another one
  local i primary
  for i in $(seq 300); do
    primary=$(primary_pod) || true
    case $primary in '' | "$1") sleep 0.2 ;; *) echo "$primary"; return ;; esac
  done
  return 1
}
# proven POD: the proxy has proven that one
proven() { (http /topology) | grep -F > /dev/null "\"primary\": \"$(of_pod "$1" 2):3306\""; }

# What clients see when the primary's server is killed and when its pod is deleted.
timelines_of_pods() {
  local before after trigger
  for trigger in kill delete; do
    come_back
    before=$(primary_pod)
    of_pod "$before" 3 > "$CLUSTER/primary.pid"
    case $trigger in
      kill) timeline kill "kill -9, pod $before" --trigger kill --pid-file "$CLUSTER/primary.pid" $(server_options) ;;
      delete)
        timeline delete "end, when its pod $before is deleted" --trigger command $(server_options) \
          --trigger-command "'$KUBECTL' --kubeconfig '$CLUSTER/kubeconfig' --cache-dir '$CLUSTER/cache' -n demo delete pod $before --wait=false > /dev/null" ;;
    esac
    after=$(moved_from "$before") || die "$before is still the primary"
    say "primary before: $before, after: $after"
  done
  say "the timelines are pages to open: file://$D/kill.html and file://$D/delete.html"
}
# Who was the primary when, why that changed, how long it took: as the reconciler wrote it into the status, and as Events.
story() {
  local last
  step "the story of the cluster"
  await "the MysqlCluster" "$(cat "$D/reconciler.pid")" "$D/reconciler.log" is_ready
  kubectl get myc | indented
  echo "  status.history:"
  kubectl get myc demo -o go-template='{{range .status.history}}{{printf "    term %v, %v: " .term .at}}{{if .from}}{{.from}} → {{end}}{{.to}} {{if .tookMs}}after {{.tookMs}} ms{{else}}, given up{{end}}: {{.reason}}{{"\n"}}{{end}}'
  echo "  Events:"
  kubectl get events --field-selector reason=PrimaryChanged -o go-template='{{range .items}}    {{.message}}{{"\n"}}{{end}}'
  last=$(kubectl get myc demo -o go-template='{{with index .status.history 0}}{{.term}} {{.to}} {{with .tookMs}}ended{{end}}{{end}}')
  [ "$last" = "$(of_myc .status.term) $(primary_pod) ended" ] || { say "FAILED: the story ends otherwise than the cluster is: $last"; exit 1; }
  say "the proxy's part of it: http://127.0.0.1:$ADMIN/ (while it runs)"
  done_step
}
server_options() { awk '{ print "--server", $2 ":3306" }' "$CLUSTER/pods"; }

workload() { # PID [OPTIONS...]: clients, and a kill -9 of that process
  local pid=$1; shift
  "$BIN/examples/demo-workload" --proxy "127.0.0.1:$PORT" --admin "127.0.0.1:$ADMIN" --user app --password app --kill "$pid" "$@" &
  echo $! > "$D/workload.pid"
  wait $! || return
  rm -f "$D/workload.pid"
}

verdict() { # BEFORE AFTER CODE
  local code=$3
  say "primary before: $1, after: $2"
  [ "$1" != "$2" ] && [ "$2" != none ] || code=1
  [ "$code" = 0 ] || { say "FAILED: a promise was broken, see above"; tail -n 20 "$D/proxy.log" >&2; exit 1; }
  say "every promise was kept, in $(since "$BEGIN") altogether"
}

come_back() {
  local p
  step "the killed server comes back as a follower"
  if [ -z "$kubernetes" ]; then
    for p in $((P0 + 1)) $((P0 + 2)) $((P0 + 3)); do
      node_pid "$GROUP/$((p - P0))" > /dev/null || "$HERE/group.sh" rejoin "$GROUP" "$p"
    done
  else
    await "the MysqlCluster" "$(cat "$D/reconciler.pid")" "$D/reconciler.log" is_ready
  fi
  await_followers 2
  done_step
}

# What clients see of a switchover and of a kill -9.
timelines() {
  local trigger
  for trigger in switch kill; do
    come_back
    timeline "$trigger" "$trigger" --trigger "$trigger" --server "127.0.0.1:$((P0 + 1))" --server "127.0.0.1:$((P0 + 2))" --server "127.0.0.1:$((P0 + 3))"
  done
  say "the timelines are pages to open: file://$D/switch.html and file://$D/kill.html"
}
timeline() { # FILE WORDS OPTIONS...: measured and drawn
  local file=$D/$1 words=$2 code=0; shift 2
  step "a timeline of what clients see of a primary's $words"
  HOLDFAST_BENCH_PASSWORD=app "$BIN/holdfast" bench failover --target "127.0.0.1:$PORT" --user app --label Holdfast "$@" \
    --before 2s --after 2s --html "$file.html" > "$file.txt" 2>&1 || code=$?
  cat "$file.txt"
  [ "$code" = 0 ] || { say "FAILED: writes were lost or applied twice, see above"; exit 1; }
  done_step
}

stay() {
  local inside=
  # from outside, the way into our own namespaces
  [ -z "${HOLDFAST_DEMO_INSIDE:-}" ] || inside="nsenter -t $$ -U -n --preserve-credentials "
  come_back
  cat <<T

Yours now. In another terminal:

  $inside$MYSQL --no-defaults -h127.0.0.1 -P$PORT -uapp -papp --get-server-public-key

  SELECT @@hostname, @@port;                            a follower answers
  /* holdfast:primary */ SELECT @@hostname, @@port;     the primary answers
  SELECT server, COUNT(*) FROM holdfast_demo.writes GROUP BY server;

T
  if [ -n "$kubernetes" ]; then yours_of_pods; else yours_of_servers; fi
  cat <<T

Status page http://127.0.0.1:$ADMIN/, metrics http://127.0.0.1:$ADMIN/metrics, log $D/proxy.log
Ctrl-C stops everything.
T
  wait "$(cat "$D/proxy.pid")" || true
  tail -n 5 "$D/proxy.log" >&2
  die "the proxy ended"
}

yours_of_servers() {
  cat <<T
Kill the primary as often as you like, and bring it back:

  G="$HERE/group.sh"; HOLDFAST_TESTBED=$TESTBED bash "\$G" status $GROUP
  HOLDFAST_TESTBED=$TESTBED bash "\$G" kill   $GROUP \$(HOLDFAST_TESTBED=$TESTBED bash "\$G" primary $GROUP)
  HOLDFAST_TESTBED=$TESTBED bash "\$G" rejoin $GROUP PORT
T
}

yours_of_pods() {
  cat <<T
See the cluster and its story, kill a server (it is started again), delete a pod (it is made again, under another address), ask
for a switchover, change the spec:

  alias k="$inside$KUBECTL --kubeconfig $CLUSTER/kubeconfig -n demo"
  k get myc,pods -o wide -L holdfast.io/role
  k describe myc demo
  kill -9 \$(awk '\$1 == "demo-mysql-0" { print \$3 }' $CLUSTER/pods)
  k delete pod demo-mysql-0
  echo '{"apiVersion": "holdfast.io/v1alpha1", "kind": "MysqlOperation", "metadata": {"generateName": "move-"},
    "spec": {"cluster": "demo", "type": "Switchover", "target": "demo-mysql-1"}}' | k create -f -
  k patch myc demo --type merge -p '{"spec": {"mysqlConf": {"max-connections": "300"}}}'

The reconciler's page http://127.0.0.1:$((ADMIN + 1))/, its log $D/reconciler.log
T
}

main "$@"
