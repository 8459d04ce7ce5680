# The same data over every variant of the transport. Namespace 1 has random writes, namespace 2 has zones.

verifying=(--direct=1 --verify=crc32c --verify_fatal=1 --ioengine=libaio --iodepth=8 --minimal --output=fio.out)

# Every size from one block to 256 KiB: single and many PDUs, in capsules and not.
verify_conventional() {
  fio --name=mixed --filename="$(namespace 1)" --rw=randwrite --bsrange=4k-256k --size=12M "${verifying[@]}"
}

verify_zoned() {
  local disk
  disk=$(namespace 2)
  blkzone reset "$disk"
  fio --name=small --filename="$disk" --zonemode=zbd --rw=write --bs=4k --size=4M "${verifying[@]}"
  blkzone reset "$disk"
  fio --name=large --filename="$disk" --zonemode=zbd --rw=randwrite --bs=192k --size=48M --io_size=12M --max_open_zones=4 "${verifying[@]}"
}
