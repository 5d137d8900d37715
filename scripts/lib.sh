# shellcheck shell=bash
# What the scripts share: messages, packages, the Rust toolchain, processes and ports. Source it; it runs nothing.

KFR_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# Debian's Python, where python3-pymysql and python3-redis live, whatever else PATH offers first.
PYTHON=/usr/bin/python3

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# --- packages -------------------------------------------------------------------------------------------------------

MISSING_PACKAGES=()

# want PACKAGE TEST...: notes PACKAGE as missing unless the test command succeeds.
want() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || MISSING_PACKAGES+=("$package")
}
want_command() { want "$2" command -v "$1"; }
has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# What compiling KFR needs.
want_build_tools() {
    want_command gcc gcc
    want libc6-dev has_package libc6-dev
    want_command make make
    want_command pkg-config pkg-config
    want_command clang clang
    want libelf-dev pkg-config --exists libelf
    want zlib1g-dev pkg-config --exists zlib
}

# What the shop in workloads/shop is made of.
want_shop() {
    want_command nginx nginx-light
    want_command redis-server redis-server
    want_command mariadbd mariadb-server
    want_command mariadb mariadb-client
    want_command setpriv util-linux
    want python3 test -x "$PYTHON"
    want python3-pymysql "$PYTHON" -c 'import pymysql'
    want python3-redis "$PYTHON" -c 'import redis'
}

# The servers and clients of cli/tests/live_protocols.rs, and what cli/tests/live_nodes.rs translates addresses with.
want_protocol_servers() {
    local module
    want_command setpriv util-linux
    want_command openssl openssl
    want_command curl curl
    want_command nft nftables
    want postgresql has_server_of_postgresql
    want_command psql postgresql-client
    want_command memcached memcached
    want_command nats-server nats-server
    want_command mosquitto mosquitto
    want_command mosquitto_pub mosquitto-clients
    want_command rabbitmq-server rabbitmq-server
    want_command java default-jre-headless
    want zookeeper test -r /usr/share/java/zookeeper.jar
    want_command unbound unbound
    want_command dig bind9-dnsutils
    want_command nghttp nghttp2-client
    want librdkafka-dev test -r /usr/include/librdkafka/rdkafka_mock.h
    for module in psycopg2:psycopg2 psycopg:psycopg asyncpg:asyncpg pymemcache:pymemcache paho.mqtt.client:paho-mqtt \
        pika:pika kazoo.client:kazoo grpc:grpcio confluent_kafka:confluent-kafka MySQLdb:mysqldb pymongo:pymongo \
        cassandra.cluster:cassandra clickhouse_driver:clickhouse-driver thrift.Thrift:thrift; do
        want "python3-${module#*:}" "$PYTHON" -c "import ${module%%:*}"
    done
}
has_server_of_postgresql() { compgen -G '/usr/lib/postgresql/*/bin/initdb'; }

# Installs what want* found missing. Servers that come along are neither started now nor at the next boot: the scripts
# run their own, on their own ports, from temporary folders.
install_missing() {
    [ "${#MISSING_PACKAGES[@]}" -gt 0 ] || return 0
    local packages=("${MISSING_PACKAGES[@]}") policy=/usr/sbin/policy-rc.d own_policy='' status=0 unit
    MISSING_PACKAGES=()
    command -v apt-get >/dev/null ||
        die "this needs the Debian packages ${packages[*]} (or what your distribution calls them); install them and run again"
    is_root || die "run as root, or first: apt-get install ${packages[*]}"
    step "installing ${packages[*]}"
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        own_policy=1
    fi
    apt_install "${packages[@]}" || status=$?
    [ -z "$own_policy" ] || rm -f "$policy"
    [ "$status" -eq 0 ] || die "apt-get could not install ${packages[*]}"
    command -v systemctl >/dev/null || return 0
    for unit in nginx-light:nginx redis-server:redis-server mariadb-server:mariadb postgresql:postgresql \
        memcached:memcached nats-server:nats-server mosquitto:mosquitto rabbitmq-server:rabbitmq-server unbound:unbound; do
        case " ${packages[*]} " in
        *" ${unit%%:*} "*) systemctl disable "${unit##*:}" >/dev/null 2>&1 || true ;;
        esac
    done
}

apt_install() (
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    # Interrupted or not, an own policy file must not stay: the caller removes it, so keep signals out of apt's way.
    trap '' INT
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >/dev/null
)

# --- Rust -----------------------------------------------------------------------------------------------------------

rust_advice() {
    if apt-cache show rustup >/dev/null 2>&1; then
        say "apt-get install rustup && rustup default stable"
    else
        say "install rustup as https://rustup.rs says, then: rustup default stable"
    fi
}

# need_rust [COMPONENT...]: a cargo new enough for this workspace, or a message that says how to get one.
need_rust() {
    local wanted have component
    [ ! -d "$HOME/.cargo/bin" ] || PATH="$PATH:$HOME/.cargo/bin"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$KFR_ROOT/Cargo.toml")
    command -v cargo >/dev/null || die "KFR needs Rust $wanted or newer and there is no cargo here: $(rust_advice)"
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ] ||
        die "KFR needs Rust $wanted or newer, found $have: $(rust_advice)"
    for component in "$@"; do
        cargo "$component" --version >/dev/null 2>&1 || die "cargo $component is missing: rustup component add $component"
    done
}

# Where cargo puts what it builds for this workspace.
target_dir() { printf '%s' "${CARGO_TARGET_DIR:-$KFR_ROOT/target}"; }

# --- processes and ports --------------------------------------------------------------------------------------------

# The pid of what `spawn` started last.
# shellcheck disable=SC2034  # read by those who source this
SPAWNED=0

# spawn LOG COMMAND...: in the background, in a session of its own (Ctrl-C is for us to handle), and ended by the kernel
# should this script be killed outright. Must be called from the script's own shell, not from a subshell.
spawn() {
    local log=$1
    shift
    setpriv --pdeathsig TERM -- setsid "$@" </dev/null >"$log" 2>&1 &
    # shellcheck disable=SC2034
    SPAWNED=$!
}

is_running() { kill -0 "$1" 2>/dev/null; }

# stop_process PID [SIGNAL]: asks, waits up to 15 s, insists. A pid that is gone is fine.
stop_process() {
    local pid=$1 signal=${2:-TERM}
    is_running "$pid" || return 0
    kill -s "$signal" "$pid" 2>/dev/null || true
    wait_until 15 not_running "$pid" || kill -s KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
not_running() { ! is_running "$1"; }

# wait_until SECONDS COMMAND...: polls until the command succeeds; fails when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# free_port PREFERRED: that port of 127.0.0.1, or the next one above that nobody listens on.
free_port() {
    "$PYTHON" - "$1" <<'PY'
import socket, sys
for port in range(int(sys.argv[1]), 65536):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
else:
    sys.exit("no free port on 127.0.0.1")
PY
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
