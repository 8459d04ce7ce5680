/**
 * Every way zcow can fail, once.
 *
 * The table is the single source for the `ErrorCode` type, for the errno that the commands report,
 * and for `docs/errors.md` (generated). A code names a *cause*; the message of the error
 * carries the subject and the numbers. Codes are part of the public interface: add, never rename.
 */

/** The branch of the error tree a code belongs to. */
export type ErrorCategory =
  /** The caller asked for something that cannot be asked. */
  | "usage"
  /** The place where bytes live failed. */
  | "storage"
  /** The bytes of an image break the rules of its format. */
  | "format"
  /** The image is valid (or the request is) but needs something this program does not do. */
  | "unsupported"
  /** A server could not be set up or reached. */
  | "server"
  /** The rules of a zoned device refuse the request. */
  | "zone";

export interface ErrorCodeInfo {
  readonly category: ErrorCategory;
  /** The POSIX errno name that stock tools report for the same cause. */
  readonly errno: string;
  /** One sentence: when this happens. */
  readonly when: string;
}

const usage = (errno: string, when: string): ErrorCodeInfo => ({ category: "usage", errno, when });
const storage = (errno: string, when: string): ErrorCodeInfo => ({ category: "storage", errno, when });
const format = (when: string, errno = "EINVAL"): ErrorCodeInfo => ({ category: "format", errno, when });
const unsupported = (when: string): ErrorCodeInfo => ({ category: "unsupported", errno: "ENOTSUP", when });
const server = (errno: string, when: string): ErrorCodeInfo => ({ category: "server", errno, when });
const zone = (errno: string, when: string): ErrorCodeInfo => ({ category: "zone", errno, when });

export const ERROR_CODES = {
  // --- usage ---------------------------------------------------------------------------------
  INVALID_ARGUMENT: usage("EINVAL", "An argument or option has a value that is not allowed."),
  UNKNOWN_OPTION: usage("EINVAL", "An option name is not known for this format."),
  OUT_OF_RANGE: usage("EIO", "A request reaches past the end of the device, or below zero."),
  MISALIGNED: usage("EINVAL", "An offset or length is not a multiple of the device's request alignment."),
  CLOSED: usage("EBADF", "The object was closed before the call."),
  READ_ONLY: usage("EACCES", "The device or storage was opened read-only."),
  IMPLICIT_FILE_DENIED: usage("EPERM", "The image names another file and the open policy does not allow it."),
  PROTOCOL_UNKNOWN: usage("EINVAL", "A file name starts with a protocol that this program does not speak."),
  FORMAT_UNKNOWN: usage("EINVAL", "No format of that name is registered, or none was given and probing is off."),
  PASSPHRASE_REQUIRED: usage("EINVAL", "The image is encrypted, or is to be, and no passphrase was given."),
  PASSPHRASE_WRONG: usage("EPERM", "The passphrase opens none of the key slots of the image."),
  SECRET: usage("EINVAL", "A secret is unknown, cannot be read, or cannot be decoded."),
  BITMAP_NOT_FOUND: usage("ENOENT", "The image has no bitmap of that name."),
  BITMAP_INCONSISTENT: usage("EINVAL", "The bitmap was in use when its image was not closed; `check -r all` mends it."),
  BITMAP_REFUSED: usage("EINVAL", "A bitmap cannot be made or merged as asked; the message says why."),
  KEYSLOT_ACTIVE: usage("EINVAL", "The key slot to fill holds a key already."),
  KEYSLOT_INACTIVE: usage("EINVAL", "The key slot to erase holds no key, or not that of the old passphrase."),
  KEYSLOT_LAST: usage("EINVAL", "No key slot would be left that opens the image, and its data would be lost."),
  KEYSLOTS_FULL: usage("EINVAL", "All key slots are in use."),
  TARGET_TOO_SMALL: usage("EINVAL", "The target of a copy is smaller than what is to be copied."),
  FORMAT_MARK: usage(
    "EPERM",
    "A write would make a disk that was guessed to be raw look like an image of another format.",
  ),
  SHRINK_NOT_ALLOWED: usage("EINVAL", "The new size is below the present one, and shrinking was not asked for."),
  NO_BACKING_FILE: usage("ENOTSUP", "The image has no backing file, and one is needed."),
  BASE_NOT_FOUND: usage("ENOENT", "No image of the backing chain has that name."),
  SNAPSHOT_NOT_FOUND: usage("ENOENT", "The image has no snapshot of that id or name."),
  SNAPSHOT_LIMIT: usage("EFBIG", "The image would have more snapshots than the limit, or a larger table of them."),

  // --- storage -------------------------------------------------------------------------------
  IO_ERROR: storage("EIO", "The operating system reported a failed read, write or flush."),
  NOT_FOUND: storage("ENOENT", "The file does not exist."),
  ALREADY_EXISTS: storage("EEXIST", "The file exists already, and was to be created anew."),
  NOT_A_DISK: storage("EISDIR", "The path is neither a regular file nor a block device."),
  ACCESS_DENIED: storage("EACCES", "The operating system denies access to the file."),
  NO_SPACE: storage("ENOSPC", "The storage has no room for the write."),
  FILE_TOO_LARGE: storage("EFBIG", "The storage cannot hold a file of that length."),
  LOCKED: storage("EAGAIN", "Another process holds a lock on the image that conflicts with this use."),
  STORAGE_UNSUPPORTED: storage("ENOTSUP", "The storage lacks the capability that was asked for."),
  CONTENTS_DIFFER: storage("EIO", "Two storages that are to hold the same do not, where they were read."),
  REMOTE_ADDRESS: usage("EINVAL", "The address of a storage on another machine breaks the rules of such addresses."),
  REMOTE_UNREACHABLE: storage("ECONNREFUSED", "The server that has the storage cannot be reached."),
  REMOTE_REFUSED: storage("EINVAL", "The server does not have what was asked for, or does not let us have it."),
  REMOTE_PROTOCOL: storage("EIO", "The server breaks the rules of its protocol, or speaks one that is too old."),
  REMOTE_LOST: storage("EIO", "The connection to the server was lost, and could not be made again in time."),
  REMOTE_WRITES_LOST: storage(
    "EIO",
    "The server was gone for a while, and writes that it had acknowledged before may be missing: they were too many to be repeated.",
  ),

  // --- format: qcow2 header and tables --------------------------------------------------------
  IMAGE_CORRUPT: format("A structure of the image contradicts another; the message names both.", "EIO"),
  QCOW2_MAGIC: format("The file does not start with the qcow2 magic."),
  QCOW2_TRUNCATED: format("The file ends inside a structure that must be there."),
  QCOW2_VERSION: format("The qcow2 version is neither 2 nor 3.", "ENOTSUP"),
  QCOW2_CLUSTER_SIZE: format("cluster_bits is outside the supported range, 512 bytes to 2 MiB."),
  QCOW2_HEADER_TOO_SHORT: format("The file or header_length ends before the last mandatory header field."),
  QCOW2_HEADER_TOO_LONG: format("header_length is larger than the cluster that holds the header."),
  QCOW2_HEADER_ALIGNMENT: format("header_length is not a multiple of 8."),
  QCOW2_HEADER_FULL: format(
    "The header, its extensions and the backing file name do not fit in the first cluster.",
    "ENOSPC",
  ),
  QCOW2_SIZE: format("The virtual size is larger than can be mapped.", "EFBIG"),
  QCOW2_L1_TOO_LARGE: format("The L1 table is larger than the limit.", "EFBIG"),
  QCOW2_L1_TOO_SMALL: format("The L1 table is too small to map the virtual size."),
  QCOW2_L1_OFFSET: format("The L1 table is misaligned or lies where no table can lie."),
  QCOW2_REFTABLE_MISSING: format("The image has no refcount table."),
  QCOW2_REFTABLE_TOO_LARGE: format("The refcount table is larger than the limit.", "EFBIG"),
  QCOW2_REFTABLE_OFFSET: format("The refcount table is misaligned or lies where no table can lie."),
  QCOW2_REFCOUNT_WIDTH: format("refcount_order is above 6 (64 bits)."),
  QCOW2_SNAPSHOTS_TOO_LARGE: format("The image claims more snapshots than the limit.", "EFBIG"),
  QCOW2_SNAPSHOTS_OFFSET: format("The snapshot table is misaligned or lies where no table can lie."),
  QCOW2_SNAPSHOT_TABLE: format("The snapshot table or one of its entries is larger than the limit."),
  QCOW2_SNAPSHOT_L1: format("The L1 table of a snapshot is misaligned, too large, or lies where no table can lie."),
  SNAPSHOT_POINTERS: format("A snapshot of a zoned image has no write pointers, or damaged ones."),
  QCOW2_CRYPT_METHOD: format("The encryption method is not one the format defines."),
  QCOW2_CRYPT_HEADER: format("The encryption header extension is missing, not expected, or breaks its rules."),
  LUKS_HEADER: format("The LUKS header breaks the rules of its format."),
  QCOW2_UNKNOWN_FEATURE: format("An incompatible feature bit is set that this program does not know.", "ENOTSUP"),
  QCOW2_MARKED_CORRUPT: format("The image is marked corrupt and cannot be opened for writing.", "EACCES"),
  QCOW2_COMPRESSION_BIT: format("The compression feature bit contradicts the compression type."),
  QCOW2_COMPRESSION_TYPE: format("The compression type is not one the format defines.", "ENOTSUP"),
  QCOW2_EXTENDED_L2: format("Extended L2 entries are set with clusters below 16 KiB."),
  QCOW2_DATA_FILE_MISSING: format("The image keeps its data in an external file but does not name one."),
  QCOW2_DATA_FILE_RAW: format("The raw external data feature is set on an image that cannot have it."),
  QCOW2_BITMAPS: format("The bitmaps extension is missing where its feature bit is set, or breaks its rules."),
  QCOW2_BACKING_OFFSET: format("The backing file name lies outside the first cluster."),
  QCOW2_BACKING_NAME: format("The backing file name is too long."),
  QCOW2_BACKING_FORMAT: format("The backing format name is too long."),
  FILE_REFERENCE: format("The name under which an image refers to another file cannot be understood."),
  BACKING_LOOP: format("An image is its own backing file, directly or through others.", "ELOOP"),
  BACKING_TOO_DEEP: format("The chain of backing files is longer than the limit.", "ELOOP"),
  QCOW2_EXTENSION_LENGTH: format("A header extension runs past the end of its area."),
  QCOW2_EXTENSION_DUPLICATE: format("A header extension that must be unique appears twice."),
  QCOW2_FEATURE_NAMES: format("The feature name table is not a whole number of entries."),
  COMPRESSED_DATA: format("The data of a compressed cluster cannot be decompressed to exactly one cluster.", "EIO"),
  COMPRESSED_REWRITE: format("A compressed write meets a cluster that holds data already.", "EIO"),
  REFCOUNT_OVERFLOW: format("A reference count does not fit the width of the counts of the image.", "EFBIG"),

  // --- format: zoned extension and write-pointer table -----------------------------------------
  ZONED_MODEL: format("The zone model is neither 0 (none) nor 1 (host-managed)."),
  ZONED_ZONE_SIZE: format("The zone size is zero."),
  ZONED_ZONE_SIZE_POWER: format("The zone size is not a power of two."),
  ZONED_ZONE_SIZE_CLUSTER: format("The zone size is not a multiple of the cluster size."),
  ZONED_CAPACITY: format("The zone capacity is zero or larger than the zone size."),
  ZONED_CAPACITY_ALIGNMENT: format("The zone capacity is not a multiple of 512 bytes."),
  ZONED_DISK_SIZE: format("The size of a zoned disk is not a multiple of 512 bytes."),
  ZONED_ZONE_COUNT: format("The number of zones does not fit the disk size and the zone size."),
  ZONED_TOO_MANY_ZONES: format("The disk would have more than 2^20 zones."),
  ZONED_CONVENTIONAL: format("There are as many conventional zones as zones, or more."),
  ZONED_MAX_APPEND: format("The append limit is not a multiple of 512 bytes or larger than the zone capacity."),
  ZONED_WRITE_POINTER: format("A write-pointer table entry lies outside its zone."),
  ZONED_WRITE_POINTER_ALIGNMENT: format("A write-pointer table entry is not a multiple of 512 bytes."),
  ZONED_CONVENTIONAL_BIT: format("A write-pointer table entry has the wrong zone type."),
  ZONED_FEATURE_BIT: format("The zoned feature bit and the zoned extension contradict each other."),
  ZONED_VERSION: format("A zoned image has version 2."),
  ZONED_EXTENSION_LENGTH: format("The zoned extension is too short for its fields."),
  ZONED_RESERVED: format("Reserved bytes of the zoned extension are not zero."),
  ZONED_TABLE_SIZE: format("The stored size of the write-pointer table contradicts the number of zones."),
  ZONED_TABLE_OFFSET: format("The write-pointer table is misaligned or not inside the file."),
  ZONED_TABLE_OVERLAP: format("The write-pointer table overlaps other metadata."),
  ZONED_FIELD_TOO_LARGE: format("A field of the zoned extension is above 2^53 - 1."),
  ZONED_LAYOUT_FIELD: format("A value is too large for the field of the zoned layout that stores it."),
  ZONED_LAYOUT_UNKNOWN: format(
    "The zoned extension keeps the rules of no known layout; the message says why each fails.",
  ),
  ZONED_LAYOUT_AMBIGUOUS: format("The zoned extension keeps the rules of more than one layout."),

  // --- format: VMDK, VHDX, VPC, VDI -------------------------------------------------------------
  FORMAT_FIELD: format("A field of a VMDK, VHDX, VPC or VDI image has a value that its format does not allow."),
  FORMAT_TRUNCATED: format("A VMDK, VHDX, VPC or VDI image ends inside a structure that must be there."),
  FORMAT_CHECKSUM: format("A structure of a VHDX or VPC image does not match its checksum."),
  FORMAT_BLOCK: format(
    "A block of a VMDK, VHDX, VPC or VDI image cannot be where the image says, or does not unpack.",
    "EIO",
  ),

  DUMP_FORMAT: format("A dump of metadata breaks its format or limits."),

  // --- unsupported ---------------------------------------------------------------------------
  FORMAT_VARIANT: unsupported("The image is of a kind of its format that is not read, such as a VHDX with a parent."),
  FORMAT_READ_ONLY: unsupported("Images of this format can be read only."),
  FORMAT_NOT_CREATABLE: unsupported("Images of this format cannot be made."),
  UNSUPPORTED_BACKING_FILE: unsupported("The format of a new image has no backing files."),
  UNSUPPORTED_ENCRYPTION: unsupported("The image is, or is to be, encrypted."),
  UNSUPPORTED_COMPRESSION: unsupported(
    "The image has compression type zstd, and neither this Node.js nor an optional package can do it.",
  ),
  LUKS_CIPHER: unsupported("The LUKS header asks for a cipher, mode, IV generator or hash that is not supported."),
  LUKS_LIMIT: unsupported("Opening the LUKS header would take more iterations than a sound one can ask for."),
  CHECK_LIMIT: unsupported("Checking the image would take more memory or time than a sound image can need."),
  BITMAPS_IN_THE_WAY: {
    ...unsupported("The image has persistent bitmaps, which the change would make wrong."),
    errno: "EBUSY",
  },
  DOWNGRADE: unsupported("The image uses something that version 2 of the format does not have."),
  NOT_SUPPORTED: unsupported("The operation is not supported on this image; the message says why."),
  CHECK_UNSUPPORTED: unsupported("The format of the image has no metadata that could be checked."),
  AMEND_UNSUPPORTED: unsupported("The format of the image has no options that could be changed."),

  // --- server --------------------------------------------------------------------------------
  ADDRESS_IN_USE: server("EADDRINUSE", "Another program listens at the address or socket path already."),
  ADDRESS_UNAVAILABLE: server("EADDRNOTAVAIL", "The address to listen at is not one of this machine, or not allowed."),
  CONTROL_UNREACHABLE: server("ECONNREFUSED", "No server answers at the control socket."),
  CONTROL_PROTOCOL: server("EPROTO", "A request or reply on the control socket breaks its format or limits."),

  // --- zone ----------------------------------------------------------------------------------
  ZONE_INVALID_WRITE: zone("EIO", "A write to a sequential zone does not start at its write pointer."),
  ZONE_BOUNDARY: zone("EIO", "A write crosses the writable end of a zone or the end of the zone."),
  ZONE_FULL: zone("EIO", "A write or append was sent to a full zone."),
  ZONE_READ_ONLY: zone("EROFS", "The zone is in the read-only state."),
  ZONE_OFFLINE: zone("ENXIO", "The zone is in the offline state."),
  ZONE_TOO_MANY_OPEN: zone("ETOOMANYREFS", "No open resource is free and none can be freed by an implicit close."),
  ZONE_TOO_MANY_ACTIVE: zone("EOVERFLOW", "No active resource is free."),
  ZONE_INVALID_TRANSITION: zone("EINVAL", "The zone cannot go from its state to the requested one."),
  ZONE_NOT_SEQUENTIAL: zone("EIO", "A zone operation was sent to a conventional zone."),
  ZONE_MISALIGNED: zone("EINVAL", "An offset, length or append start is not aligned as zones require."),
  ZONE_APPEND_TOO_LARGE: zone("EINVAL", "An append is longer than the largest append of the device."),
  ZONE_ABORTED: zone(
    "EIO",
    "A write of the zone failed; this one was in flight behind it, or came before all in flight had ended.",
  ),
} as const satisfies Record<string, ErrorCodeInfo>;

/** Stable literal naming the cause of a {@link ZcowError}. */
export type ErrorCode = keyof typeof ERROR_CODES;
