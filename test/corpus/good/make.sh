#!/bin/bash
# Makes the good images of this folder with the stock tools (qemu-img and qemu-io 7.2), packed, and `index.tsv`: for each disk its
# format, how it is opened, its size and the SHA-256 of its whole contents as the stock tool reads them.
# Keys of encrypted images are random, so a new run gives other bytes there. Usage: bash test/corpus/good/make.sh
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
rm -f "$here"/*.gz "$here/index.tsv"

PASSPHRASE=correct-horse
SECRET=(--object "secret,id=sec0,data=$PASSPHRASE")

# Writes patterns here and there; arguments: how qemu-io opens the disk.
fill() {
  qemu-io "$@" -c 'write -P 17 0 4k' -c 'write -P 34 70k 9k' -c 'write -P 51 200k 64k' -c 'write -z 210k 4k' -c 'write -P 68 511k 1k' > /dev/null
}

# record NAME FORMAT FEATURE [FILE ...]: packs the files (the first is the image), and notes what the disk holds.
record() {
  local name=$1 format=$2 feature=$3 passphrase=- sum size
  shift 3
  local image=$1
  case $feature in
    luks | aes) passphrase=$PASSPHRASE
      qemu-img convert "${SECRET[@]}" --image-opts "driver=qcow2,file.filename=$image,encrypt.key-secret=sec0" -O raw raw ;;
    *) qemu-img convert -f "$format" -O raw "$image" raw ;;
  esac
  sum=$(sha256sum < raw | cut -d' ' -f1)
  size=$(stat -c %s raw)
  for file in "$@"; do gzip -9n < "$file" > "$here/$file.gz"; done
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$format" "$feature" "$passphrase" "$size" "$sum" "$*" >> "$here/index.tsv"
}

create() { qemu-img create -q "$@"; }

create -f qcow2 -o cluster_size=4k plain.qcow2 512k && fill -f qcow2 plain.qcow2 && record plain qcow2 plain plain.qcow2
create -f qcow2 -o compat=0.10 version-2.qcow2 512k && fill -f qcow2 version-2.qcow2 && record version-2 qcow2 plain version-2.qcow2

create -f raw base.raw 512k && fill -f raw base.raw
create -f qcow2 -b base.raw -F raw middle.qcow2 && qemu-io -f qcow2 -c 'write -P 85 100k 10k' middle.qcow2 > /dev/null
create -f qcow2 -o cluster_size=4k -b middle.qcow2 -F qcow2 overlay.qcow2 && qemu-io -f qcow2 -c 'write -P 102 0 1k' overlay.qcow2 > /dev/null
record backing-chain qcow2 backing overlay.qcow2 middle.qcow2 base.raw
create -f qcow2 -b 'json:{"driver":"qcow2","file":{"driver":"file","filename":"middle.qcow2"}}' -F qcow2 json-overlay.qcow2
record backing-json qcow2 backing json-overlay.qcow2 middle.qcow2 base.raw

create -f qcow2 -o data_file=outside.raw data-file.qcow2 512k && fill -f qcow2 data-file.qcow2 && record data-file qcow2 data-file data-file.qcow2 outside.raw
create -f qcow2 -o data_file=outside-raw.raw,data_file_raw=on data-file-raw.qcow2 512k && fill -f qcow2 data-file-raw.qcow2
record data-file-raw qcow2 data-file data-file-raw.qcow2 outside-raw.raw

for type in zlib zstd; do
  create -f raw source.raw 512k && fill -f raw source.raw
  qemu-img convert -c -O qcow2 -o compression_type=$type,cluster_size=4k source.raw compressed-$type.qcow2
  record compressed-$type qcow2 compression compressed-$type.qcow2
done

create -f qcow2 -o extended_l2=on,cluster_size=16k extended-l2.qcow2 512k && fill -f qcow2 extended-l2.qcow2
qemu-io -f qcow2 -c 'discard 200k 2k' -c 'write -z 202k 1k' extended-l2.qcow2 > /dev/null
record extended-l2 qcow2 extended-l2 extended-l2.qcow2

create -f qcow2 -o cluster_size=4k snapshots.qcow2 512k && fill -f qcow2 snapshots.qcow2 && qemu-img snapshot -c first snapshots.qcow2
qemu-io -f qcow2 -c 'write -P 119 0 20k' snapshots.qcow2 > /dev/null && qemu-img snapshot -c second snapshots.qcow2
qemu-io -f qcow2 -c 'write -P 136 8k 20k' snapshots.qcow2 > /dev/null && record snapshots qcow2 snapshots snapshots.qcow2

create -f qcow2 -o cluster_size=4k bitmaps.qcow2 512k && qemu-img bitmap --add -g 512 bitmaps.qcow2 fine && qemu-img bitmap --add -g 64k bitmaps.qcow2 coarse
fill -f qcow2 bitmaps.qcow2 && qemu-img bitmap --add --disable bitmaps.qcow2 still && qemu-img bitmap --merge fine bitmaps.qcow2 still
record bitmaps qcow2 bitmaps bitmaps.qcow2

encrypted() { qemu-io "${SECRET[@]}" --image-opts "driver=qcow2,file.filename=$1,encrypt.key-secret=sec0" -c 'write -P 17 0 4k' -c 'write -P 34 70k 9k' > /dev/null; }
# zcow makes these two: the stock tool takes a million iterations at least for each key, and makes no images with the old encryption.
zcow() { node "$here/../../../dist/cli/zcow.js" "$@"; }
zcow create -q "${SECRET[@]}" -f qcow2 -o encrypt.format=luks,encrypt.key-secret=sec0,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.iter-time=1,cluster_size=4k luks.qcow2 512k
encrypted luks.qcow2 && record luks qcow2 luks luks.qcow2
zcow create -q "${SECRET[@]}" -f qcow2 -o encrypt.format=aes,encrypt.key-secret=sec0,cluster_size=4k aes.qcow2 512k
encrypted aes.qcow2 && record aes qcow2 aes aes.qcow2

create -f vmdk sparse.vmdk 1M && fill -f vmdk sparse.vmdk && record vmdk-sparse vmdk vmdk sparse.vmdk
create -f vmdk -o zeroed_grain=on zero-grains.vmdk 1M && fill -f vmdk zero-grains.vmdk && record vmdk-zero-grains vmdk vmdk zero-grains.vmdk
create -f raw source.raw 1M && fill -f raw source.raw && qemu-img convert -O vmdk -o subformat=streamOptimized source.raw stream.vmdk
record vmdk-stream vmdk vmdk stream.vmdk
create -f vmdk -o subformat=monolithicFlat flat.vmdk 512k && fill -f vmdk flat.vmdk && record vmdk-flat vmdk vmdk flat.vmdk flat-flat.vmdk
create -f vmdk -o subformat=twoGbMaxExtentSparse split.vmdk 1M && fill -f vmdk split.vmdk && record vmdk-split vmdk vmdk split.vmdk split-s001.vmdk

create -f vhdx -o block_size=1M dynamic.vhdx 3M && fill -f vhdx dynamic.vhdx && record vhdx-dynamic vhdx vhdx dynamic.vhdx
create -f vhdx -o subformat=fixed,block_size=1M fixed.vhdx 2M && fill -f vhdx fixed.vhdx && record vhdx-fixed vhdx vhdx fixed.vhdx
create -f vpc -o force_size=on dynamic.vhd 3M && fill -f vpc dynamic.vhd && record vpc-dynamic vpc vpc dynamic.vhd
create -f vpc -o subformat=fixed,force_size=on fixed.vhd 1M && fill -f vpc fixed.vhd && record vpc-fixed vpc vpc fixed.vhd
create -f vdi dynamic.vdi 3M && fill -f vdi dynamic.vdi && record vdi-dynamic vdi vdi dynamic.vdi
create -f vdi -o static=on static.vdi 2M && fill -f vdi static.vdi && record vdi-static vdi vdi static.vdi
