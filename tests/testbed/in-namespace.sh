#!/bin/sh
# Runs a program in a user and a network namespace of its own, where it may give pods their networks without being root.
# As cargo's runner: CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$PWD/tests/testbed/in-namespace.sh cargo test
exec unshare --map-root-user --net sh -c 'ip link set lo up && exec "$0" "$@"' "$@"
