#!/usr/bin/env bash
# Builds a Linux guest (kernel and initramfs) from Debian packages: build.sh FOLDER SUITE
#
# Packages come through apt from the machine's own Debian mirror, with an apt state of our own inside FOLDER: nothing of
# the machine is changed, root is not needed, and no maintainer script runs. FOLDER gets vmlinuz, initramfs.img,
# kernel-release and packages.txt. A second build of the same folder downloads only what is new.
#
# Needs: apt, dpkg-deb, readelf (binutils), cpio, kmod, xz, zstd.
set -euo pipefail

kit=$(cd "$(dirname "$0")" && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
suite=$2

work=$folder/work
packages=$work/packages
root=$work/root
rm -rf "$work"
mkdir -p "$packages" "$root"
trap 'rm -rf "$work"' EXIT

note() { printf '[guest %s] %s\n' "$suite" "$*"; }
fail() { note "$*" >&2; exit 1; }

# Debian leaves the folder of depmod out of the path of ordinary users.
PATH=$PATH:/usr/sbin:/sbin
for tool in apt-get dpkg-deb readelf cpio depmod xz zstd; do
  command -v "$tool" >/dev/null || fail "$tool is missing: install apt, binutils, cpio, kmod, xz-utils and zstd"
done

# --- packages -------------------------------------------------------------------------------------------------------

# The mirror of the first apt source whose address ends in "/debian".
machine_mirror() {
  cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null |
    sed -nE 's/^URIs: *//p; s/^deb +(\[[^]]*\] +)?([^ ]+).*/\2/p' | grep -m1 -E '/debian/?$' || true
}

prepare_apt() {
  local mirror=${ZCOW_GUEST_MIRROR:-$(machine_mirror)} apt=$folder/apt
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -n "$mirror" ] || fail "no Debian mirror among the machine's apt sources; set ZCOW_GUEST_MIRROR"
  mkdir -p "$apt"/etc/{apt.conf.d,preferences.d,sources.list.d} "$apt"/{lists,archives}/partial
  : > "$apt/status"
  # Sources always from sid: mirrors do not keep the sources of every suite, and fio's newest test script is the best.
  printf '%s [signed-by=%s] %s %s main\n' deb "$keys" "$mirror" "$suite" deb-src "$keys" "$mirror" sid \
    > "$apt/etc/sources.list"
  cat > "$apt/apt.conf" <<CONF
Dir::Etc "$apt/etc";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Get::Install-Automatic-Remove "false";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
APT::Keep-Downloaded-Packages "true";
Debug::NoLocking "true";
CONF
  export APT_CONFIG=$apt/apt.conf
  apt-get -qq update
}

known_package() { apt-cache show "$1" >/dev/null 2>&1; }

# linux-image-amd64 names the current kernel; newer suites split that one into further packages of the same version.
kernel_packages() {
  local image release candidate
  image=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
  release=${image#linux-image-}
  for candidate in "$image" "linux-binary-$release" "linux-modules-$release" "linux-base-$release"; do
    if known_package "$candidate"; then echo "$candidate"; fi
  done
}

userland_packages() {
  local name
  grep -vE '^(#|$)' "$kit/packages.txt" | while read -r name; do
    if known_package "$name"; then echo "$name"; else note "$suite has no package $name" >&2; fi
  done
}

# File names of the packages to unpack: what apt would fetch into an empty folder. The real one may hold older versions too.
wanted_archives() {
  mkdir -p "$work/empty/partial"
  apt-get -qq -y -o Dir::Cache::archives="$work/empty" --print-uris install "$@" | awk '{ print $2 }'
}

unpack_packages() {
  local archive kernel names
  mapfile -t names < <(userland_packages)
  apt-get -qq -y --download-only install "${names[@]}" >/dev/null
  # The kernel is not "installed": that would bring an initramfs generator and its dependencies along.
  mapfile -t kernel < <(kernel_packages)
  (cd "$work" && apt-get -qq download "${kernel[@]}")
  : > "$folder/packages.txt"
  for archive in $(wanted_archives "${names[@]}" | sed "s|^|$folder/apt/archives/|") "$work"/*.deb; do
    dpkg-deb -x "$archive" "$packages"
    basename "$archive" .deb >> "$folder/packages.txt"
  done
}

# --- files of the guest ----------------------------------------------------------------------------------------------

declare -A copied_library=()

find_library() {
  local place
  for place in usr/lib/x86_64-linux-gnu lib/x86_64-linux-gnu usr/lib64 lib64 usr/lib/x86_64-linux-gnu/ceph; do
    if [ -e "$packages/$place/$1" ]; then echo "$packages/$place/$1"; return; fi
  done
  fail "no package holds the library $1"
}

# Copies the shared objects that an ELF file names, and theirs. Reads the files only: nothing foreign is run.
copy_libraries_of() {
  local name path
  for name in $(readelf -d "$1" 2>/dev/null | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p'); do
    [ -z "${copied_library[$name]:-}" ] || continue
    copied_library[$name]=1
    path=$(find_library "$name")
    cp -L "$path" "$root/usr/lib/x86_64-linux-gnu/$name"
    copy_libraries_of "$path"
  done
}

copy_program() {
  local place
  for place in usr/bin bin usr/sbin sbin; do
    [ -e "$packages/$place/$1" ] || continue
    cp -L "$packages/$place/$1" "$root/usr/bin/$1"
    copy_libraries_of "$packages/$place/$1"
    return
  done
  note "no package of $suite holds the program $1"
}

copy_programs() {
  local name engine applet
  mkdir -p "$root"/{usr/bin,usr/lib/x86_64-linux-gnu/fio,usr/lib64,proc,sys,dev,tmp,run,mnt,etc/nvme,root,job}
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
  ln -s bin "$root/usr/sbin"
  cp -L "$(find_library ld-linux-x86-64.so.2)" "$root/usr/lib64/"
  grep -vE '^(#|$)' "$kit/programs.txt" | tr ' ' '\n' > "$work/programs"
  while read -r name; do copy_program "$name"; done < "$work/programs"
  for name in modprobe insmod lsmod depmod rmmod modinfo; do ln -s kmod "$root/usr/bin/$name"; done
  ln -s gawk "$root/usr/bin/awk"
  ln -s bash "$root/usr/bin/sh"
  for engine in "$packages"/usr/lib/x86_64-linux-gnu/fio/*{libaio,io_uring,libzbd}.so; do
    [ -e "$engine" ] || continue
    cp "$engine" "$root/usr/lib/x86_64-linux-gnu/fio/"
    copy_libraries_of "$engine"
  done
  # busybox is static and of this machine's architecture: it can tell its own applets.
  for applet in $("$root/usr/bin/busybox" --list); do
    [ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
  done
}

# fio's own test of zoned devices is in its source package only.
copy_fio_tests() {
  (cd "$work" && apt-get -qq source --download-only --tar-only fio >/dev/null)
  tar -xf "$work"/fio_*.orig.tar.* -C "$work" --wildcards '*/t/zbd*'
  mkdir -p "$root/fio/t"
  cp -a "$work"/*/t/zbd "$root/fio/t/"
  ln -s ../usr/bin/fio "$root/fio/fio"
}

copy_modules() {
  local source release tree=$work/modules name path
  source=$(dirname "$(find "$packages" -name modules.order | head -n 1)")
  release=$(basename "$source")
  mkdir -p "$tree/lib/modules" "$root/usr/lib/modules/$release"
  mv "$source" "$tree/lib/modules/"
  depmod -b "$tree" "$release"
  for name in $(grep -vE '^(#|$)' "$kit/modules.txt"); do
    modprobe -d "$tree" -S "$release" --show-depends "$name" 2>/dev/null | awk '$1 == "insmod" { print $2 }' || true
  done | sort -u > "$work/modules.list"
  while read -r path; do
    path=${path#"$tree/lib/modules/$release/"}
    mkdir -p "$root/usr/lib/modules/$release/$(dirname "$path")"
    cp "$tree/lib/modules/$release/$path" "$root/usr/lib/modules/$release/$path"
  done < "$work/modules.list"
  # The initramfs is compressed as a whole; the guest need not unpack each module a second time.
  find "$root/usr/lib/modules" -name '*.ko.xz' -exec xz -d {} +
  find "$root/usr/lib/modules" -name '*.ko.zst' -exec zstd -q -d --rm {} +
  cp "$tree/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} "$root/usr/lib/modules/$release/"
  depmod -b "$root" "$release"
  modprobe -d "$root" -S "$release" -n nvme-tcp || fail "the kernel $release has no nvme-tcp"
  echo "$release" > "$folder/kernel-release"
}

copy_own_files() {
  local id=5f2c6ad4-6f2e-4b52-9a3e-6d1f0a9d7c01
  install -m 755 "$kit/init.sh" "$root/init"
  install -m 755 "$kit/agent.sh" "$root/usr/bin/guest-agent"
  echo 'root:x:0:0:root:/root:/bin/bash' > "$root/etc/passwd"
  echo 'root:x:0:' > "$root/etc/group"
  echo '127.0.0.1 localhost' > "$root/etc/hosts"
  ln -s /proc/mounts "$root/etc/mtab"
  echo "nqn.2014-08.org.nvmexpress:uuid:$id" > "$root/etc/nvme/hostnqn"
  echo "$id" > "$root/etc/nvme/hostid"
}

prepare_apt
unpack_packages
note "$(wc -l < "$folder/packages.txt") packages unpacked"
copy_programs
copy_fio_tests
copy_modules
copy_own_files
# Older kernel packages hold it in /boot, newer ones among the modules.
cp "$(find "$packages" "$work/modules" -name 'vmlinuz*' -type f | head -n 1)" "$folder/vmlinuz"
(cd "$root" && find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc -R 0:0 --quiet) | zstd -q -T0 -9 -f -o "$folder/initramfs.img"
note "Linux $(cat "$folder/kernel-release"): initramfs of $(du -h "$folder/initramfs.img" | cut -f1)"
