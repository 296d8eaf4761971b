# What script/test and script/demo share: packages, a build in a temporary
# directory, and an end that leaves nothing behind.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pg_config=${PG_CONFIG:-}
work=               # temporary directory
job=                # process group
log=                # of what quietly() runs
default_conf=       # file to be put back as its package has it
missing=()
PATH=$PATH:/usr/sbin:/sbin

die() { echo "$*" >&2; exit 1; }

# quietly LABEL COMMAND...: its output is shown only if it fails
quietly() {
    echo "$1"
    shift
    log=$(mktemp)
    exec 3>&1 4>&2 >"$log" 2>&1
    "$@" </dev/null
    exec >&3 2>&4 3>&- 4>&-
    rm "$log"
    log=
}

as_root() {
    if [ "$EUID" = 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "to be run as root, or with sudo installed: $*"
        sudo "$@"
    fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 UCF_FORCE_CONFFOLD=1 \
    apt-get -y -q -o DPkg::Lock::Timeout=300 "$@"; }

# need PACKAGE SIGN: SIGN is a command, or a file name pattern, that shows it is there
need() {
    if [[ $2 == /* ]]; then
        compgen -G "$2" >/dev/null || missing+=("$1")
    else
        command -v "$2" >/dev/null || missing+=("$1")
    fi
}

# The newest version from 15 to 18 that is installed, else that apt has.
find_postgres() {
    if [ -n "$pg_config" ]; then
        pg_version=$("$pg_config" --version | grep -oE '[0-9]+' | head -n 1)
        bindir=$("$pg_config" --bindir)
        return
    fi
    pg_version=$(compgen -G '/usr/lib/postgresql/1[5-8]/bin/postgres' | cut -d/ -f5 | sort -n | tail -n 1 || true)
    [ -n "$pg_version" ] || pg_version=$(newest_in_apt)
    if [ -z "$pg_version" ]; then
        quietly 'Updating the list of packages' apt update
        updated=yes
        pg_version=$(newest_in_apt)
    fi
    [ -n "$pg_version" ] || die 'PostgreSQL 15 to 18 is needed, and apt has none of them'
    bindir=/usr/lib/postgresql/$pg_version/bin
    pg_config=$bindir/pg_config
}

newest_in_apt() {
    apt-cache search --names-only '^postgresql-server-dev-1[5-8]$' | grep -oE 'dev-[0-9]+' |
        cut -d- -f2 | sort -n | tail -n 1 || true
}

need_to_build() {
    find_postgres
    need make make
    need gcc gcc
    need libc6-dev '/usr/include/stdio.h'
    need libcurl4-openssl-dev '/usr/include/*/curl/curl.h'
    need libmicrohttpd-dev '/usr/include/microhttpd.h'
    need "postgresql-$pg_version" "$bindir/postgres"
    need "postgresql-server-dev-$pg_version" "$("$pg_config" --includedir-server 2>/dev/null || echo "/usr/include/postgresql/$pg_version/server")/postgres.h"
}

need_to_test() {
    need "postgresql-$pg_version-cron" "/usr/share/postgresql/$pg_version/extension/pg_cron.control"
    need libipc-run-perl '/usr/share/perl5/IPC/Run.pm'
    need perl prove
    need nghttp2-proxy nghttpx
    need openssl openssl
    need nodejs node
    need npm npm
}

# Debian's server package would create a cluster and start it.
avoid_main_cluster() {
    local conf=/etc/postgresql-common/createcluster.conf
    [ ! -e "$conf" ] || return 0
    default_conf=$conf
    as_root mkdir -p "${conf%/*}"
    echo 'create_main_cluster = false' | as_root tee "$conf"
}

restore_default_conf() {
    [ -n "$default_conf" ] || return 0
    as_root rm -f "$default_conf" "$default_conf.ucf-dist"
    as_root cp "/usr/share/postgresql-common/${default_conf##*/}" "$default_conf" || true
    default_conf=
}

install_packages() {
    avoid_main_cluster
    apt install --no-install-recommends "$@"
    restore_default_conf
}

install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    [ -n "${updated:-}" ] || quietly 'Updating the list of packages' apt update
    quietly "Installing ${missing[*]}" install_packages "${missing[@]}"
}

# All that follows is done by an unprivileged user: PostgreSQL refuses root.
# No process stays between, which runuser's would for 2 s after an end.
as_user() {
    if [ "$EUID" = 0 ]; then
        setpriv --reuid postgres --regid postgres --init-groups "$@"
    else
        "$@"
    fi
}

# In a process group of its own, so that its end is in our hands.
run_job() {
    local status=0
    set -m
    as_user "$@" </dev/null &
    job=$!
    set +m
    wait "$job" || status=$?
    job=
    return $status
}

# Ends all that runs in the temporary directory, and removes it.
clean_up() {
    local file pid
    trap '' INT TERM HUP
    if [ -n "$log" ]; then
        exec >&3 2>&4
        cat "$log" >&2
        rm "$log"
    fi
    restore_default_conf
    if [ -n "$job" ]; then
        kill -TERM -- "-$job" 2>/dev/null || true
        wait "$job" 2>/dev/null || true
    fi
    [ -n "$work" ] || return 0
    while IFS= read -r file; do
        pid=$(head -n 1 "$file" 2>/dev/null) || continue
        kill -QUIT "$pid" 2>/dev/null || continue
        while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    done < <(find "$work" -name postmaster.pid 2>/dev/null)
    rm -rf "$work"
}
trap clean_up EXIT
trap 'echo; exit 130' INT
trap 'exit 143' TERM HUP

make_work_directory() {
    work=$(mktemp -d /tmp/sendcampaign.XXXXXX)
    [ "$EUID" != 0 ] || chown postgres "$work"
    # neither the caller's settings for PostgreSQL nor his language
    unset "${!PG@}" "${!LC_@}" LANGUAGE
    export LANG=C.UTF-8 TMPDIR=$work PATH=$bindir:$PATH
    cd "$work"
}

# A copy is built, and installed below the temporary directory.
build() {
    local copy=$work/sendcampaign install=$work/install
    as_user mkdir "$copy"
    tar -C "$root" --exclude-vcs --exclude='*.o' --exclude='*.so' --exclude=node_modules -c . |
        as_user tar -C "$copy" --no-same-owner -x
    as_user make -s -C "$copy" PG_CONFIG="$pg_config" COPT="-Werror ${debug_points:-}" with_llvm=no all
    as_user make -s -C "$copy" PG_CONFIG="$pg_config" with_llvm=no DESTDIR="$install" install
    as_user make -s -C "$copy/test/twilio"
}

# Settings with which a server finds what build() has installed.
settings_for_build() {
    local install=$work/install
    if [ "$pg_version" -ge 18 ]; then
        echo "extension_control_path = '$install$("$pg_config" --sharedir):\$system'"
    else
        echo "extension_destdir = '$install'"
    fi
    echo "dynamic_library_path = '$install$("$pg_config" --pkglibdir):\$libdir'"
}
