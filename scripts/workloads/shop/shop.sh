# shellcheck shell=bash
# The shop: nginx -> app.py -> Redis and MariaDB, all real, on loopback ports and in one temporary folder. Source it
# after lib.sh; `shop_start`, `shop_load_start`, `shop_load_stop`, `shop_stop`.

SHOP_SOURCE="$(dirname "${BASH_SOURCE[0]}")"
SHOP_DIR=''
SHOP_PIDS=()
SHOP_LOAD_PID=''
SHOP_PORT='' SHOP_APP_PORT='' SHOP_REDIS_PORT='' SHOP_MARIADB_PORT=''

# Starts the four and returns when a page comes through all of them. SHOP_GENERAL_LOG=1: MariaDB logs every statement.
shop_start() {
    SHOP_DIR=$(mktemp -d "${TMPDIR:-/tmp}/shop.XXXXXX")
    # Servers that give up root must still be able to pass through.
    chmod 711 "$SHOP_DIR"
    SHOP_PORT=$(free_port 18080)
    SHOP_APP_PORT=$(free_port $((SHOP_PORT + 1)))
    SHOP_REDIS_PORT=$(free_port 16379)
    SHOP_MARIADB_PORT=$(free_port 13306)
    shop_start_mariadb
    shop_start_redis
    shop_fill_mariadb
    shop_start_app
    shop_start_nginx
    wait_until 10 shop_get /health || shop_failed nginx
}

shop_get() { curl -fsS -o /dev/null "http://127.0.0.1:$SHOP_PORT$1"; }

# shop_failed NAME: shows the log of what did not start and ends the script (whose EXIT trap calls shop_stop).
shop_failed() {
    warn "$1 did not start; the end of its log:"
    tail -n 20 "$SHOP_DIR/$1.log" >&2 || true
    die "the workload could not be started"
}

shop_start_mariadb() {
    local data=$SHOP_DIR/mariadb user=() options
    mkdir "$data"
    is_root && user=(--user=root)
    mariadb-install-db --no-defaults "${user[@]}" --datadir="$data" --skip-test-db \
        --auth-root-authentication-method=normal >"$SHOP_DIR/mariadb.log" 2>&1 || shop_failed mariadb
    # The data lives for seconds: no flushing, a small pool, and nobody's tables but ours.
    options=(--datadir="$data" --socket="$data/admin.sock" --pid-file="$data/pid" --bind-address=127.0.0.1
        --port="$SHOP_MARIADB_PORT" --skip-name-resolve --innodb-flush-log-at-trx-commit=0 --sync-binlog=0
        --innodb-flush-method=nosync --innodb-buffer-pool-size=64M --innodb-log-file-size=16M
        --performance-schema=OFF --max-connections=200)
    [ -z "${SHOP_GENERAL_LOG:-}" ] || options+=(--general-log=1 --general-log-file="$data/general.log")
    spawn "$SHOP_DIR/mariadb.log" mariadbd --no-defaults "${user[@]}" "${options[@]}"
    SHOP_PIDS+=("$SPAWNED")
}

shop_fill_mariadb() {
    local client=(mariadb --no-defaults --socket="$SHOP_DIR/mariadb/admin.sock" --user=root)
    wait_until 60 "${client[@]}" -e 'SELECT 1' || shop_failed mariadb
    "${client[@]}" <"$SHOP_SOURCE/schema.sql" >/dev/null || die "could not fill MariaDB"
}

shop_start_redis() {
    mkdir "$SHOP_DIR/redis"
    spawn "$SHOP_DIR/redis.log" redis-server --bind 127.0.0.1 --port "$SHOP_REDIS_PORT" --dir "$SHOP_DIR/redis" \
        --save '' --appendonly no --daemonize no
    SHOP_PIDS+=("$SPAWNED")
    wait_until 20 redis-cli -p "$SHOP_REDIS_PORT" ping || shop_failed redis
}

shop_start_app() {
    mkdir "$SHOP_DIR/app"
    cp "$SHOP_SOURCE/app.py" "$SHOP_SOURCE/load.py" "$SHOP_DIR/app/"
    spawn "$SHOP_DIR/app.log" "$PYTHON" "$SHOP_DIR/app/app.py" --port "$SHOP_APP_PORT" \
        --mariadb-port "$SHOP_MARIADB_PORT" --redis-port "$SHOP_REDIS_PORT"
    SHOP_PIDS+=("$SPAWNED")
    wait_until 20 port_answers "$SHOP_APP_PORT" || shop_failed app
}

shop_start_nginx() {
    local worker='nobody nogroup'
    ! is_root || worker='root root' # its folder may lie where only root can read
    mkdir -p "$SHOP_DIR/nginx" "$SHOP_DIR/www/static"
    "$PYTHON" -c 'print("\n".join(f".item-{n} {{ color: #{n:06x}; margin: {n % 32}px }}" for n in range(1500)))' \
        >"$SHOP_DIR/www/static/site.css"
    sed -e "s|@DIR@|$SHOP_DIR|g" -e "s|@PORT@|$SHOP_PORT|g" -e "s|@APP_PORT@|$SHOP_APP_PORT|g" \
        -e "s|@WORKER@|$worker|g" "$SHOP_SOURCE/nginx.conf.in" >"$SHOP_DIR/nginx/nginx.conf"
    spawn "$SHOP_DIR/nginx.log" nginx -c "$SHOP_DIR/nginx/nginx.conf" -e "$SHOP_DIR/nginx/error.log"
    SHOP_PIDS+=("$SPAWNED")
}

# shop_load_start SECONDS [OPTION...]: customers in the background; returns when their first pages were answered.
# Their own count ends up in $SHOP_DIR/load.json.
shop_load_start() {
    local seconds=$1
    shift
    spawn "$SHOP_DIR/load.json" "$PYTHON" "$SHOP_DIR/app/load.py" --port "$SHOP_PORT" --seconds "$seconds" "$@"
    SHOP_LOAD_PID=$SPAWNED
    wait_until 15 shop_was_busy || die "no page was answered: $(tail -n 3 "$SHOP_DIR/load.json")"
}
shop_was_busy() { [ "$(wc -l <"$SHOP_DIR/nginx/access.log")" -gt 20 ]; }

shop_load_stop() {
    [ -n "$SHOP_LOAD_PID" ] || return 0
    stop_process "$SHOP_LOAD_PID"
    SHOP_LOAD_PID=''
}

# Waits until the customers have finished by themselves.
shop_load_wait() {
    wait "$SHOP_LOAD_PID" || true
    SHOP_LOAD_PID=''
}

# Stops what was started, last first, and removes the folder. Safe to call at any time, also twice.
shop_stop() {
    local index
    shop_load_stop
    for ((index = ${#SHOP_PIDS[@]} - 1; index >= 0; index--)); do
        stop_process "${SHOP_PIDS[index]}"
    done
    SHOP_PIDS=()
    [ -z "$SHOP_DIR" ] || rm -rf "$SHOP_DIR"
    SHOP_DIR=''
}
