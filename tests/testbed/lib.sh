# Shared by the testbed's scripts; sourced, never run.
#
# Says where the testbed lives and how one server is started, awaited and stopped. A server is a folder:
#   DIR/my.cnf  DIR/data/  DIR/err.log  DIR/pid (ours, written at start)  DIR/mysqld.pid (the server's own)
# The Rust side of the testbed (mod.rs) keeps the same layout and reads the same mysqld.cnf, mariadbd.cnf and users-*.sql.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TESTBED=${HOLDFAST_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/testbed}
TLS=$TESTBED/tls

say() { printf 'testbed: %s\n' "$*"; }
die() { printf 'testbed: %s\n' "$*" >&2; exit 1; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN{printf "%.1f s", b-a}'; }

# The servers and clients that setup.sh found or unpacked: MYSQLD, MYSQL, MARIADBD, MARIADB, MYSQLROUTER, HAPROXY...
load_env() {
  local f
  for f in "$TESTBED"/env/*.env; do
    # shellcheck disable=SC1090
    [ -e "$f" ] && . "$f"
  done
  return 0
}

# client [options]: the command line client over TCP, tab-separated, no header. An unpacked one needs to be told where its
# login plugins are (mysql_native_password of MariaDB's accounts is one).
client() {
  if [ -x "${MYSQL:-}" ]; then
    "$MYSQL" --no-defaults ${MYSQL_PLUGINS:+--plugin-dir="$MYSQL_PLUGINS"} --connect-timeout=5 -h127.0.0.1 -N -B "$@"
  else
    "${MARIADB:-mariadb}" --no-defaults --connect-timeout=5 -h127.0.0.1 -N -B "$@"
  fi
}
# sql PORT [options] -e SQL: as root
sql() { local port=$1; shift; client -uroot -P"$port" "$@"; }

# port_taken PORT: somebody listens there. Ports from 32768 on are refused: any outgoing connection may hold one.
port_taken() {
  [ "$1" -ge 1024 ] && [ "$1" -lt 32768 ] || die "port $1: choose one from 1024 to 32767 (above are ephemeral ports)"
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# lives PID WORDS: the process runs and its command line has the words; another process may have been given the pid since. A
# child of this shell is taken as it is: until it has become its program its command line is this shell's, or empty.
lives() {
  local line
  line=$({ tr '\0' ' ' < "/proc/$1/cmdline"; } 2>/dev/null) || return 1
  # (`return` alone would give, in a trap, the code that the script ends with.)
  case $line in *"$2"*) return 0 ;; esac
  awk -v shells=" $$ $BASHPID " '$1 == "State:" { state = $2 } $1 == "PPid:" { parent = $2 }
    END { exit !(state != "Z" && index(shells, " " parent " ")) }' "/proc/$1/status" 2>/dev/null
}

# node_pid DIR: the pid of the server of that folder if it runs
node_pid() {
  local p; p=$(cat "$1/pid" 2>/dev/null) && [ -n "$p" ] || return 1
  lives "$p" "--defaults-file=$1/my.cnf " && echo "$p"
}

# The last reasons a server gave in its error log.
node_errors() {
  { grep -h 'ERROR' "$1/err.log" || true; } 2>/dev/null | tail -n 5 >&2
  tail -n 3 "$1/out.log" 2>/dev/null >&2 || true
}

# node_start KIND DIR PORT [mysqld option lines...]: KIND is mysql or mariadb; makes the folder if need be, does not wait
node_start() {
  local kind=$1 d=$2 port=$3 daemon=$MYSQLD; shift 3
  node_pid "$d" >/dev/null && die "already running: $d"
  port_taken "$port" && die "port $port is taken: choose another"
  mkdir -p "$d"; d=$(cd "$d" && pwd)
  [ -e "$d/data" ] || { cp -a --reflink=auto "$TESTBED/template/$kind/data" "$d/data.new" && mv "$d/data.new" "$d/data"; }
  [ "$kind" = mariadb ] && daemon=$MARIADBD
  {
    cat "$HERE/${kind}d.cnf"
    printf '%s\n' "datadir=$d/data" "tmpdir=$d/data" "pid-file=$d/mysqld.pid" "log-error=$d/err.log" \
      "port=$port" "server-id=$port" "report-host=127.0.0.1" "report-port=$port" \
      "ssl-ca=$TLS/ca.pem" "ssl-cert=$TLS/server-cert.pem" "ssl-key=$TLS/server-key.pem"
    [ "$(id -u)" = 0 ] && echo user=root
    [ "$kind" = mariadb ] && printf '%s\n' "basedir=$MARIADB_PREFIX/usr" "plugin-dir=$MARIADB_PREFIX/usr/lib/mysql/plugin"
    [ $# = 0 ] || printf '%s\n' "$@"
  } > "$d/my.cnf"
  setsid "$daemon" --defaults-file="$d/my.cnf" >> "$d/out.log" 2>&1 < /dev/null &
  echo $! > "$d/pid"
}

# node_wait DIR PORT: until the server of that folder answers; an answer alone could come from somebody else's server
node_wait() {
  local i a d; d=$(cd "$1" && pwd)
  for i in $(seq 1200); do
    node_pid "$d" > /dev/null || { say "the server of $d died at start; its log says:" >&2; node_errors "$d"; return 1; }
    a=$(sql "$2" -e 'SELECT @@pid_file' 2>/dev/null) && {
      [ "$a" = "$d/mysqld.pid" ] && return
      say "port $2 belongs to another server ($a)" >&2; return 1; }
    sleep 0.05
  done
  say "the server of $d does not answer after 60 s" >&2; node_errors "$d"; return 1
}

node_signal() { # SIGNAL DIR
  local p; p=$(node_pid "$2") || die "no server of $2 runs"
  kill -"$1" "$p"
}

# node_stop DIR...: TERM, and KILL after 30 s; a stopped (frozen) server is continued first
node_stop() {
  local d p i pids=()
  for d in "$@"; do p=$(node_pid "$d") && { kill -CONT "$p"; kill -TERM "$p"; pids+=("$p"); }; done
  for p in "${pids[@]}"; do
    for i in $(seq 300); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$p" 2>/dev/null || true
  done
  return 0
}
