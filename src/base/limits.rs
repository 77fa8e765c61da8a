//! Every capacity, with its unit and the reason for its value. What exceeds one is a reported problem or a counted loss.

/// Longest service, volume or image-store name, in bytes: a host name label (RFC 1035) and a cgroup directory.
pub const NAME_BYTES: usize = 63;
/// Services in one config: a device with more runs something else; bounds every table of the supervisor.
pub const SERVICES: usize = 128;
/// Size of a config, all its files together, in bytes: 128 services of 2 KiB; read into one buffer.
pub const CONFIG_BYTES: usize = 256 * 1024;
/// Files of one config: packages ship one each.
pub const CONFIG_FILES: usize = 64;
/// Patterns in `include`.
pub const INCLUDES: usize = 8;
/// Variables of one config.
pub const VARS: usize = 32;
/// Longest value of a variable, in bytes: serial numbers, site names, addresses.
pub const VAR_BYTES: usize = 256;
/// Nesting depth of any JSON that coracle reads: the schema needs 6, image configs as many.
pub const JSON_DEPTH: usize = 16;
/// Keys of one JSON object: an image's labels are the largest seen, some dozens; each new key is compared with these.
pub const JSON_KEYS: usize = 1024;
/// Problems reported for one config; further ones are counted.
pub const PROBLEMS: usize = 64;
/// Words in a command, and entries in `env` of one service.
pub const ARGV: usize = 64;
/// Environment entries of one service.
pub const ENV: usize = 128;
/// Mounts of one service.
pub const MOUNTS: usize = 32;
/// Entries in `needs` of one service.
pub const NEEDS: usize = 16;
/// Devices of one service.
pub const DEVICES: usize = 32;
/// Resource limits (`rlimits`) of one service: Linux has 16.
pub const RLIMITS: usize = 16;
/// Files with environment entries (`env_files`) of one service.
pub const ENV_FILES: usize = 8;
/// Secrets of one service.
pub const SECRETS: usize = 16;
/// Listening sockets of one service: a web server has four.
pub const SOCKETS: usize = 8;
/// Kernel modules that a board loads: a kernel with all drivers as modules needs some dozens.
pub const MODULES: usize = 64;
/// Kernel parameters that a board sets.
pub const SYSCTLS: usize = 64;
/// File systems that a board mounts.
pub const BOARD_MOUNTS: usize = 16;
/// Block devices with limits of one service.
pub const IO_LIMITS: usize = 8;
/// Bytes of one secret: a certificate chain with its key has some 10 KiB.
pub const SECRET_BYTES: usize = 64 * 1024;
/// Bytes of one environment file: what [`ENV`] entries of 512 bytes take.
pub const ENV_FILE_BYTES: usize = 64 * 1024;
/// Health checks of one service: one of each role.
pub const CHECKS: usize = 3;
/// Bytes of the URL of a health check: its request is put together on the stack.
pub const URL_BYTES: usize = 256;
/// Image folders of a device.
pub const IMAGE_DIRS: usize = 8;
/// Layers of one image: the field's limit (Docker), and a lowerdir list that fits one page as `/proc/self/fd` links.
pub const LAYERS: usize = 127;
/// Supplementary groups taken from an image's group file.
pub const GROUPS: usize = 32;
/// Bytes of one log entry's text; longer lines are kept in marked parts. Two entries of it fill 4 KiB.
pub const LOG_TEXT_BYTES: usize = 2016;
