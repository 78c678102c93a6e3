#!/bin/bash
# A team's server and its workers, or more workers, on a bare Debian 12: `make team`,
# `make team-worker` (docs/team.md). Run again, it changes only what is not so yet; the choices that
# were given (SERVER_NAME, API_SERVERS, TEAM_WORKERS, INVENTORIES, CERTIFICATE, CERTIFICATE_KEY) are
# kept in team.conf.
# No secret is in an argument of a process, nor in a file that others than its reader can read.
set -euo pipefail
umask 022

ROOT=/opt/etcd-runbooks
SETTINGS=/etc/etcd-runbooks
UNITS=/etc/systemd/system
PYTHON=$ROOT/.venv/bin/python
WORKER=etcd-runbooks
WORKER_HOME=/var/lib/etcd-runbooks-worker
SERVER=etcd-runbooks-server
CLUSTERS=$WORKER_HOME/clusters
DEBIAN=(git openssl openssh-client python3-venv rsync ca-certificates)
TRUSTED=/etc/ssl/certs/ca-certificates.crt
START_SECONDS=300

say() { printf '%s\n' "$*"; }
did() { say "  $*"; }

refuse() {
    printf 'refused: %s\n' "$*" >&2
    exit 2
}

fail() {
    printf 'failed: %s\n' "$*" >&2
    exit 1
}

# Writes its input to a file of this mode, whole or not at all; says so where it was otherwise.
put() {
    local mode=$1 path=$2 new
    new=$(mktemp "$path.XXXXXX")
    cat >"$new"
    chmod "$mode" "$new"
    if cmp -s "$new" "$path" && [ "$(stat -c %a "$path")" = "$mode" ]; then
        rm "$new"
        return 1
    fi
    mv "$new" "$path"
    did "wrote $path"
}

check_machine() {
    [ "$(id -u)" = 0 ] || refuse "this installs packages, accounts and units: run it as root"
    [ -d /run/systemd/system ] || refuse "systemd does not run here; a team's server is made of its units"
    command -v apt-get >/dev/null || refuse "this is no Debian: docs/team.md says what it would do"
    local here
    here=$(cd "$(dirname "$0")/.." && pwd -P)
    [ "$here" = "$ROOT" ] || refuse "this checkout is $here, and the units run from $ROOT:" \
        "git clone $here $ROOT && make -C $ROOT $TARGET"
}

read_choices() {
    local given_name=${SERVER_NAME:-} given_servers=${API_SERVERS:-} given_workers=${TEAM_WORKERS:-}
    local given_inventories=${INVENTORIES:-} given_certificate=${CERTIFICATE:-} given_key=${CERTIFICATE_KEY:-}
    SERVER_NAME='' API_SERVERS='' TEAM_WORKERS='' INVENTORIES='' CERTIFICATE='' CERTIFICATE_KEY=''
    if [ -f $SETTINGS/team.conf ]; then
        # shellcheck source=/dev/null
        . $SETTINGS/team.conf
    fi
    local own
    own=$(hostname -f 2>/dev/null || hostname)
    [[ $own != localhost* ]] || own=$(hostname)
    SERVER_NAME=${given_name:-${SERVER_NAME:-$own}}
    API_SERVERS=${given_servers:-${API_SERVERS:-1}}
    TEAM_WORKERS=${given_workers:-${TEAM_WORKERS:-2}}
    INVENTORIES=${given_inventories:-$INVENTORIES}
    CERTIFICATE=${given_certificate:-$CERTIFICATE} CERTIFICATE_KEY=${given_key:-$CERTIFICATE_KEY}
    [ "$CERTIFICATE" != internal ] || CERTIFICATE='' CERTIFICATE_KEY=''
    [[ $SERVER_NAME =~ ^[A-Za-z0-9.-]+$ ]] || refuse "SERVER_NAME=$SERVER_NAME is no name by which others reach this server"
    [[ $API_SERVERS =~ ^[12]$ ]] || refuse "API_SERVERS=$API_SERVERS: there are 1 or 2"
    [[ $TEAM_WORKERS =~ ^[0-9]$ ]] || refuse "TEAM_WORKERS=$TEAM_WORKERS: there are 0 to 9 on a machine"
    [ -n "$CERTIFICATE" ] && [ -z "$CERTIFICATE_KEY" ] && refuse "CERTIFICATE needs CERTIFICATE_KEY=<its key's file>, too"
    for file in $CERTIFICATE $CERTIFICATE_KEY; do
        [ -f "$file" ] || refuse "there is no file $file"
    done
    mkdir -p $SETTINGS
    local choice
    for choice in SERVER_NAME API_SERVERS TEAM_WORKERS INVENTORIES CERTIFICATE CERTIFICATE_KEY; do
        printf '%s=%q\n' $choice "${!choice}"
    done | put 644 $SETTINGS/team.conf || true
}

install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    did "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local get=(apt-get install -y -qq --no-install-recommends "${missing[@]}")
    "${get[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${get[@]}" >/dev/null; } ||
        fail "apt-get could not install ${missing[*]} (its words are above); see to" \
            "/etc/apt/sources.list and run it again"
}

make_account() {
    local name=$1 home=$2
    if ! id "$name" >/dev/null 2>&1; then
        useradd --system --user-group --home-dir "$home" --shell /usr/sbin/nologin "$name"
        did "made the account $name"
    fi
}

make_worker_account() {
    make_account $WORKER $WORKER_HOME
    install -d -m 700 -o $WORKER -g $WORKER $WORKER_HOME $WORKER_HOME/.ssh
    if [ ! -f $WORKER_HOME/.ssh/id_ed25519 ]; then
        as_worker ssh-keygen -q -t ed25519 -N '' -C "$WORKER@$(hostname)" \
            -f $WORKER_HOME/.ssh/id_ed25519
        did "made the SSH key $WORKER_HOME/.ssh/id_ed25519 of this machine's workers"
    fi
    as_worker $PYTHON -c '' || fail "the account $WORKER cannot run $PYTHON, which is" \
        "$(readlink -f $PYTHON): rm -r $ROOT/.venv && make -C $ROOT $TARGET PYTHON=/usr/bin/python3"
}

as_worker() {
    (umask 077 && runuser -u $WORKER -- env HOME=$WORKER_HOME "$@")
}

# Runs a program as the workers do, with the server and the password that they have.
as_team() {
    systemd-run --quiet --wait --pipe --collect --uid=$WORKER --working-directory=$ROOT \
        --property=EnvironmentFile=$SETTINGS/worker.env --setenv=PREFECT_HOME=$WORKER_HOME "$@"
}

random() {
    openssl rand -base64 32
}

make_database() {
    systemctl enable --quiet --now postgresql
    local version
    if [ -z "$(pg_lsclusters -h)" ]; then
        version=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | tail -1)
        pg_createcluster "$version" main >/dev/null
        systemctl daemon-reload
        systemctl start "postgresql@$version-main"
        did "made PostgreSQL's cluster $version/main"
    fi
    local deadline=$((SECONDS + START_SECONDS))
    until version=$(as_postgres 'show server_version_num' 2>/dev/null); do
        [ $SECONDS -lt $deadline ] || fail "PostgreSQL takes no connection: pg_lsclusters," \
            "journalctl -u 'postgresql@*'"
        sleep 0.5
    done
    [ "$version" -ge 140009 ] || refuse "PostgreSQL here is $version; Prefect needs 14.9 and newer"
    if [ -z "$(as_postgres "select 1 from pg_roles where rolname = '$SERVER'")" ]; then
        as_postgres "create role \"$SERVER\" login" >/dev/null
        did "made PostgreSQL's role $SERVER, which logs in as the account of its name, without a password"
    fi
    if [ -z "$(as_postgres "select 1 from pg_database where datname = 'etcd_runbooks'")" ]; then
        as_postgres "create database etcd_runbooks owner \"$SERVER\"" >/dev/null
        did "made the database etcd_runbooks"
    fi
}

as_postgres() {
    runuser -u postgres -- psql -XAtq -d postgres -c "$1"
}

make_redis() {
    local conf=/etc/redis/redis-etcd-runbooks.conf password
    if [ ! -f $SETTINGS/redis.env ]; then
        password=$(random | tr '+/=' '-_.')
        put 600 $SETTINGS/redis.env <<EOF
# Two API servers tell each other through Redis; made by deployments/team.sh.
SERVER_OPTIONS=--no-services
PREFECT_MESSAGING_BROKER=prefect_redis.messaging
PREFECT_MESSAGING_CACHE=prefect_redis.messaging
PREFECT_SERVER_EVENTS_CAUSAL_ORDERING=prefect_redis.ordering
PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect_redis.lease_storage
PREFECT_REDIS_MESSAGING_URL=redis://:$password@127.0.0.1:6390/0
PREFECT_SERVER_DOCKET_URL=redis://:$password@127.0.0.1:6390/1
EOF
    fi
    password=$(sed -n 's,^PREFECT_SERVER_DOCKET_URL=redis://:\(.*\)@.*,\1,p' $SETTINGS/redis.env)
    if put 640 $conf <<EOF; then
# Redis of etcd-runbooks: an instance of its own (redis-server@etcd-runbooks).
bind 127.0.0.1
port 6390
requirepass $password
dir /var/lib/redis
appendonly yes
appenddirname etcd-runbooks
appendfilename etcd-runbooks.aof
dbfilename etcd-runbooks.rdb
logfile ""
EOF
        chgrp redis $conf
        systemctl restart redis-server@etcd-runbooks
    fi
    systemctl enable --quiet --now redis-server@etcd-runbooks
}

drop_redis() {
    systemctl disable --quiet --now etcd-runbooks-services etcd-runbooks-server@4201 \
        redis-server@etcd-runbooks 2>/dev/null || true
    if [ -f $SETTINGS/redis.env ]; then
        rm $SETTINGS/redis.env
        did "one API server: removed $SETTINGS/redis.env"
        systemctl stop --quiet etcd-runbooks-server@4200
    fi
}

write_secrets() {
    local password
    if [ ! -f $SETTINGS/server.env ]; then
        put 600 $SETTINGS/server.env <<EOF
# Who may log in, how secrets in the database are encrypted, and where that is; made by
# deployments/team.sh. Keep a copy: without the key nobody can read the blocks' secrets again.
PREFECT_SERVER_API_AUTH_STRING=etcd-runbooks:$(random | tr '+/=' '-_.')
PREFECT_SERVER_ENCRYPTION_KEY=$(random | tr '+/' '-_')
PREFECT_API_DATABASE_CONNECTION_URL=postgresql+asyncpg://$SERVER@/etcd_runbooks?host=/run/postgresql
EOF
    fi
    password=$(sed -n 's/^PREFECT_SERVER_API_AUTH_STRING=//p' $SETTINGS/server.env)
    local trusted=$SETTINGS/ca.pem
    [ -z "$CERTIFICATE" ] || trusted=$TRUSTED
    {
        echo "# The server of this team, and the user and password for it: for workers and the command line."
        echo "PREFECT_API_URL=https://$SERVER_NAME/api"
        echo "PREFECT_API_AUTH_STRING=$password"
        echo "PREFECT_API_SSL_CERT_FILE=$trusted"
        if [ -n "$INVENTORIES" ]; then
            echo "ETCD_RUNBOOKS_CLUSTERS=$CLUSTERS"
            echo "# Where a worker's machine has them from: $INVENTORIES"
        fi
    } | put 600 $SETTINGS/worker.env || true
}

# Looks whether those who are told to trust the machine's authorities will take the certificate.
check_certificate() {
    [ -n "$CERTIFICATE" ] || return 0
    local asked=-verify_hostname said
    [[ ! $SERVER_NAME =~ ^[0-9.]+$ ]] || asked=-verify_ip
    said=$(openssl verify -CAfile $TRUSTED -untrusted "$CERTIFICATE" $asked "$SERVER_NAME" "$CERTIFICATE" 2>&1) ||
        fail "this machine does not take $CERTIFICATE for $SERVER_NAME: $(grep -m 1 depth <<<"$said" || tail -n 1 <<<"$said"). Where its" \
            "authority is not known, here and on other machines of workers: put the authority's certificate" \
            "into /usr/local/share/ca-certificates/<name>.crt and run update-ca-certificates"
    cmp -s <(openssl x509 -in "$CERTIFICATE" -noout -pubkey) <(openssl pkey -in "$CERTIFICATE_KEY" -pubout) ||
        fail "$CERTIFICATE_KEY is not the key of $CERTIFICATE"
}

make_proxy() {
    local tls=internal to=127.0.0.1:4200 changed=''
    [ "$API_SERVERS" = 1 ] || to="127.0.0.1:4200 127.0.0.1:4201"
    if [ -n "$CERTIFICATE" ]; then
        ! put 644 $SETTINGS/proxy.pem <"$CERTIFICATE" || changed=yes
        ! put 640 $SETTINGS/proxy-key.pem <"$CERTIFICATE_KEY" || changed=yes
        chgrp caddy $SETTINGS/proxy-key.pem
        tls="$SETTINGS/proxy.pem $SETTINGS/proxy-key.pem"
    fi
    sed "s,^SERVER_NAME,$SERVER_NAME,; s,TLS$,$tls,; s,API_SERVERS,$to," \
        "$ROOT/deployments/etcd-runbooks.caddy" | put 644 $SETTINGS/proxy.caddy && changed=yes
    local main=/etc/caddy/Caddyfile import="import $SETTINGS/proxy.caddy"
    if ! grep -qxF "$import" $main 2>/dev/null; then
        # Debian's example serves a page on port 80; anything else is somebody's, and stays.
        local shipped
        shipped=$(dpkg-query -W -f '${Conffiles}\n' caddy | awk -v f=$main '$1 == f {print $2}')
        if [ "$(md5sum <$main | cut -d' ' -f1)" = "$shipped" ]; then
            printf '%s\n' "$import" | put 644 $main
        else
            printf '\n%s\n' "$import" >>$main
            did "added to $main: $import"
        fi
        changed=yes
    fi
    runuser -u caddy -- env HOME=/var/lib/caddy caddy validate --config $main --adapter caddyfile \
        >/dev/null 2>&1 ||
        fail "Caddy refuses its settings: runuser -u caddy -- caddy validate --config $main"
    systemctl enable --quiet caddy
    if [ -n "$changed" ] && systemctl is-active --quiet caddy; then
        systemctl reload caddy
    fi
    systemctl start caddy || fail "Caddy does not start: journalctl -u caddy"
    [ -z "$CERTIFICATE" ] || return 0
    local root=/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt
    local deadline=$((SECONDS + START_SECONDS))
    until [ -f $root ]; do
        [ $SECONDS -lt $deadline ] || fail "Caddy has made no authority in $root: journalctl -u caddy"
        sleep 0.5
    done
    put 644 $SETTINGS/ca.pem <$root || true
}

# Installs units, and tells which of them are not as they were.
install_units() {
    local unit
    CHANGED=''
    for unit in "$@"; do
        ! put 644 "$UNITS/$unit" <"$ROOT/deployments/$unit" || CHANGED+=" $unit"
    done
    [ -z "$CHANGED" ] || systemctl daemon-reload
}

# Starts a unit, or starts it again where it is older than what it reads.
bring_up() {
    local unit=$1 file=$2 since
    shift 2
    systemctl enable --quiet "$unit"
    since=$(systemctl show -P ActiveEnterTimestamp "$unit")
    local newer=''
    for file in "$UNITS/$file" "$@"; do
        [ -z "$since" ] || [ ! -f "$file" ] || [ "$(stat -c %Y "$file")" -le "$(date -d "$since" +%s)" ] ||
            newer=yes
    done
    if ! systemctl is-active --quiet "$unit"; then
        systemctl start "$unit" || fail "$unit does not start: journalctl -u $unit"
        did "started $unit"
    elif [ -n "$newer" ]; then
        systemctl restart --no-block "$unit"
        did "starts $unit again, for its settings have changed"
    fi
}

start_servers() {
    local port ports=(4200)
    [ "$API_SERVERS" = 1 ] || ports=(4200 4201)
    local read=("$SETTINGS/server.env" "$SETTINGS/redis.env")
    # One after the other: the first one brings the database up to date.
    for port in "${ports[@]}"; do
        bring_up "etcd-runbooks-server@$port" etcd-runbooks-server@.service "${read[@]}"
        wait_for "http://127.0.0.1:$port/api/health" "etcd-runbooks-server@$port"
    done
    [ "$API_SERVERS" = 1 ] ||
        bring_up etcd-runbooks-services etcd-runbooks-services.service "${read[@]}"
}

wait_for() {
    local deadline=$((SECONDS + START_SECONDS))
    until $PYTHON -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=3)' "$1" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || fail "$1 does not answer: journalctl -u $2"
        sleep 1
    done
}

deploy() {
    local prefect=$ROOT/.venv/bin/prefect deadline=$((SECONDS + START_SECONDS))
    until as_team $prefect --no-prompt work-pool inspect etcd >/dev/null 2>&1; do
        if as_team $prefect --no-prompt work-pool create etcd --type process >/dev/null 2>&1; then
            did "made the work pool etcd"
        elif [ $SECONDS -gt $deadline ]; then
            fail "https://$SERVER_NAME/api did not take the work pool; does the name lead here from" \
                "here? make team SERVER_NAME=<name> chooses another; journalctl -u caddy"
        fi
        sleep 1
    done
    as_team $prefect --no-prompt deploy --all >/dev/null 2>&1 ||
        fail "the deployments were not taken: cd $ROOT && etcd-runbooks-team prefect --no-prompt deploy --all"
    as_team $PYTHON -m tasks.engine.automations >/dev/null ||
        fail "the automations were not taken: etcd-runbooks-team python -m tasks.engine.automations"
    as_team $PYTHON -m tasks.engine.forms >/dev/null ||
        fail "the forms were not taken: etcd-runbooks-team python -m tasks.engine.forms"
    did "deployments, automations and forms are up to date"
}

fetch_inventories() {
    [ -n "$INVENTORIES" ] || return 0
    if [ ! -d $CLUSTERS/.git ]; then
        as_worker env GIT_TERMINAL_PROMPT=0 GIT_SSH_COMMAND="ssh -oBatchMode=yes" \
            git clone --quiet "$INVENTORIES" $CLUSTERS ||
            fail "$INVENTORIES could not be cloned as $WORKER; its key is" \
                "$WORKER_HOME/.ssh/id_ed25519.pub: let it read and write there; put that host's key into" \
                "$WORKER_HOME/.ssh/known_hosts; and run it again"
        did "cloned $INVENTORIES to $CLUSTERS"
    fi
    install_units etcd-runbooks-inventories.service etcd-runbooks-inventories.timer
    systemctl enable --quiet --now etcd-runbooks-inventories.timer
}

install_command() {
    put 755 /usr/local/bin/etcd-runbooks-team <"$ROOT/deployments/etcd-runbooks-team" || true
}

start_workers() {
    local number
    install_units etcd-runbooks-worker@.service
    for ((number = 1; number <= 9; number++)); do
        if [ "$number" -le "$TEAM_WORKERS" ]; then
            bring_up "etcd-runbooks-worker@$number" etcd-runbooks-worker@.service $SETTINGS/worker.env
        elif systemctl is-enabled --quiet "etcd-runbooks-worker@$number" 2>/dev/null; then
            systemctl disable --quiet --now --no-block "etcd-runbooks-worker@$number"
            did "etcd-runbooks-worker@$number takes no further run and ends after those under way"
        fi
    done
}

tell_workers() {
    say "The workers of this machine log in to etcd's hosts with this key:"
    say "  $(cat $WORKER_HOME/.ssh/id_ed25519.pub)"
}

make_server() {
    say "packages"
    local redis=()
    [ "$API_SERVERS" = 1 ] || redis=(redis-server)
    install_packages "${DEBIAN[@]}" caddy postgresql "${redis[@]}"
    check_certificate
    say "accounts"
    make_account $SERVER /var/lib/$SERVER
    make_worker_account
    say "PostgreSQL"
    make_database
    say "server"
    write_secrets
    install_units etcd-runbooks-server@.service etcd-runbooks-services.service
    if [ "$API_SERVERS" = 2 ]; then make_redis; else drop_redis; fi
    start_servers
    say "TLS"
    make_proxy
    say "workers"
    fetch_inventories
    install_command
    deploy
    install_units etcd-runbooks-forms.service etcd-runbooks-forms.path
    systemctl enable --quiet --now etcd-runbooks-forms.path
    start_workers
    say "done: https://$SERVER_NAME"
    say "Log in with what PREFECT_API_AUTH_STRING says in $SETTINGS/worker.env (root alone can read it)."
    tell_workers
    say "More workers, on another machine with a checkout in $ROOT:"
    local files='{worker.env,ca.pem}'
    [ -z "$CERTIFICATE" ] || files=worker.env
    say "  scp -p $SERVER_NAME:$SETTINGS/$files $SETTINGS/ && make -C $ROOT team-worker"
}

make_worker() {
    [ -f $SETTINGS/worker.env ] || refuse "there is no $SETTINGS/worker.env, which says where the" \
        "server is: as root, mkdir -p $SETTINGS && scp -p <server>:$SETTINGS/{worker.env,ca.pem} $SETTINGS/"
    chown root:root $SETTINGS/worker.env
    chmod 600 $SETTINGS/worker.env
    local trusted
    trusted=$(sed -n 's/^PREFECT_API_SSL_CERT_FILE=//p' $SETTINGS/worker.env)
    [ -f "$trusted" ] || refuse "there is no $trusted, by which workers know the server: copy it from there"
    INVENTORIES=${INVENTORIES:-$(sed -n 's/^# .*has them from: //p' $SETTINGS/worker.env)}
    say "packages"
    install_packages "${DEBIAN[@]}"
    say "workers"
    make_worker_account
    fetch_inventories
    install_command
    as_team $ROOT/.venv/bin/prefect --no-prompt work-pool inspect etcd >/dev/null 2>&1 ||
        fail "the server at $(sed -n 's/^PREFECT_API_URL=//p' $SETTINGS/worker.env) did not tell its work" \
            "pool: etcd-runbooks-team prefect work-pool inspect etcd"
    start_workers
    say "done"
    tell_workers
}

case ${1:-} in
packages)
    # What the virtual environment needs; before the checks, which need no Python.
    [ "$(id -u)" = 0 ] || refuse "this installs packages, accounts and units: run it as root"
    install_packages "${DEBIAN[@]}"
    ;;
server)
    TARGET=team
    check_machine
    read_choices
    make_server
    ;;
worker)
    TARGET=team-worker
    check_machine
    read_choices
    make_worker
    ;;
*)
    refuse "say what is to be made: packages, server or worker"
    ;;
esac
