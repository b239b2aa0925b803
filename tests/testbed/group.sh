#!/bin/bash
# A group replication group on loopback, single primary, for the demo and by hand.
#
#   group.sh start DIR PORT0     members 1..N: SQL ports PORT0+1.., group ports PORT0+51..; state in DIR/1, DIR/2...
#   group.sh status DIR          port, state, role of every member, as the group sees it
#   group.sh primary DIR         port of the primary, as a majority sees it; exit 1 if there is none
#   group.sh kill|freeze|thaw|term|rejoin DIR PORT      kill -9, SIGSTOP, SIGCONT, SIGTERM a member; start it again and join
#   group.sh stop DIR            stops what runs; the data stays (remove DIR for a fresh group)
#
# MEMBERS=3, EXPEL_TIMEOUT=0: seconds after which a silent member is expelled, beyond the 5 of the failure detector
# (MySQL's own default is 5). A kill -9 then has a new primary after some 6 s. OPTIONS: further mysqld options, one per line.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
OPS='start|status|primary|kill|freeze|thaw|term|rejoin|stop'
[ $# -ge 2 ] || die "group.sh $OPS DIR [PORT]"
load_env
[ -x "${MYSQLD:-}" ] || die "no MySQL server yet: run $HERE/setup.sh mysql"
mkdir -p "$2"
D=$(cd "$2" && pwd)
N=${MEMBERS:-3}
JOIN="START GROUP_REPLICATION USER='repl', PASSWORD='repl'"

# launch PORT: starts that member's server; the group's options are derived from DIR/group
launch() {
  local i=$(($1 - P0)) k seeds=
  for k in $(seq "$N"); do seeds+=${seeds:+,}127.0.0.1:$((P0 + 50 + k)); done
  local own=()
  [ -z "${OPTIONS:-}" ] || mapfile -t own <<< "$OPTIONS"
  node_start mysql "$D/$i" "$1" \
    plugin-load-add=group_replication.so plugin-load-add=mysql_clone.so \
    loose-group_replication_group_name="$UUID" \
    loose-group_replication_local_address=127.0.0.1:$((P0 + 50 + i)) \
    loose-group_replication_group_seeds="$seeds" \
    loose-group_replication_start_on_boot=OFF \
    loose-group_replication_recovery_get_public_key=ON loose-group_replication_recovery_use_ssl=ON \
    loose-group_replication_message_cache_size=128M \
    loose-group_replication_member_expel_timeout="${EXPEL_TIMEOUT:-0}" \
    loose-group_replication_unreachable_majority_timeout=5 "${own[@]}"
}

start() {
  local P0=$1 p t others=() pids=(); t=$(now)
  UUID=$(cat /proc/sys/kernel/random/uuid)
  [ ! -e "$D/group" ] || die "$D holds a group already: stop it and remove the folder for a fresh one"
  printf 'P0=%s N=%s UUID=%s\n' "$P0" "$N" "$UUID" > "$D/group"
  for p in $(seq $((P0 + 1)) $((P0 + N))); do launch "$p"; done
  for p in $(seq $((P0 + 1)) $((P0 + N))); do node_wait "$D/$((p - P0))" "$p" || { stop; exit 1; }; done
  sql $((P0 + 1)) -e "SET GLOBAL group_replication_bootstrap_group=ON; $JOIN; SET GLOBAL group_replication_bootstrap_group=OFF"
  for p in $(seq $((P0 + 2)) $((P0 + N))); do sql "$p" -e "$JOIN" & pids+=($!); done
  for p in "${pids[@]}"; do wait "$p"; done
  online "$N" || { status; die "the group is not complete after 60 s"; }
  say "group of $N on ports $((P0 + 1))..$((P0 + N)), primary $((P0 + 1)), in $(since "$t")"
}

online() { # COUNT: waits until a member sees that many ONLINE
  local i
  for i in $(seq 600); do
    [ "$(ask "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE='ONLINE'" | sort -n | tail -n 1)" = "$1" ] && return
    sleep 0.1
  done
  return 1
}
ports() { seq $((P0 + 1)) $((P0 + N)); }
alive() { # members that run and are not frozen
  local p s
  for p in $(ports); do
    s=$(node_pid "$D/$((p - P0))") && [ "$(awk '{print $3}' "/proc/$s/stat")" != T ] && echo "$p"
  done
  return 0
}
ask() { local p; for p in $(alive); do sql "$p" --connect-timeout=2 -e "$1" 2>/dev/null || true; done; }
primary() {
  ask "SELECT MEMBER_PORT FROM performance_schema.replication_group_members WHERE MEMBER_ROLE='PRIMARY' AND MEMBER_STATE='ONLINE'" |
    sort | uniq -c | awk -v n="$N" '$1 * 2 > n {print $2; ok = 1} END {exit !ok}'
}
status() {
  local p s
  for p in $(ports); do
    s=$(node_pid "$D/$((p - P0))") || { echo "$p down"; continue; }
    printf '%s pid %s ' "$p" "$s"
    sql "$p" --connect-timeout=2 -e "SELECT CONCAT(MEMBER_STATE, ' ', MEMBER_ROLE, IF(@@super_read_only, ' read-only', ' writable')) FROM performance_schema.replication_group_members WHERE MEMBER_ID = @@server_uuid" 2>/dev/null || echo "does not answer"
  done
}
stop() { # the primary last, so that no election is wasted
  local p dirs=()
  for p in $(ports | sort -rn); do dirs+=("$D/$((p - P0))"); done
  node_stop "${dirs[@]}"
}
signal() { node_signal "$1" "$D/$(($2 - P0))"; } # SIGNAL PORT
rejoin() {
  node_pid "$D/$(($1 - P0))" > /dev/null || launch "$1"
  node_wait "$D/$(($1 - P0))" "$1"
  sql "$1" -e "STOP GROUP_REPLICATION; $JOIN"
}

# shellcheck disable=SC1091
[ "$1" = start ] || { [ -e "$D/group" ] || die "$D holds no group"; eval "$(cat "$D/group")"; }
case $1 in
  start) start "${3:?group.sh start DIR PORT0}" ;;
  status) status ;;
  primary) primary ;;
  kill) signal KILL "${3:?PORT}" ;;
  freeze) signal STOP "${3:?PORT}" ;;
  thaw) signal CONT "${3:?PORT}" ;;
  term) signal TERM "${3:?PORT}" ;;
  rejoin) rejoin "${3:?PORT}" ;;
  stop) stop ;;
  *) die "group.sh $OPS DIR [PORT]" ;;
esac
