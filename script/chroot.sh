# Debian systems in folders, for scripts that build and test in a clean one. Needs
# root. Nothing is mounted outside of a namespace of its own, which ends with the
# command that runs there: a folder can be copied and removed at any time.

systems=            # folder that has them
keeper=             # process of the namespace that is in use

need_to_make_system() { need debootstrap debootstrap; }

# Runs a command as the first process of new namespaces: when it has ended, all that
# it started has, and what it mounted is not mounted any more.
in_namespaces() { run_job unshare --mount --pid --ipc --fork --kill-child "$@"; }

# make_system SUITE FOLDER: a minimal one: bookworm, trixie or sid. An interrupted one
# is not taken for a complete one.
make_system() {
    local suite=$1 folder=$2
    rm -rf --one-file-system "$folder.new"
    in_namespaces debootstrap --variant=minbase --include=ca-certificates "$suite" "$folder.new" \
        "${MIRROR:-http://deb.debian.org/debian}"
    # no services are started by packages that are installed
    printf '#!/bin/sh\nexit 101\n' >"$folder.new/usr/sbin/policy-rc.d"
    chmod 755 "$folder.new/usr/sbin/policy-rc.d"
    echo 'Acquire::Check-Valid-Until "false";' >"$folder.new/etc/apt/apt.conf.d/90old"
    # nothing there outlives a power failure anyway
    echo force-unsafe-io >"$folder.new/etc/dpkg/dpkg.cfg.d/unsafe-io"
    echo 'APT::Install-Recommends "false";' >"$folder.new/etc/apt/apt.conf.d/90few"
    mv "$folder.new" "$folder"
}

copy_system() { cp -a --reflink=auto "$1" "$2"; }

# in_system FOLDER COMMAND...: runs a command there as root. All of its processes end
# with it, whatever they are.
in_system() {
    local folder=$1 status=0
    shift
    unshare --mount --pid --kill-child --propagation private bash -euc '
        mount -t proc proc "$0/proc"
        mount -t tmpfs -o mode=1777 tmpfs "$0/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666 devpts "$0/dev/pts"
        exec chroot "$0" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            DEBIAN_FRONTEND=noninteractive ${http_proxy:+"http_proxy=$http_proxy"} \
            ${PG_SUPPORTED_VERSIONS:+"PG_SUPPORTED_VERSIONS=$PG_SUPPORTED_VERSIONS"} "$@"' \
        "$folder" "$@" </dev/null &
    keeper=$!
    wait "$keeper" || status=$?
    keeper=
    return $status
}

# make_systems_folder: in $SYSTEMS, or in one that is removed at the end. It is not
# below $work, where clean_up() looks for servers to stop: these are other processes
# here than in their namespace.
make_systems_folder() {
    [ "$EUID" = 0 ] || die 'This needs root: it makes Debian systems in folders'
    trap 'remove_systems; clean_up' EXIT
    systems=$(mktemp -d "${TMPDIR:-/var/tmp}/sendcampaign.systems.XXXXXX")
}

remove_systems() {
    trap '' INT TERM HUP
    if [ -n "$keeper" ]; then
        kill -KILL "$keeper" 2>/dev/null || true
        wait "$keeper" 2>/dev/null || true
    fi
    [ -z "$systems" ] || rm -rf --one-file-system "$systems" || rm -rf --one-file-system "$systems"
}
