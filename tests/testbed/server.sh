#!/bin/bash
# One server on loopback, by hand or for a script.
#
#   server.sh start DIR PORT [mysql|mariadb] [option=value...]     waits until it answers; state in DIR
#   server.sh status DIR                                           exit 1 if it does not run
#   server.sh kill|freeze|thaw|term DIR                            kill -9, SIGSTOP, SIGCONT, SIGTERM
#   server.sh stop DIR                                             the data stays: remove DIR for a fresh server
#
# The folders that group.sh and set.sh make (DIR/1, DIR/2...) are such servers too.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
OPS='start|status|kill|freeze|thaw|term|stop'
[ $# -ge 2 ] || die "server.sh $OPS DIR [PORT [mysql|mariadb] [option=value...]]"
op=$1; mkdir -p "$2"; dir=$(cd "$2" && pwd); shift 2
load_env
case $op in
  start)
    port=${1:?server.sh start DIR PORT}; shift
    kind=mysql
    case ${1:-} in mysql|mariadb) kind=$1; shift ;; esac
    [ -d "$TESTBED/template/$kind/data" ] || die "no $kind yet: run $HERE/setup.sh $kind"
    t=$(now)
    node_start "$kind" "$dir" "$port" "$@"
    node_wait "$dir" "$port"
    say "$kind on port $port, pid $(node_pid "$dir"), in $(since "$t")" ;;
  status) p=$(node_pid "$dir") && echo "runs, pid $p" || { echo down; exit 1; } ;;
  kill) node_signal KILL "$dir" ;;
  freeze) node_signal STOP "$dir" ;;
  thaw) node_signal CONT "$dir" ;;
  term) node_signal TERM "$dir" ;;
  stop) node_stop "$dir" ;;
  *) die "server.sh $OPS DIR [PORT [mysql|mariadb] [option=value...]]" ;;
esac
