# The same data over every variant of the transport. Namespace 1 has random writes, namespace 2 has zones.

verifying=(--direct=1 --verify=crc32c --verify_fatal=1 --ioengine=libaio --iodepth=8)

# Every size from one block to 256 KiB: single and many PDUs, in capsules and not.
verify_conventional() {
  quiet_fio --name=mixed --filename="$(namespace 1)" --rw=randwrite --bsrange=4k-256k --size=12M "${verifying[@]}"
}

verify_zoned() {
  local disk
  disk=$(namespace 2)
  blkzone reset "$disk"
  quiet_fio --name=small --filename="$disk" --zonemode=zbd --rw=write --bs=4k --size=8M "${verifying[@]}"
  blkzone reset "$disk"
  quiet_fio --name=large --filename="$disk" --zonemode=zbd --rw=randwrite --bs=192k --size=48M --io_size=12M --max_open_zones=4 "${verifying[@]}"
}
