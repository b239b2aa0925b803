# Sourced by setup.sh: the part `kubernetes`, a real control plane: etcd, kube-apiserver, kube-controller-manager, kubectl.
#
# Debian has no binary package of the API server, but bookworm's source package `kubernetes` (1.20.2, upstream's tarball
# with its vendored dependencies) builds with bookworm's Go 1.19. etcd is bookworm's own binary. Only what the tests run is
# built, without cloud providers. All of it happens in TESTBED/build/kubernetes, which is removed at the end: 2 GB while
# building, 0.2 GB kept; 4.3 minutes of processor time. Interrupted, the next run takes up what was compiled.
#
# Needs, beyond setup.sh's own: dpkg-source (dpkg-dev) and a C library of bookworm's age or later (etcd and Go link to it).
# HOLDFAST_TESTBED_JOBS: how many packages are compiled at once; default 2.
K8S_VERSION=1.20.2
K8S_COMMIT=faecb196815e248d3ecfb03c680a4507229c2a56   # what upstream built that version from

part_kubernetes() {
  P=$TESTBED/parts/kubernetes
  k8s_present || k8s_alone
  if k8s_present; then
    say "kubernetes: present ($(sed -n 2p "$P/.ok"))"
  else
    rm -rf "$P"; mkdir -p "$P"
    k8s_make "$TESTBED/build/kubernetes"
    stamp kubernetes "$("$P/kube-apiserver" --version), $("$P/etcd" --version | head -n 1)"
    rm -rf "$TESTBED/build"
  fi
  use kubernetes ETCD="$P/etcd" KUBE_APISERVER="$P/kube-apiserver" \
    KUBE_CONTROLLER_MANAGER="$P/kube-controller-manager" KUBECTL="$P/kubectl"
}

k8s_present() { [ "$(head -n 1 "$P/.ok" 2>/dev/null)" = "$RECIPE $P" ]; }

# Minutes of compiling must not keep others from the servers that are there: one setup at a time compiles (lock 8), and
# meanwhile gives up setup.sh's own lock (9). Whoever waits for 8 has given up 9, so neither waits for the other.
k8s_alone() {
  flock -u 9
  exec 8> "$TESTBED/.kubernetes.lock"
  flock -n 8 || { say "kubernetes: another setup is building it; waiting for it"; flock 8; }
  flock 9
}

k8s_make() { # BUILD FOLDER
  local b=$1 begin; begin=$(now)
  command -v dpkg-source > /dev/null || host_install dpkg-dev
  mkdir -p "$b"/{dl,bin,tools}
  say "kubernetes: building $K8S_VERSION from source; takes 4 to 5 minutes of processor time"
  [ -e "$b/.tools" ] || k8s_tools "$b"
  [ -e "$b/.source" ] || k8s_source "$b"
  flock -u 9
  ( k8s_build "$b" )
  flock 9
  cp "$b/bin"/{kube-apiserver,kube-controller-manager,kubectl} "$b/tools/usr/bin/etcd" "$P/"
  say "kubernetes: made in $(since "$begin")"
}

k8s_step() { # NAME LOG COMMAND...: says how long the command took, or shows the end of its log
  local name=$1 log=$2 t; shift 2; t=$(now)
  "$@" > "$log" 2>&1 || { tail -n 20 "$log" >&2; die "kubernetes: $name failed; run setup.sh again to resume"; }
  say "kubernetes: $name in $(since "$t")"
}

# The compiler, etcd, and the fixed reflect2: unpacked, never installed.
k8s_tools() {
  local b=$1 d
  apt_release bookworm
  fetch() { cd "$b/dl" && rm -f ./*.deb && apt-get -q download golang-1.19-go golang-1.19-src etcd-server golang-github-modern-go-reflect2-dev; }
  k8s_step "download of Go and etcd" "$b/debs.log" in_own_shell fetch
  for d in "$b"/dl/*.deb; do unpack "$d" "$b/tools"; done
  touch "$b/.tools"
}
in_own_shell() { ( "$@" ); }

k8s_source() {
  local b=$1
  apt_release bookworm
  # the same archives, their sources, with lists of their own
  sed 's/^deb /deb-src /' "$TESTBED/apt/bookworm/sources.list" > "$b/sources.list"
  mkdir -p "$b/lists/partial"
  fetch() {
    local o=(-q -o "Dir::Etc::sourcelist=$b/sources.list" -o "Dir::State::lists=$b/lists")
    cd "$b/dl" && apt-get "${o[@]}" update && apt-get "${o[@]}" source --download-only kubernetes
  }
  k8s_step "download of the source" "$b/source.log" in_own_shell fetch
  [ -e "$(echo "$b"/dl/kubernetes_*"$K8S_VERSION"*.dsc)" ] || die "kubernetes: Debian bookworm's source is no longer $K8S_VERSION"
  rm -rf "$b/gopath"; mkdir -p "$b/gopath/src/k8s.io"
  k8s_step "unpacking" "$b/unpack.log" dpkg-source --no-check -x "$b"/dl/kubernetes_*.dsc "$b/gopath/src/k8s.io/kubernetes"
  ( cd "$b/gopath/src/k8s.io/kubernetes" && k8s_patch "$b" )
  touch "$b/.source"
}

# What Go 1.19 breaks in 1.20's vendored code.
k8s_patch() {
  local f
  # reflect2 1.0.1 reads Go's map iterator by its old layout: the API server dies with "unexpected fault address" at the
  # first custom resource. Debian's 1.0.2 knows the new one.
  rm -rf vendor/github.com/modern-go/reflect2
  cp -r "$1/tools/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go/reflect2
  # reflect.Zero(string) and "" are one pointer since Go 1.16, so this comparison takes every "" for null and custom
  # resources with an empty string are refused (422)
  for f in vendor/github.com/go-openapi/validate/type.go vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go; do
    sed -i 's/if data == nil || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data)) {/if data == nil || (reflect.TypeOf(data).Kind() != reflect.String \&\& reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data))) {/' "$f"
    grep -q 'Kind() != reflect.String' "$f" || die "kubernetes: $f is not as expected"
  done
}

k8s_build() {
  local b=$1 c ld="-s -w" package
  export GOROOT=$b/tools/usr/lib/go-1.19 GOPATH=$b/gopath GOCACHE=$b/gocache HOME=$b GOTOOLCHAIN=local GOPROXY=off GOSUMDB=off
  # GOPATH mode with vendor/, as upstream's scripts do: with modules Go 1.19 stops at "updates to go.mod needed"
  export GO111MODULE=off GOFLAGS= CGO_ENABLED=0
  # the compiler's own garbage collection costs a sixth of the time otherwise
  export GOGC=400
  go=(nice -n 5 "$GOROOT/bin/go" build -p "${HOLDFAST_TESTBED_JOBS:-2}" -trimpath -gcflags=all=-dwarf=false)
  cd "$b/gopath/src/k8s.io/kubernetes"
  [ -e "$b/.openapi" ] || k8s_openapi "$b"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    package=k8s.io/kubernetes/vendor/$package
    ld+=" -X $package.gitVersion=v$K8S_VERSION -X $package.gitMajor=1 -X $package.gitMinor=20"
    ld+=" -X $package.gitCommit=$K8S_COMMIT -X $package.gitTreeState=clean -X $package.buildDate=2021-01-13T13:20:00Z"
  done
  for c in kubectl kube-apiserver kube-controller-manager; do
    k8s_step "$c built" "$b/$c.log" "${go[@]}" -tags providerless -ldflags "$ld" -o "$b/bin/$c" "./cmd/$c"
  done
}

# The API's schema is generated code that the tarball leaves out; server-side apply and dry runs need it.
k8s_openapi() {
  local b=$1 folders
  k8s_step "openapi-gen built" "$b/openapi-gen.log" "${go[@]}" -ldflags "-s -w" -o "$b/bin/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  folders=$(grep -Rl --include=*.go -E '^// *\+k8s:openapi-gen=' pkg cmd plugin vendor/k8s.io |
    grep -v -e '^vendor/k8s.io/code-generator/' -e '^vendor/k8s.io/sample-apiserver/' -e '_test\.go$' |
    xargs -n1 dirname | sort -u | sed 's,^,k8s.io/kubernetes/,' | paste -sd,)
  k8s_step "schema generated" "$b/openapi.log" nice -n 5 "$b/bin/openapi-gen" --logtostderr -i "$folders" \
    -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$b/openapi-violations"
  touch "$b/.openapi"
}
