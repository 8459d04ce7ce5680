# File systems on served disks: make, mount, write with fsync, unmount, check, mount again, compare.

mount_point=/mnt/disk
mkdir -p "$mount_point"

# Contents of file NAME, MIB long: the same on every call and after every boot, different in every block and for every
# NAME. They are made of one block of noise, each time begun elsewhere, because making noise is slow under emulation.
noise=/job/noise
contents() (
  # The last program ends before those that feed it, which is no failure.
  set +o pipefail
  start=$(cksum <<< "$1" | cut -d ' ' -f 1)
  { echo "file $1"; tail -c +$((start % 1048576 + 1)) "$noise"; while cat "$noise"; do :; done; } | head -c $(($2 * 1048576))
)

# write_files MIB: files of 8 MiB with fsync each, and a hundred small ones.
write_files() {
  local number
  for ((number = 0; number < $1 / 8; number++)); do
    contents "$number" 8 > "$mount_point/large.$number"
    sync "$mount_point/large.$number"
  done
  mkdir "$mount_point/small"
  for ((number = 0; number < 100; number++)); do echo "small file $number" > "$mount_point/small/$number"; done
  sync "$mount_point"/small/{0..99}
}

compare_files() {
  local number
  for ((number = 0; number < $1 / 8; number++)); do
    contents "$number" 8 | cmp - "$mount_point/large.$number" || fail "large.$number differs"
  done
  for ((number = 0; number < 100; number++)); do
    [ "$(cat "$mount_point/small/$number")" = "small file $number" ] || fail "small/$number differs"
  done
}

# What each file system needs. $DISK is the disk, $ZONED the zoned one beside it where there is one.
make_btrfs() { modprobe btrfs; wipefs -aq "$DISK" || true; mkfs.btrfs -q -f -O zoned -d single -m single "$DISK"; }
mount_btrfs() { mount -t btrfs "$DISK" "$mount_point"; }
check_btrfs() { btrfs check "$DISK"; }

# f2fs keeps the names of its disks.
make_f2fs() { modprobe f2fs; blkzone reset "$(namespace 2)"; mkfs.f2fs -q -f -m -c "$(lasting_name 2)" "$(lasting_name 1)"; }
mount_f2fs() { lasting_name 2 > /dev/null; mount -t f2fs "$(lasting_name 1)" "$mount_point"; }
# Exits with 0 whatever it finds; the words tell.
check_f2fs() {
  fsck.f2fs --dry-run "$(lasting_name 1)" < /dev/null > fsck.log 2>&1
  ! grep -E '\[ASSERT\]|\[Fail\]' fsck.log
}

make_ext4() { modprobe ext4; mkfs.ext4 -q -F "$DISK"; }
mount_ext4() { mount -t ext4 "$DISK" "$mount_point"; }
check_ext4() { e2fsck -f -n "$DISK"; }

make_xfs() { modprobe xfs; mkfs.xfs -q -f "$DISK"; }
mount_xfs() { mount -t xfs "$DISK" "$mount_point"; }
check_xfs() { xfs_repair -n "$DISK"; }

make_zoned-xfs() { modprobe xfs; blkzone reset "$ZONED"; mkfs.xfs -q -f -r zoned=1,rtdev="$ZONED" "$DISK"; }
mount_zoned-xfs() { mount -t xfs -o rtdev="$ZONED" "$DISK" "$mount_point"; }
check_zoned-xfs() { xfs_repair -n -r "$ZONED" "$DISK"; }

# round_trip KIND MIB
round_trip() {
  set -e
  "make_$1"
  "mount_$1"
  write_files "$2"
  umount "$mount_point"
  "check_$1" > check.log 2>&1 || fail "the check found damage: $(tail -n 20 check.log)"
  echo 3 > /proc/sys/vm/drop_caches
  "mount_$1"
  compare_files "$2"
  umount "$mount_point"
}

# zonefs has a file per zone: round_trip_zonefs ZONES writes that many whole zones.
round_trip_zonefs() {
  set -e
  local zone mib
  modprobe zonefs
  blkzone reset "$DISK"
  mkzonefs -f "$DISK"
  mount -t zonefs "$DISK" "$mount_point"
  mib=$(($(zone_capacity "$DISK") / 1048576))
  for ((zone = 0; zone < $1; zone++)); do
    contents "$zone" "$mib" | dd of="$mount_point/seq/$zone" bs=128k iflag=fullblock oflag=direct conv=notrunc,fsync status=none
  done
  umount "$mount_point"
  mount -t zonefs "$DISK" "$mount_point"
  for ((zone = 0; zone < $1; zone++)); do
    contents "$zone" "$mib" | cmp - "$mount_point/seq/$zone" || fail "seq/$zone differs"
  done
  truncate -s 0 "$mount_point/seq/0"
  [ "$(stat -c %s "$mount_point/seq/0")" = 0 ] || fail "truncation does not reset the zone"
  umount "$mount_point"
}

# write_until_cut ROUND: files of one MiB with fsync, announcing each on the output once the file system said it is safe.
# A file "stop" ends it, too.
write_until_cut() {
  local number
  for ((number = 0; ; number++)); do
    [ ! -e stop ] || return 0
    contents "$1-$number" 1 > "$mount_point/$1-$number" || return
    sync "$mount_point/$1-$number" || return
    echo "safe $1-$number"
  done
}

# The same beside the script that starts it; what it announces goes to the file "safe".
start_writer() { rm -f safe; { write_until_cut "$1"; echo ended; } > safe 2>&1 & }
# await_safe COUNT: until the writer has announced so many files.
await_safe() {
  local wait count
  for ((wait = 0; wait < 900; wait++)); do
    count=$(grep -c '^safe ' safe 2> /dev/null || true)
    if [ "${count:-0}" -ge "$1" ]; then return; fi
    sleep 0.1
  done
  fail "only ${count:-0} files are safe after 90 s: $(tail -n 3 safe)"
}
wait_for_writer() { await grep -qx ended safe; }

# compare_safe NAME...: the files announced before a cut.
compare_safe() {
  local name
  for name in "$@"; do contents "$name" 1 | cmp - "$mount_point/$name" || fail "$name differs"; done
  rm -f "$mount_point"/*-*
}

# recover KIND NAME...: after a cut, mounts (which replays what the file system has logged), compares and checks.
recover() {
  local kind=$1
  set -e
  shift
  modprobe "$kind"
  "mount_$kind"
  compare_safe "$@"
  umount "$mount_point"
  "check_$kind" > check.log 2>&1 || fail "the check found damage: $(tail -n 20 check.log)"
}
