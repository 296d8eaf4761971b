# What the scripts share: packages, a build in a temporary directory, and an
# exit that leaves nothing behind.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pg_config=${PG_CONFIG:-}
work=               # temporary directory
job=                # process group
log=                # of what quietly() runs
default_conf=       # file to be restored to its package's version
missing=()          # packages
optional=()         # packages, if they exist
sanitize=           # compiler options
user=               # who builds and runs everything
PATH=$PATH:/usr/sbin:/sbin

die() { echo "$*" >&2; exit 1; }

# quietly LABEL COMMAND...: shows its output only if it fails
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
        sudo "$@"
    fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 UCF_FORCE_CONFFOLD=1 \
    apt-get -y -q -o DPkg::Lock::Timeout=300 "$@"; }

can_be_root() { [ "$EUID" = 0 ] || command -v sudo >/dev/null; }

# need PACKAGE SIGN: SIGN is a command or file name pattern that the package has
need() {
    if [[ $2 == /* ]]; then
        compgen -G "$2" >/dev/null || missing+=("$1")
    else
        command -v "$2" >/dev/null || missing+=("$1")
    fi
}

# Chooses PostgreSQL 15 to 18: PG_CONFIG's, or else the newest that is installed,
# or else the newest in apt. Sets pg_version, pg_config and bindir.
find_postgres() {
    if [ -n "$pg_config" ]; then
        find_given_postgres
        return
    fi
    pg_version=$(newest_installed)
    [ -n "$pg_version" ] || pg_version=$(newest_in_apt)
    if [ -z "$pg_version" ] && can_be_root; then
        quietly 'Updating the list of packages' apt update
        updated=yes
        pg_version=$(newest_in_apt)
    fi
    [ -n "$pg_version" ] || die 'PostgreSQL 15 to 18 is needed, and apt has none of them. https://wiki.postgresql.org/wiki/Apt has all of them.'
    bindir=/usr/lib/postgresql/$pg_version/bin
    pg_config=$bindir/pg_config
}

find_given_postgres() {
    local given=$pg_config
    pg_config=$(command -v "$given") || die "PG_CONFIG: there is no program $given"
    pg_config=$(realpath "$pg_config")
    pg_version=$("$pg_config" --version | grep -oE '[0-9]+' | head -n 1)
    bindir=$("$pg_config" --bindir)
    # libpq-dev's pg_config describes another version once that is installed
    ! is_packaged || pg_config=$bindir/pg_config
}

# Is it a package of Debian's, which can be installed if it is missing?
is_packaged() { [ "$bindir" = "/usr/lib/postgresql/$pg_version/bin" ]; }

# Prefers a complete one, then one without headers, then headers alone.
newest_installed() {
    local version score best='' best_score=1
    for version in {15..18}; do
        score=0
        [ ! -e "/usr/lib/postgresql/$version/bin/postgres" ] || score=2
        [ ! -e "/usr/include/postgresql/$version/server/postgres.h" ] || score=$((score + 1))
        [ "$score" -lt "$best_score" ] || best=$version best_score=$score
    done
    echo "$best"
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
    if is_packaged; then
        need "postgresql-$pg_version" "$bindir/postgres"
        need "postgresql-server-dev-$pg_version" "/usr/include/postgresql/$pg_version/server/postgres.h"
    else
        expect "$bindir/postgres" 'its server'
        expect "$("$pg_config" --includedir-server)/postgres.h" "its server's headers"
        expect "$("$pg_config" --pgxs)" 'what extensions are built with'
    fi
}

# expect FILE WHAT: checks that a server from elsewhere than Debian is complete
expect() { [ -e "$1" ] || die "$pg_config is of a PostgreSQL without $2: $1 is missing"; }

need_to_test() {
    need libipc-run-perl '/usr/share/perl5/IPC/Run.pm'
    need perl prove
    need nghttp2-proxy nghttpx
    need openssl openssl
    need git git
    need nodejs node
    need npm npm
    need_if_there_is chromium '/usr/bin/chromium*'
    if is_packaged; then
        need_if_there_is "postgresql-$pg_version-cron" "/usr/share/postgresql/$pg_version/extension/pg_cron.control"
    else
        expect "$(pgxs)/src/test/regress/pg_regress" 'pg_regress'
        expect "$(pgxs)/src/test/perl/PostgreSQL/Test/Cluster.pm" 'its modules for tests (configure --enable-tap-tests)'
    fi
}

pgxs() { local file; file=$("$pg_config" --pgxs); echo "${file%/src/makefiles/pgxs.mk}"; }

# Like need, for a package that some distributions do not have: tests that need
# it are skipped there, and where what is installed is tested as it is.
need_if_there_is() {
    [ -n "${INSTALLED:-}" ] || compgen -G "$2" >/dev/null || optional+=("$1")
}

# Otherwise Debian's server package would create and start a cluster.
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
    local package
    [ ${#missing[@]} -gt 0 ] || [ ${#optional[@]} -gt 0 ] || return 0
    if ! can_be_root; then
        [ ${#missing[@]} = 0 ] || die "To be installed, as root or with sudo: ${missing[*]}"
        echo "Not installed, and so their tests are skipped: ${optional[*]}"
        return 0
    fi
    [ -n "${updated:-}" ] || quietly 'Updating the list of packages' apt update
    pin_headers
    for package in "${optional[@]}"; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            missing+=("$package")
        else
            echo "There is no package $package: its tests are skipped"
        fi
    done
    [ ${#missing[@]} = 0 ] || quietly "Installing ${missing[*]}" install_packages "${missing[@]}"
}

# Chooses the headers of the very version of the server that is installed, if apt still
# has them.
pin_headers() {
    local i version
    version=$(dpkg-query -W -f '${Version}' "postgresql-$pg_version" 2>/dev/null) || return 0
    for i in "${!missing[@]}"; do
        [[ ${missing[i]} == postgresql-server-dev-* ]] || continue
        ! apt-cache show "${missing[i]}=$version" >/dev/null 2>&1 || missing[i]+="=$version"
    done
}

# Headers may call functions that an earlier minor version of the server does not have.
check_headers() {
    local number='[0-9]+\.([0-9]+)' server server_minor headers
    [[ $("$bindir/postgres" --version) =~ $number ]] || return 0
    server=${BASH_REMATCH[0]} server_minor=${BASH_REMATCH[1]}
    [[ $("$pg_config" --version) =~ $number ]] || return 0
    headers=${BASH_REMATCH[0]}
    [ "$server_minor" -ge "${BASH_REMATCH[1]}" ] || die "The headers of PostgreSQL $headers are installed, but the server is $server, \
which may not have all that they call. Update the server: apt-get install --only-upgrade postgresql-$pg_version"
}

# unpack SIGN PACKAGE...: unpacks packages in the temporary directory, unless there is
# a command named SIGN. For programs that only tests need and whose packages, if they
# were installed, would start services; without them, the tests are skipped.
unpack() {
    local sign=$1 file
    shift
    ! command -v "$sign" >/dev/null || return 0
    echo "Unpacking $*"
    as_user mkdir -p "$work/packages"
    if ! download "$@" && [ -z "${updated:-}" ] && can_be_root; then
        quietly 'Updating the list of packages' apt update || true
        download "$@" || true
    fi
    for file in "$work"/packages/*.deb; do
        [ ! -e "$file" ] || as_user dpkg-deb -x "$file" "$work/packages"
    done
    PATH=$PATH:$work/packages/usr/bin:$work/packages/usr/sbin
    command -v "$sign" >/dev/null || echo "They cannot be had: their tests are skipped"
}

# The packages that would be installed with one, itself included.
with_dependencies() {
    apt-get -s -q --no-install-recommends install "$1" 2>/dev/null | awk '$1 == "Inst" { print $2 }'
}

# Where unpacked programs find the libraries that were unpacked with them; nothing else
# is to use these.
unpacked_libraries() {
    local folder
    for folder in "$work"/packages/usr/lib/*-linux-gnu*; do
        [ ! -d "$folder" ] || export UNPACKED_LIBRARIES=$folder
    done
}

download() { (cd "$work/packages" && as_user apt-get -qq download "$@" >/dev/null 2>&1); }

# Runs a command as an unprivileged user, since PostgreSQL refuses to run as root.
# setpriv, unlike runuser, leaves no process in between, which would live for 2 s
# after the command was killed.
as_user() {
    if [ "$EUID" = 0 ]; then
        [ -n "$user" ] || user=$(id -un postgres 2>/dev/null || echo nobody)
        setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups "$@"
    else
        "$@"
    fi
}

# Becomes that command, with its output in a file: whoever reads ours need not wait
# for its end.
become_as_user() {
    local log=$1
    shift
    exec </dev/null >"$log" 2>&1
    [ "$EUID" = 0 ] || exec "$@"
    [ -n "$user" ] || user=$(id -un postgres 2>/dev/null || echo nobody)
    exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups "$@"
}

# Runs a command in its own process group, so that we can end all of it.
run_job() {
    local status=0
    set -m
    as_user "$@" </dev/null &
    job=$!
    set +m
    wait "$job" || status=$?
    end_job
    return $status
}

# Processes of the group may remain, for example if one of several tests bails out.
end_job() {
    kill -TERM -- "-$job" 2>/dev/null || true
    # a second "wait" for it, after a signal has interrupted the first, may wait for any child
    { while kill -0 -- "-$job"; do sleep 0.1; done; } 2>/dev/null
    job=
}

# Stops all servers in the temporary directory, and removes it.
clean_up() {
    local file pid
    trap '' INT TERM HUP
    if [ -n "$log" ]; then
        exec >&3 2>&4
        cat "$log" >&2
        rm "$log"
    fi
    restore_default_conf
    [ -z "$job" ] || end_job
    [ -n "$work" ] || return 0
    while IFS= read -r file; do
        pid=$(head -n 1 "$file" 2>/dev/null) || continue
        kill -QUIT "$pid" 2>/dev/null || continue
        while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    done < <(find "$work" -name postmaster.pid 2>/dev/null)
    chmod -R u+rwX "$work"
    rm -rf "$work"
}
trap clean_up EXIT
trap 'echo; exit 130' INT
trap 'exit 143' TERM HUP

# Creates it in the first of these directories where the user can run a program.
# Its path must be short, because of sockets, and without blanks, because of make.
make_work_directory() {
    local parent
    for parent in "${TMPDIR:-}" /tmp /var/tmp; do
        [[ $parent == /* && $parent != *[^[:alnum:]/._+-]* && ${#parent} -le 50 ]] || continue
        ! can_work_in "$parent" || break
    done
    [ -n "$work" ] || die "No program can be run in ${TMPDIR:+$TMPDIR, }/tmp or /var/tmp (are they mounted noexec?). \
TMPDIR may name another directory, whose path has no more than 50 characters, and no blanks."
    # ignore the caller's settings for PostgreSQL and language
    unset "${!PG@}" "${!LC_@}" LANGUAGE
    export LANG=C.UTF-8 TMPDIR=$work
    cd "$work"
}

can_work_in() {
    work=$(mktemp -d "$1/sendcampaign.XXXXXX" 2>/dev/null) || return 1
    as_user true
    [ "$EUID" != 0 ] || chown "$user" "$work"
    ! { as_user cp "$(type -P true)" "$work/try" && as_user "$work/try"; } 2>/dev/null || return 0
    rm -rf "$work"
    work=
    return 1
}

# copy FROM TO FILE...: copies files of a directory, perhaps another user's, as ours.
copy() {
    local from=$1 to=$2
    shift 2
    as_user mkdir -p "$to"
    tar -C "$from" --mode=u+rwX,go+rX -c "$@" | as_user tar -C "$to" --no-same-owner -x
}

# The sources of the release before this one as an archive: $RELEASE, or from history.
# Fails where neither has them.
release_sources() {
    local change
    if [ -n "${RELEASE:-}" ]; then
        cat "$RELEASE"
        return
    fi
    change=$(git -C "$root" log --format=%H -S"default_version = '1.1'" -- sendcampaign.control \
        2>/dev/null | tail -n 1)
    git -C "$root" cat-file -e "$change^:sendcampaign--1.0.sql" 2>/dev/null &&
        git -C "$root" archive "$change^"
}

# INSTALLED=1: tests what is installed beside the server. It must be this version.
expect_installed() {
    local control version
    control=$("$pg_config" --sharedir)/extension/sendcampaign.control
    version=$(sed -n "s/^default_version = //p" "$root/sendcampaign.control")
    grep -qsx "default_version = $version" "$control" ||
        die "INSTALLED: version $version of sendcampaign is not installed for $pg_config"
}

# Builds a copy, and installs it in the temporary directory, unless what is installed
# already is to be tested: copy_server() has copied that.
build() {
    local copy=$work/sendcampaign flags="-Werror ${debug_points:-} $sanitize" tools=()
    [ -z "$sanitize" ] || tools=(CC=gcc)
    [ -n "${INSTALLED:-}" ] || check_headers
    copy "$root" "$copy" --exclude=.git --exclude='*.o' --exclude='*.so' --exclude=node_modules .
    copy_server
    if [ -z "${INSTALLED:-}" ]; then
        as_user make -s -C "$copy" PG_CONFIG="$pg_config" COPT="$flags" "${tools[@]}" with_llvm=no all
        as_user make -s -C "$copy" PG_CONFIG="$pg_config" COPT="$flags" "${tools[@]}" with_llvm=no \
            DESTDIR="$work/install" install
    fi
    as_user make -s -C "$copy/test/twilio" CFLAGS_EXTRA="$sanitize"
}

# A server finds its files relative to its program, so a copy of both finds an
# extension that is installed beside it. Bitcode is not copied, as it may come
# from another build of this extension.
copy_server() {
    local programs
    programs=$(cd "$bindir" && shopt -s nullglob && echo postgres initdb psql pg* create* drop* {cluster,reindex,vacuum}db*)
    copy "$bindir" "$work/install$bindir" -h $programs
    copy / "$work/install" -h --exclude=bitcode ".$("$pg_config" --pkglibdir)" ".$("$pg_config" --sharedir)"
    bindir=$work/install$bindir
    [ -z "$sanitize" ] || preload_sanitizer
    PATH=$bindir:$PATH
}

# The sanitizers' library must be the first one that a process loads, so
# "postgres" becomes a script that preloads it. The first report ends the
# process, and is in the directory "reports".
# bindtextdomain() is disabled: with GCC 12's library, a constructor that calls it
# (libgpg-error's, which comes with Debian's server) breaks its lock, and the next
# caller waits forever.
preload_sanitizer() {
    local libraries options="log_path=$work/reports/report:abort_on_error=1:halt_on_error=1:handle_abort=0"
    as_user mkdir "$work/reports"
    echo 'char *bindtextdomain(const char *d, const char *n) { return (char *) n; }' |
        as_user gcc -shared -fPIC -w -x c -o "$work/unbound.so" -
    libraries="$(realpath "$(gcc -print-file-name=libasan.so)") $work/unbound.so"
    as_user mv "$bindir/postgres" "$bindir/postgres.real"
    printf '#!/bin/bash\nLD_PRELOAD="%s" exec -a "$0" "$0.real" "$@"\n' "$libraries" | as_user tee "$bindir/postgres" >/dev/null
    as_user chmod 755 "$bindir/postgres"
    export ASAN_OPTIONS=$options:detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1:quarantine_size_mb=16
    export UBSAN_OPTIONS=$options:print_stacktrace=1
}
