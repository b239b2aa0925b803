#!/bin/bash
# The small comparison on a real mysqld: sysbench through each proxy in turn, in rounds. Called by run.sh --real, which
# builds and sets the environment.
#
# The server takes most of the CPU here, so statements per second say little about the proxies; the proxy's CPU per
# statement does. One server, one thread per proxy; Holdfast in mode split finds no follower and reads from the primary.
set -euo pipefail
. tests/testbed/lib.sh
load_env
SECONDS_EACH=${1:-5} THREADS=${THREADS:-16} ROUNDS=${ROUNDS:-3} BASE=${PORT_BASE:-18200}
[ -x "${SYSBENCH:-}" ] || die "no sysbench: bash tests/testbed/setup.sh mysql"
OUT=$(pwd)/target/compare/real
mkdir -p "$OUT"
pids=()
cleanup() {
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  bash tests/testbed/server.sh stop "$OUT/server" >/dev/null 2>&1 || true
  rm -rf "$OUT/server"
}
trap cleanup EXIT
rm -rf "$OUT/server"
bash tests/testbed/server.sh start "$OUT/server" "$BASE" mysql max_connections=1000

config() { # config MODE PORT
  cat > "$OUT/holdfast-$1.toml" <<T
[proxy]
workers = 1
[log]
level = "warn"
[[listener]]
name = "app"
listen = "127.0.0.1:$2"
cluster = "main"
mode = "$1"
[[cluster]]
name = "main"
source = "static"
servers = [{ address = "127.0.0.1:$BASE" }]
[cluster.account]
user = "holdfast"
password = "holdfast"
[cluster.tls]
mode = "DISABLED"
T
}

declare -A PORT PID
NAMES=(direct haproxy router holdfast-primary holdfast-split)
PORT[direct]=$BASE
PORT[haproxy]=$((BASE+1)) PORT[router]=$((BASE+2)) PORT[holdfast-primary]=$((BASE+3)) PORT[holdfast-split]=$((BASE+4))
start() { # start NAME PROGRAM...
  local name=$1; shift
  "$@" > "$OUT/$name.log" 2>&1 &
  PID[$name]=$!; pids+=($!)
}
cat > "$OUT/haproxy.cfg" <<T
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen mysql
  bind 127.0.0.1:${PORT[haproxy]}
  server backend 127.0.0.1:$BASE
T
mkdir -p "$OUT/router"
cat > "$OUT/router.conf" <<T
[DEFAULT]
${MYSQLROUTER_PLUGINS:+plugin_folder=$MYSQLROUTER_PLUGINS}
logging_folder=
runtime_folder=$OUT/router
data_folder=$OUT/router
client_ssl_mode=DISABLED
server_ssl_mode=DISABLED
[logger]
level=WARNING
[io]
threads=1
[routing:bench]
bind_address=127.0.0.1
bind_port=${PORT[router]}
destinations=127.0.0.1:$BASE
routing_strategy=first-available
protocol=classic
T
start haproxy "$HAPROXY" -db -f "$OUT/haproxy.cfg"
start router "$MYSQLROUTER" "--config=$OUT/router.conf"
for mode in primary split; do
  config $mode "${PORT[holdfast-$mode]}"
  start "holdfast-$mode" "$HOLDFAST" proxy -c "$OUT/holdfast-$mode.toml"
done
for name in "${NAMES[@]}"; do
  for ((i = 0; i < 100; i++)); do
    client --get-server-public-key -uapp -papp -P"${PORT[$name]}" -e 'SELECT 1' > "$OUT/try.log" 2>&1 && continue 2; sleep 0.1
  done
  cat "$OUT/try.log" "$OUT/$name.log" >&2; die "$name lets nobody in"
done

bench() { # bench NAME TEST COMMAND [options]
  local name=$1 test=$2; shift 2
  "$SYSBENCH" "$test" --db-driver=mysql --mysql-host=127.0.0.1 --mysql-port="${PORT[$name]}" --mysql-user=app \
    --mysql-password=app --mysql-db=sbt --tables=2 --table-size=10000 --threads="$THREADS" \
    --time="$SECONDS_EACH" --percentile=99 --db-ps-mode=disable "$@"
}
cpu() { # CPU of a process in ns, all threads
  [ -n "${PID[$1]:-}" ] || { echo 0; return; }
  cat /proc/"${PID[$1]}"/task/*/schedstat | awk '{ns += $1} END {printf "%.0f", ns}'
}
bench direct oltp_read_write --threads=1 prepare > "$OUT/prepare.log"
echo "round,test,name,queries_per_second,p99_ms,cpu_us_per_query" > "$OUT/real.csv"
for ((round = 0; round < ROUNDS; round++)); do
  for test in oltp_point_select oltp_read_write; do
    for ((i = 0; i < ${#NAMES[@]}; i++)); do
      name=${NAMES[$(( (i + round) % ${#NAMES[@]} ))]}
      before=$(cpu "$name")
      bench "$name" $test run > "$OUT/$test-$name.log" 2>&1 || { cat "$OUT/$test-$name.log"; exit 1; }
      after=$(cpu "$name")
      awk -v r=$round -v t=$test -v n="$name" -v ns=$((after - before)) '
        /^ *queries:/ {q = $2; sub(/\(/, "", $3); qps = $3} /99th percentile:/ {p = $3}
        END {printf "%d,%s,%s,%s,%s,%.2f\n", r, t, n, qps, p, ns / 1000 / q}' "$OUT/$test-$name.log" | tee -a "$OUT/real.csv"
    done
  done
done
# Medians of the rounds, and the median ratio of CPU to HAProxy's.
awk -F, -v names="${NAMES[*]}" '
  function median(list,   a, n, i, j, x) {
    n = split(list, a, " ")
    for (i = 2; i <= n; i++) { x = a[i] + 0; for (j = i - 1; j > 0 && a[j] + 0 > x; j--) a[j + 1] = a[j]; a[j + 1] = x }
    return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
  }
  NR > 1 { k = $2 "," $3; q[k] = q[k] " " $4; p[k] = p[k] " " $5; c[k] = c[k] " " $6; cpu[$1 "," k] = $6; rounds[$1] }
  END {
    print "| sysbench, real mysqld | queries/s | p99, ms | proxy CPU per query, µs | × HAProxy |\n|---|---:|---:|---:|---:|"
    split("oltp_point_select oltp_read_write", tests, " "); n = split(names, name, " ")
    for (t = 1; t <= 2; t++) for (i = 1; i <= n; i++) {
      k = tests[t] "," name[i]; ratios = ""
      for (r in rounds) if (cpu[r "," tests[t] ",haproxy"] > 0) ratios = ratios " " cpu[r "," k] / cpu[r "," tests[t] ",haproxy"]
      printf "| %s, %s | %.0f | %.2f | %s | %s |\n", tests[t], name[i], median(q[k]), median(p[k]),
        i == 1 ? "" : sprintf("%.1f", median(c[k])), i == 1 ? "" : sprintf("%.2f", median(ratios))
    }
  }' "$OUT/real.csv" | tee "$OUT/REAL.md"
