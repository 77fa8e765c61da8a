SUMMARY = "A container runtime and service supervisor for embedded Linux devices"
DESCRIPTION = "Runs services from image archives, isolated and inside limits that the kernel enforces, and keeps them \
running. One program without a daemon, an engine or a network; static where TCLIBC is musl."
# What comes after wrynose reads SPDX expressions and warns of its own sign for a choice; wrynose knows that sign alone.
LICENSE = "MIT ${@'|' if d.getVar('LAYERSERIES_CORENAMES') == 'wrynose' else 'OR'} Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=74682618e0c8f6828e71b787625ba104"

require ${BPN}-crates.inc
SRC_URI += "file://coracle.init"

inherit cargo cargo-update-recipe-crates externalsrc systemd update-rc.d

EXTERNALSRC = "${CORACLE_TREE}"
EXTERNALSRC_BUILD = "${WORKDIR}/build"

# OpenEmbedded strips programs itself and keeps the symbols in a package of their own.
CARGO_BUILD_FLAGS += "--bin coracle --config profile.release.strip=false"

# OpenEmbedded's Rust links with musl dynamically unless it is asked.
RUSTFLAGS:append:libc-musl = " -C target-feature=+crt-static"

SYSTEMD_SERVICE:${PN} = "coracle.service"
INITSCRIPT_NAME = "coracle"
INITSCRIPT_PARAMS = "defaults 60"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/coracle ${D}${base_sbindir}/coracle
    install -D -m 0644 ${S}/config/coracle.schema.json ${D}${datadir}/coracle/coracle.schema.json
    install -D -m 0644 ${S}/config/init/coracle.service ${D}${systemd_system_unitdir}/coracle.service
    install -D -m 0755 ${UNPACKDIR}/coracle.init ${D}${sysconfdir}/init.d/coracle
}

FILES:${PN} += "${datadir}/coracle ${systemd_system_unitdir}"
