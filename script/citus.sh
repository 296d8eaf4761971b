# Citus, for tests only: built from its source, or taken from a server that has it,
# and in either case added to the copy of the server in the temporary directory.

# Where CITUS= is a directory, the server to test with is of its version, unless
# PG_CONFIG says otherwise.
find_citus() {
    [ -n "${CITUS:-}" ] || return 0
    [ -e "$CITUS" ] || die "CITUS: there is no $CITUS"
    CITUS=$(realpath "$CITUS")
    if [ -f "$CITUS" ]; then
        need_to_build_citus
    else
        [ -x "$CITUS/bin/pg_config" ] || die "CITUS: $CITUS is neither an archive of its source nor the directory of a server (which has bin/pg_config)"
        citus_version=$("$CITUS/bin/pg_config" --version | grep -oE '[0-9]+' | head -n 1)
        [ -e "$("$CITUS/bin/pg_config" --pkglibdir)/citus.so" ] || die "CITUS: the server of $CITUS has no Citus"
        [ -n "$pg_config" ] || pg_config=/usr/lib/postgresql/$citus_version/bin/pg_config
    fi
    export CITUS
}

need_to_build_citus() {
    need libssl-dev '/usr/include/openssl/ssl.h'
    need liblz4-dev '/usr/include/lz4.h'
    need libzstd-dev '/usr/include/zstd.h'
    need libkrb5-dev '/usr/include/gssapi/gssapi.h'
    need xz-utils xz
}

# Adds it to the copy of the server: see copy_server().
add_citus() {
    if [ -f "$CITUS" ]; then
        build_citus "$CITUS"
    else
        [ "$citus_version" = "$pg_version" ] ||
            die "CITUS: $CITUS has PostgreSQL $citus_version, and PG_CONFIG $pg_version"
        add_citus_of "$CITUS/bin/pg_config"
    fi
}

# build_citus ARCHIVE
build_citus() {
    local sources=$work/citus headers
    headers=$("$pg_config" --includedir-server)
    as_user mkdir "$sources"
    as_user tar -xJ --no-same-owner -C "$sources" <"$1"
    cd "$sources"
    [ -e configure ] || cd ./*/
    # from 15.20 on, the server exports a function that Citus defines itself
    ! grep -qs have_createdb_privilege "$headers"/commands/*.h ||
        as_user perl -0pi -e 's/static inline bool\nhave_createdb_privilege\(void\)\n\{.*?\n\}\n//s' \
            src/include/pg_version_compat.h
    as_user ./configure --without-libcurl PG_CONFIG="$pg_config"
    as_user make -s -j"$(nproc)" with_llvm=no all
    as_user make -s with_llvm=no DESTDIR="$work/install" install
    cd "$work"
    as_user rm -rf "$sources"
}

# Copies what Citus has installed into another server.
add_citus_of() {
    local from to
    from=$("$1" --pkglibdir)
    to=$work/install$("$pg_config" --pkglibdir)
    copy "$from" "$to" -h $(cd "$from" && echo citus*)
    from=$("$1" --sharedir)/extension
    to=$work/install$("$pg_config" --sharedir)/extension
    copy "$from" "$to" -h $(cd "$from" && echo citus*)
}
