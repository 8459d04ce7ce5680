# Disks attached with nbd-client.

DISK=/dev/nbd0

size_of_disk() { blockdev --getsize64 "$DISK"; }
is_attached() { [ "$(size_of_disk)" -gt 0 ]; }
is_detached() { ! nbd-client -c "$DISK"; }

# attach PORT [nbd-client options]
attach() {
  local port=$1
  shift
  modprobe nbd
  nbd-client 10.0.2.2 "$port" "$DISK" "$@" || fail "nbd-client exited with $?"
  await is_attached
}

# Whatever is still in flight fails.
take_away() { nbd-client -d "$DISK"; }

detach() {
  take_away
  await is_detached
}

# is_refused PORT [nbd-client options]
is_refused() {
  local port=$1
  shift
  modprobe nbd
  timeout 20 nbd-client 10.0.2.2 "$port" "$DISK" "$@" || true
  if is_attached && read_back; then fail "not refused: $*"; fi
  detach
}

read_back() {
  dd if=/dev/urandom of=data bs=64k count=4 status=none
  dd if=data of="$DISK" bs=64k oflag=direct status=none && dd if="$DISK" bs=64k count=4 iflag=direct status=none | cmp - data
}

cannot_write() {
  [ "$(cat "/sys/block/${DISK#/dev/}/ro")" = 1 ] || fail "the disk is not read-only"
  dd if="$DISK" of=/dev/null bs=64k count=4 iflag=direct status=none
  ! dd if=/dev/zero of="$DISK" bs=4k count=1 oflag=direct status=none || fail "a write was done"
}

# Gives free space back; the files must outlive that.
trim_ext4() {
  mount_ext4
  fstrim "$mount_point" || fail "fstrim exited with $?"
  umount "$mount_point"
}

# The writer of start_writer ends, between two files.
stop_writer() { touch stop; wait_for_writer; rm stop; }
