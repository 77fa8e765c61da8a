################################################################################
#
# coracle
#
################################################################################

CORACLE_VERSION = 0.1.0
# This tree itself: the package and the program are one checkout.
CORACLE_SITE = $(BR2_EXTERNAL_CORACLE_PATH)/../..
CORACLE_SITE_METHOD = local
CORACLE_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /target --exclude /out
CORACLE_LICENSE = MIT or Apache-2.0
CORACLE_LICENSE_FILES = LICENSE

# Buildroot fetches crates when it downloads an archive, which a local folder is not. They go to its own cache; what is
# there already, or vendored in this tree, is not fetched again.
define CORACLE_FETCH_CRATES
	cd $(@D) && $(TARGET_MAKE_ENV) $(PKG_COMMON_CARGO_ENV) cargo fetch --locked
endef
CORACLE_PRE_BUILD_HOOKS += CORACLE_FETCH_CRATES

CORACLE_CARGO_BUILD_OPTS = --bin coracle
# Buildroot's own choice is for speed and without optimisation at link time: these are Cargo.toml's, for size.
CORACLE_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="z" \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1"

define CORACLE_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)/coracle \
		$(TARGET_DIR)/sbin/coracle
	$(INSTALL) -D -m 0644 $(@D)/config/coracle.schema.json $(TARGET_DIR)/usr/share/coracle/coracle.schema.json
	$(if $(call qstrip,$(BR2_PACKAGE_CORACLE_CONFIG)),
		$(INSTALL) -D -m 0644 $(call qstrip,$(BR2_PACKAGE_CORACLE_CONFIG)) $(TARGET_DIR)/etc/coracle/config.json)
	$(foreach image,$(call qstrip,$(BR2_PACKAGE_CORACLE_IMAGES)),
		$(INSTALL) -D -m 0644 $(image) $(TARGET_DIR)/usr/share/coracle/images/$(notdir $(image))$(sep))
endef

define CORACLE_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(CORACLE_PKGDIR)/S60coracle $(TARGET_DIR)/etc/init.d/S60coracle
endef

define CORACLE_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/config/init/coracle.service $(TARGET_DIR)/usr/lib/systemd/system/coracle.service
endef

# Every option that cross/kernel says coracle cannot do without. As a fragment: BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES.
CORACLE_KERNEL_OPTIONS = $(shell sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=y.*/\1/p' $(CORACLE_SITE)/cross/kernel/coracle-required.cfg)
define CORACLE_LINUX_CONFIG_FIXUPS
	$(foreach option,$(CORACLE_KERNEL_OPTIONS),$(call KCONFIG_ENABLE_OPT,$(option))$(sep))
endef

$(eval $(cargo-package))
