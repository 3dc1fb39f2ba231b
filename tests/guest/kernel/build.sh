#!/bin/sh
# Builds a kernel for the parts of vfio that Debian's kernels lack: iommufd with its character devices, and no IOMMU at all.
#
#   tests/guest/kernel/build.sh SOURCE FOLDER
#   CRYPTONIC_GUEST_KERNEL=FOLDER/arch/x86/boot/bzImage cargo test --test guest
#
# SOURCE is an unpacked Linux, 6.6 or later (package linux-source); FOLDER takes what is built, 300 MB. It needs gcc, make,
# flex, bison, bc and libelf-dev.
set -eu
if [ $# != 2 ]; then
    echo "usage: $0 SOURCE FOLDER" >&2
    exit 2
fi
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$2"
folder=$(CDPATH= cd -- "$2" && pwd)
cd "$1"
make -s O="$folder" tinyconfig
scripts/kconfig/merge_config.sh -m -O "$folder" "$folder/.config" "$here/fragment.config" > "$folder/merged"
make -s O="$folder" olddefconfig
while read -r line; do
    case $line in
    *=y) grep -qx "$line" "$folder/.config" || { echo "this Linux has no $line" >&2; exit 1; } ;;
    esac
done < "$here/fragment.config"
make -s O="$folder" -j"$(nproc)" bzImage
echo "$folder/arch/x86/boot/bzImage"
