#!/bin/bash
# A source and its replicas on loopback, with GTIDs.
#
#   set.sh start DIR PORT0 [async|semisync|mariadb]   servers 1..N on PORT0+1.., the first is the source; state in DIR/1...
#   set.sh status DIR                                 port, role and what it replicates from, for every server
#   set.sh switch DIR PORT                            planned: the server on PORT catches up and becomes the source
#   set.sh stop DIR                                   stops what runs; the data stays
#
# SERVERS=3. To break one: server.sh kill|freeze|thaw|term DIR/N; to bring it back: server.sh start DIR/N PORT.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ $# -ge 2 ] || die "set.sh start|status|switch|stop DIR [PORT0 [async|semisync|mariadb] | PORT]"
load_env
mkdir -p "$2"
D=$(cd "$2" && pwd)
N=${SERVERS:-3} KIND=async P0=0

ports() { seq $((P0 + 1)) $((P0 + N)); }
dir_of() { echo "$D/$(($1 - P0))"; }
mariadb() { [ "$KIND" = mariadb ]; }

start() {
  local p t flavor=mysql options=(super-read-only=ON); t=$(now)
  [ ! -e "$D/set" ] || die "$D holds a set already: stop it and remove the folder for a fresh one"
  case $KIND in
    async) ;;
    semisync) options+=(plugin-load-add=semisync_source.so plugin-load-add=semisync_replica.so
        loose-rpl_semi_sync_replica_enabled=ON loose-rpl_semi_sync_source_timeout=10000) ;;
    mariadb) flavor=mariadb; options=(read-only=ON) ;;
    *) die "unknown kind of set '$KIND': async, semisync, mariadb" ;;
  esac
  [ -d "$TESTBED/template/$flavor/data" ] || die "no $flavor yet: run $HERE/setup.sh $flavor"
  printf 'P0=%s N=%s KIND=%s\n' "$P0" "$N" "$KIND" > "$D/set"
  for p in $(ports); do node_start $flavor "$(dir_of "$p")" "$p" "${options[@]}"; done
  for p in $(ports); do node_wait "$(dir_of "$p")" "$p" || { stop; exit 1; }; done
  lead $((P0 + 1))
  for p in $(seq $((P0 + 2)) $((P0 + N))); do follow "$p" $((P0 + 1)); catch_up "$p" $((P0 + 1)); done
  say "$KIND set on ports $((P0 + 1))..$((P0 + N)), source $((P0 + 1)), in $(since "$t")"
}
lead() { # PORT: make it the writable source
  mariadb && { sql "$1" -e "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=OFF" 2>/dev/null; return; }
  [ "$KIND" != semisync ] || sql "$1" -e "SET GLOBAL rpl_semi_sync_source_enabled=ON"
  sql "$1" -e "STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF"
}
follow() { # PORT SOURCE
  if mariadb; then
    # the current position counts what a former source wrote itself as seen
    sql "$1" -e "STOP SLAVE; SET GLOBAL gtid_slave_pos=@@gtid_current_pos; CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=$2, MASTER_USER='repl', MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1; START SLAVE" 2>/dev/null
  else
    sql "$1" -e "STOP REPLICA; CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=$2, SOURCE_USER='repl', SOURCE_PASSWORD='repl', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1; START REPLICA"
  fi
}
catch_up() { # PORT SOURCE
  local all have=@@gtid_executed wait=WAIT_FOR_EXECUTED_GTID_SET
  ! mariadb || { have=@@gtid_binlog_pos; wait=MASTER_GTID_WAIT; }
  all=$(sql "$2" -e "SELECT REPLACE($have, '\n', '')")
  [ "$(sql "$1" -e "SELECT $wait('$all', 30)")" = 0 ] || { node_errors "$(dir_of "$1")"; die "$1 has not caught up with $2"; }
}
source_port() { # the writable one
  local p
  for p in $(ports); do [ "$(sql "$p" -e 'SELECT @@read_only' 2>/dev/null)" != 0 ] || { echo "$p"; return; }; done
  die "no server of $D is writable"
}
switch() { # PORT
  local old p; old=$(source_port)
  [ "$old" != "$1" ] || return 0
  if mariadb; then sql "$old" -e "SET GLOBAL read_only=ON"; else sql "$old" -e "SET GLOBAL super_read_only=ON"; fi
  [ "$KIND" != semisync ] || sql "$old" -e "SET GLOBAL rpl_semi_sync_source_enabled=OFF"
  catch_up "$1" "$old"
  lead "$1"
  for p in $(ports); do
    if [ "$p" != "$1" ] && node_pid "$(dir_of "$p")" > /dev/null; then follow "$p" "$1"; fi
  done
  say "source is $1"
}
status() {
  local p query="SELECT IF(@@read_only, 'read-only', 'writable'), (SELECT GROUP_CONCAT(CONCAT('from ', HOST, ':', PORT)) FROM performance_schema.replication_connection_configuration)"
  ! mariadb || query="SELECT IF(@@read_only, 'read-only', 'writable'), @@gtid_current_pos"
  for p in $(ports); do
    if node_pid "$(dir_of "$p")" > /dev/null; then echo "$p $(sql "$p" -e "$query" 2>/dev/null || echo 'does not answer')"; else echo "$p down"; fi
  done
}
stop() {
  local p dirs=()
  for p in $(ports); do dirs+=("$(dir_of "$p")"); done
  node_stop "${dirs[@]}"
}

[ "$1" = start ] || { [ -e "$D/set" ] || die "$D holds no set"; eval "$(cat "$D/set")"; }
case $1 in
  start) P0=${3:?set.sh start DIR PORT0} KIND=${4:-async}; start ;;
  status) status ;;
  switch) switch "${3:?set.sh switch DIR PORT}" ;;
  stop) stop ;;
  *) die "set.sh start|status|switch|stop DIR [PORT0 [async|semisync|mariadb] | PORT]" ;;
esac
