# What a zoned disk must be and do. Every function works on $DISK (a zoned namespace) and leaves all zones empty.

# The variable STATUS after `status_of`: the NVMe status that nvme-cli printed, DNR and More removed, as 0x1bc; 0 for success.
status_of() {
  local text number
  if text=$("$@" 2>&1); then STATUS=0x0; return; fi
  echo "$text"
  number=$(grep -oiE '\(?0x[0-9a-f]+\)?' <<< "$text" | tail -n 1 | tr -d '()')
  [ -n "$number" ] || fail "no status in: $text"
  printf -v STATUS '0x%x' $((number & 0x7ff))
}

expect_status() {
  local wanted=$1
  shift
  status_of "$@"
  [ "$STATUS" = "$wanted" ] || fail "status $STATUS instead of $wanted from: $*"
}

# State of a zone that was opened, never written, and closed.
UNWRITTEN=${UNWRITTEN:-em}

# State of the zone that starts at a sector, as blkzone abbreviates it: em, oi, oe, cl, nw, ro, fu, of.
zone_state() { blkzone report -o "$1" -c 1 "$DISK" | sed -nE 's/.*zcond:[ 0-9]+\((..)\).*/\1/p'; }
zone_pointer() { blkzone report -o "$1" -c 1 "$DISK" | sed -nE 's/.*wptr 0x([0-9a-f]+).*/\1/p'; }
expect_state() { [ "$(zone_state "$1")" = "$2" ] || fail "zone at sector $1 is $(zone_state "$1"), not $2"; }

block_size() { cat "/sys/block/${DISK#/dev/}/queue/logical_block_size"; }
# Logical blocks of a zone, and sectors of 512 bytes.
zone_blocks() { echo $(($(zone_sectors "$DISK") * 512 / $(block_size))); }
random_bytes() { head -c "$1" /dev/urandom; }
reset_all() { nvme zns reset-zone "$DISK" --select-all; }

expect_equal() { [ "$2" = "$3" ] || fail "$1 is $2, not $3"; }

# attributes ZONES ZONE-BYTES CAPACITY MAX-OPEN MAX-ACTIVE APPEND-BYTES BLOCK-SIZE
attributes() {
  local zones=$1 open
  expect_equal "the model" "$(queue_of "$DISK" zoned)" host-managed
  expect_equal "the number of zones" "$(queue_of "$DISK" nr_zones)" "$zones"
  expect_equal "the zone size" $(($(zone_sectors "$DISK") * 512)) "$2"
  expect_equal "the zone capacity" "$(zone_capacity "$DISK")" "$3"
  expect_equal "the active limit" "$(queue_of "$DISK" max_active_zones)" "$5"
  expect_equal "the append limit" "$(queue_of "$DISK" zone_append_max_bytes)" "$6"
  expect_equal "the block size" "$(block_size)" "$7"
  open=$(queue_of "$DISK" max_open_zones)
  # Kernels from 6.14 on show the size of their own pool where the disk has no limit.
  if [ "$4" = 0 ]; then [[ $open =~ ^(0|128)$ ]] || fail "the open limit is $open"; else expect_equal "the open limit" "$open" "$4"; fi
  expect_equal "the number of reported zones" "$(blkzone report "$DISK" | grep -c SEQ_WRITE_REQUIRED)" "$zones"
  expect_equal "the number of empty zones" "$(blkzone report "$DISK" | grep -c '(em)')" "$zones"
  expect_equal "read-only" "$(cat "/sys/block/${DISK#/dev/}/ro")" 0
}

# Every management command of blkzone, on the second zone, and on all.
blkzone_commands() {
  local zone
  zone=$(zone_sectors "$DISK")
  blkzone open -o "$zone" -l "$zone" "$DISK"; expect_state "$zone" oe
  blkzone close -o "$zone" -l "$zone" "$DISK"; expect_state "$zone" "$UNWRITTEN"
  dd if=/dev/zero of="$DISK" bs=64k count=1 seek=$((zone * 512))B oflag=direct status=none; expect_state "$zone" oi
  expect_equal "the write pointer" "$((16#$(zone_pointer "$zone")))" 128
  blkzone close -o "$zone" -l "$zone" "$DISK"; expect_state "$zone" cl
  blkzone open -o "$zone" -l "$zone" "$DISK"; expect_state "$zone" oe
  blkzone finish -o "$zone" -l "$zone" "$DISK"; expect_state "$zone" fu
  blkzone finish -o 0 -l "$zone" "$DISK"; expect_state 0 fu
  blkzone reset -o "$zone" -l "$zone" "$DISK"; expect_state "$zone" em
  blkzone reset "$DISK"; expect_state 0 em
}

# Every command of `nvme zns`.
nvme_commands() {
  local blocks sectors
  blocks=$(zone_blocks)
  sectors=$(zone_sectors "$DISK")
  nvme zns id-ctrl "$DISK"
  nvme zns id-ns "$DISK" -H
  nvme zns open-zone "$DISK" -s "$blocks"; expect_state "$sectors" oe
  random_bytes "$(block_size)" > block
  nvme zns zone-append "$DISK" -s "$blocks" -z "$(block_size)" -d block
  nvme zns close-zone "$DISK" -s "$blocks"; expect_state "$sectors" cl
  nvme zns report-zones "$DISK" -S 4 -d 1 | grep -i "SLBA: *0x$(printf %x "$blocks")" || fail "the closed zone is not reported as such"
  nvme zns report-zones "$DISK" -d 3 -p
  nvme zns finish-zone "$DISK" -s "$blocks"; expect_state "$sectors" fu
  nvme zns reset-zone "$DISK" -s "$blocks"; expect_state "$sectors" em
  nvme zns zone-mgmt-send "$DISK" -s "$blocks" -z 3; expect_state "$sectors" oe
  nvme zns zone-mgmt-recv "$DISK" -s 0 -l 4096 -z 0 -S 3 -p > report
  nvme zns zone-mgmt-send "$DISK" -s "$blocks" -z 1; expect_state "$sectors" "$UNWRITTEN"
  nvme zns finish-zone "$DISK" -a || fail "finish of all zones"
  nvme zns changed-zone-list "$DISK"
  # Not offered: descriptor extensions. A zone goes offline from read-only alone.
  random_bytes 64 > extension
  ! nvme zns set-zone-desc "$DISK" -s "$blocks" -d extension || fail "a descriptor extension was set"
  expect_status 0x2 nvme zns zone-mgmt-send "$DISK" -s "$blocks" -z 0x11
  expect_status 0x1bf nvme zns offline-zone "$DISK" -s "$blocks"
  reset_all
  ! blkzone report "$DISK" | grep -v '(em)' || fail "zones are left not empty"
}

# The codes of misplaced requests, sent past the block layer, which would refuse them itself.
error_codes() {
  local block blocks sectors capacity
  block=$(block_size); blocks=$(zone_blocks); sectors=$(zone_sectors "$DISK")
  capacity=$(($(zone_capacity "$DISK") / block))
  random_bytes $((2 * block)) > two
  expect_status 0x1bc nvme write "$DISK" -s 1 -c 0 -z "$block" -d two
  expect_status 0x0 nvme write "$DISK" -s 0 -c 0 -z "$block" -d two
  expect_status 0x1bc nvme write "$DISK" -s 0 -c 0 -z "$block" -d two
  # Not the start of a zone.
  expect_status 0x2 nvme zns zone-append "$DISK" -s 1 -z "$block" -d two
  nvme zns finish-zone "$DISK" -s "$blocks"
  expect_status 0x1b9 nvme write "$DISK" -s "$blocks" -c 0 -z "$block" -d two
  expect_status 0x1b9 nvme zns zone-append "$DISK" -s "$blocks" -z "$block" -d two
  expect_status 0x1bf nvme zns open-zone "$DISK" -s "$blocks"
  expect_status 0x1bf nvme zns close-zone "$DISK" -s $((2 * blocks))
  # Fill zone 0 but for its last block, then write across its end.
  dd if=/dev/zero of="$DISK" bs="$block" count=1 seek=1 oflag=direct status=none
  blkzone reset -o 0 -l "$sectors" "$DISK"
  dd if=/dev/zero of="$DISK" bs="$(((capacity - 1) * block))" count=1 oflag=direct status=none
  expect_status 0x1b8 nvme write "$DISK" -s $((capacity - 1)) -c 1 -z $((2 * block)) -d two
  expect_status 0x1b8 nvme zns zone-append "$DISK" -s 0 -z $((2 * block)) -d two
  expect_status 0x80 nvme read "$DISK" -s $(($(blockdev --getsz "$DISK") * 512 / block)) -c 0 -z "$block"
  reset_all
}

# resource_limits MAX-OPEN MAX-ACTIVE, neither of them 0.
resource_limits() {
  local blocks block zone
  block=$(block_size); blocks=$(zone_blocks)
  random_bytes "$block" > one
  for ((zone = 0; zone < $1; zone++)); do nvme zns open-zone "$DISK" -s $((zone * blocks)); done
  if [ "$1" = "$2" ]; then
    expect_status 0x1bd nvme zns open-zone "$DISK" -s $(($1 * blocks))
  else
    expect_status 0x1be nvme zns open-zone "$DISK" -s $(($1 * blocks))
  fi
  status_of nvme write "$DISK" -s $(($1 * blocks)) -c 0 -z "$block" -d one
  [[ $STATUS =~ ^0x1b[de]$ ]] || fail "status $STATUS from a write that would open one zone too many"
  reset_all
  # Implicitly opened zones give way: the limit of active zones is what stops this.
  for ((zone = 0; zone < $2; zone++)); do expect_status 0x0 nvme write "$DISK" -s $((zone * blocks)) -c 0 -z "$block" -d one; done
  expect_equal "the number of open zones" "$(blkzone report "$DISK" | grep -c '(oi)')" "$1"
  expect_equal "the number of closed zones" "$(blkzone report "$DISK" | grep -c '(cl)')" $(($2 - $1))
  expect_status 0x1bd nvme write "$DISK" -s $(($2 * blocks)) -c 0 -z "$block" -d one
  reset_all
}

# appends COUNT: that many at once into the third zone; each must be found where the disk said it went, and nowhere else.
appends() {
  local count=$1 index block zone address
  block=$(block_size); zone=$((2 * $(zone_blocks)))
  rm -rf appends; mkdir appends
  for ((index = 0; index < count; index++)); do
    random_bytes "$block" > appends/$index.data
    nvme zns zone-append "$DISK" -s "$zone" -z "$block" -d appends/$index.data > appends/$index.said 2>&1 &
  done
  wait
  for ((index = 0; index < count; index++)); do
    address=$(sed -nE 's/.*LBA *(0x)?([0-9a-f]+).*/\2/p' appends/$index.said)
    [ -n "$address" ] || fail "append $index: $(cat appends/$index.said)"
    address=$((16#$address))
    echo "$address" >> appends/addresses
    dd if="$DISK" bs="$block" skip="$address" count=1 iflag=direct status=none | cmp - appends/$index.data || fail "append $index is not at $address"
  done
  sort -n appends/addresses | cmp - <(seq "$zone" $((zone + count - 1))) || fail "the addresses have gaps: $(sort -n appends/addresses | tr '\n' ' ')"
  reset_all
}

# Jobs of fio with verification: in order, at random over open zones, and many jobs at once.
fio_verify() {
  local common=(--filename="$DISK" --direct=1 --zonemode=zbd --verify=crc32c --ioengine=libaio --group_reporting)
  local zone_bytes=$(($(zone_sectors "$DISK") * 512)) open=4 limit
  limit=$(queue_of "$DISK" max_open_zones)
  if [ "$limit" != 0 ] && [ "$limit" -lt "$open" ]; then open=$limit; fi
  quiet_fio --name=in-order --rw=write --bs=64k --iodepth=8 --size=$((4 * zone_bytes)) "${common[@]}"
  blkzone reset "$DISK"
  quiet_fio --name=at-random --rw=randwrite --bs=16k --iodepth=8 --size=$((8 * zone_bytes)) --io_size=8M --max_open_zones="$open" "${common[@]}"
  blkzone reset "$DISK"
  quiet_fio --name=jobs --rw=write --bs=4k --iodepth=4 --numjobs=2 --offset_increment=$((2 * zone_bytes)) --size=$((2 * zone_bytes)) --io_size=2M --thread "${common[@]}"
  blkzone reset "$DISK"
}
