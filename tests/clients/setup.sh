#!/bin/bash
# Obtains the real clients that tests/clients.rs runs through the proxy, into the testbed's cache folder.
#
#   setup.sh [--again]       --again: even if present
#
#   mysql and mariadb CLI        from the testbed's own parts (../testbed/setup.sh)
#   PyMySQL, mysql-connector-python, mysqlclient      pip, pinned, in a venv of their own
#   mysql2                       npm, pinned
#   go-sql-driver                Debian bookworm's Go and golang-github-go-sql-driver-mysql-dev, unpacked; GOPATH mode
#   libmysqlclient               Debian sid's libmysqlclient-dev, unpacked with its own C library
#   MariaDB Connector/C          Debian bookworm's libmariadb-dev, likewise; mysqlclient (Python) is built on it too
#
# Each part is stamped with what it was made from, so the script may be interrupted and run again. Needs python3 with venv
# and headers, node, npm and gcc: where one is missing, root gets it from the host's own apt (apt-get install), anybody
# else is told what to install. These are the only things this script ever installs on the host.
set -euo pipefail
CLIENTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC1091
. "$CLIENTS/../testbed/setup.sh"
PIP='PyMySQL[rsa]==1.2.4 mysql-connector-python==26.10.0 mysqlclient==2.3.1'
NPM='mysql2@3.24.5'
C=$TESTBED/clients   # programs, venv and node_modules live here

main_clients() {
  mkdir -p "$TESTBED"/{parts,env,bin,apt} "$C"
  [ "${1:-}" != --again ] || rm -rf "${C:?}"/* "${TESTBED:?}"/parts/{libmysqlclient,libmariadb,golang}
  "$CLIENTS/../testbed/setup.sh" mysql mariadb
  exec 9> "$TESTBED/.setup.lock"
  flock -n 9 || { say "another setup is running here; waiting for it"; flock 9; }
  host_tools
  libraries
  (python_clients)
  (node_client)
  (go_client)
  (c_clients)
  [ "$DEBS" = 0 ] || rm -rf "${TESTBED:?}/apt"
  say "clients ready in $C"
}

host_tools() {
  local want=()
  command -v gcc > /dev/null || want+=(gcc libc6-dev)
  command -v node > /dev/null || want+=(nodejs)
  command -v npm > /dev/null || want+=(npm)
  python3 -c 'import ensurepip, sysconfig, os; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
    want+=(python3 python3-venv python3-dev)
  host_install "${want[@]}"
}

libraries() {
  unpacked libmysqlclient sid libmysqlclient-dev ||
    stamp libmysqlclient "$(sed -n 's/^libmysqlclient-dev_//p' "$P/packages.txt")"
  unpacked libmariadb bookworm libmariadb-dev || {
    [ ! -d "$P/lib/$TRIPLET" ] || [ -L "$P/lib" ] || cp -a "$P/lib/$TRIPLET/." "$P/usr/lib/$TRIPLET/"
    stamp libmariadb "$(sed -n 's/^libmariadb-dev_//p' "$P/packages.txt")"
  }
  # the host's python must not meet another C library: these alone go where mysqlclient looks
  mkdir -p "$C/lib"
  local n
  for n in libmariadb libssl libcrypto libz; do cp -a "$P/usr/lib/$TRIPLET/$n".so* "$C/lib/"; done
  unpacked golang bookworm "" "golang-1.19-go golang-1.19-src golang-github-go-sql-driver-mysql-dev" || {
    # Debian's Go is a farm of links into /usr/share
    rm -rf "$P/go"; mkdir "$P/go"
    cp -a "$P/usr/lib/go-1.19/." "$P/go/"
    local l
    for l in api misc src test; do rm -f "$P/go/$l"; [ ! -e "$P/usr/share/go-1.19/$l" ] || ln -s "$P/usr/share/go-1.19/$l" "$P/go/$l"; done
    rm -f "$P/go/pkg/include"; ln -s "$P/usr/share/go-1.19/pkg/include" "$P/go/pkg/include" 2>/dev/null || true
    stamp golang "$(GOROOT=$P/go "$P/go/bin/go" version)"
  }
}

# done_already NAME WHAT: true if NAME was made from exactly WHAT
done_already() { [ "$(cat "$C/$1.ok" 2>/dev/null)" = "$2" ] && say "$1: present"; }
made() { printf '%s' "$2" > "$C/$1.ok"; say "$1: made in $(since "$STARTED")"; }

python_clients() {
  local what; what="$PIP $(python3 --version) $(head -n 1 "$TESTBED/parts/libmariadb/.ok")"
  ! done_already python "$what" || return 0
  STARTED=$(now); local inc=$TESTBED/parts/libmariadb/usr/include/mariadb
  rm -rf "$C/venv"
  { python3 -m venv "$C/venv" &&
    MYSQLCLIENT_CFLAGS="-I$inc -I$inc/mysql" MYSQLCLIENT_LDFLAGS="-L$C/lib -lmariadb -Wl,-rpath,$C/lib -Wl,-rpath-link,$C/lib" \
      "$C/venv/bin/pip" install --no-cache-dir $PIP; } > "$C/python.log" 2>&1 || { tail -n 15 "$C/python.log" >&2; die "pip install failed"; }
  made python "$what"
}

node_client() {
  local what; what="$NPM $(node --version)"
  ! done_already node "$what" || return 0
  STARTED=$(now)
  rm -rf "$C/node"; mkdir "$C/node"; echo '{}' > "$C/node/package.json"
  (cd "$C/node" && npm install --no-audit --no-fund $NPM) > "$C/node.log" 2>&1 || { tail -n 15 "$C/node.log" >&2; die "npm install failed"; }
  made node "$what"
}

go_client() {
  local what g=$TESTBED/parts/golang; what="$(cksum < "$CLIENTS/client.go") $(cat "$g/.ok")"
  ! done_already go "$what" || return 0
  STARTED=$(now)
  # without cgo the linker is Go's own: no C compiler, no library of the host
  GOROOT=$g/go GOPATH=$g/usr/share/gocode GOCACHE=$C/gocache GO111MODULE=off CGO_ENABLED=0 \
    "$g/go/bin/go" build -o "$C/client-go" "$CLIENTS/client.go" > "$C/go.log" 2>&1 || { cat "$C/go.log" >&2; die "go build failed"; }
  made go "$what"
}

# client.c once with each library; at run time the library's own loader and C library serve it, whatever the host has
c_clients() {
  local lib p what
  for lib in mysqlclient mariadb; do
    p=$TESTBED/parts/libmysqlclient; [ $lib = mysqlclient ] || p=$TESTBED/parts/libmariadb
    what="$(cksum < "$CLIENTS/client.c") $(cat "$p/.ok")"
    done_already "c-$lib" "$what" && continue
    STARTED=$(now)
    local inc=$p/usr/include/mysql; [ $lib = mysqlclient ] || inc=$p/usr/include/mariadb
    gcc -O1 -g -Wall -Werror -I"$inc" -idirafter "$p/usr/include" -o "$C/client-$lib" "$CLIENTS/client.c" -L"$p/usr/lib/$TRIPLET" -l$lib \
      -Wl,--allow-shlib-undefined -Wl,-rpath-link,"$p/usr/lib/$TRIPLET" \
      -Wl,--disable-new-dtags -Wl,-rpath,"$p/usr/lib/$TRIPLET" -Wl,--dynamic-linker="$p/usr/lib/$TRIPLET/$LOADER" \
      > "$C/c.log" 2>&1 || { cat "$C/c.log" >&2; die "client.c does not build with lib$lib"; }
    made "c-$lib" "$what"
  done
}

main_clients "$@"
