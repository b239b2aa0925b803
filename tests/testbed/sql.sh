#!/bin/bash
# Runs SQL on a port of 127.0.0.1 and prints the rows, tab-separated.   sql.sh PORT 'SQL' [user] [password]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ $# -ge 2 ] || die "sql.sh PORT 'SQL' [user] [password]"
load_env
export MYSQL_PWD=${4:-}
client -u"${3:-root}" -P"$1" -e "$2"
