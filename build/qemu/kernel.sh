#!/usr/bin/env bash
# Prints where the kernel is that Debian ships in a package, and fetches it before if it is not in the cache yet. apt checks the
# signatures, in folders of its own. The modules of virtual disks lie beside it, in modules-ARCH-SUITE.
#
#   build/qemu/kernel.sh DEBIAN_ARCH METAPACKAGE
#
# Needs apt. Kernels are kept in $CACHE.
set -euo pipefail
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/perigee/qemu}
SUITE=${SUITE:-bookworm}
arch=$1 meta=$2 file=$CACHE/vmlinuz-$1-$SUITE modules=$CACHE/modules-$1-$SUITE
if [ ! -s "$file" ] || [ ! -d "$modules" ]; then
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	mkdir -p "$CACHE" "$dir"/{lists/partial,archives/partial,debs}
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $SUITE main" >"$dir/sources.list"
	: >"$dir/status"
	apt=(-o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" -o "Dir::State::lists=$dir/lists" -o "Dir::State::status=$dir/status"
		-o "Dir::Cache=$dir" -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=- -o Acquire::Languages=none
		-o APT::Sandbox::User=root -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
	apt-get "${apt[@]}" -qq update >&2
	pkg=$(apt-cache "${apt[@]}" depends "$meta" | awk '$1 == "Depends:" { sub(/:.*/, "", $2); print $2; exit }')
	(cd "$dir/debs" && apt-get "${apt[@]}" -qq download "$pkg:$arch" >&2)
	dpkg-deb --fsys-tarfile "$dir"/debs/*.deb | tar -xO --wildcards './boot/vmlinuz-*' >"$file.part.$$"
	mkdir "$dir/modules"
	dpkg-deb --fsys-tarfile "$dir"/debs/*.deb | tar -x --wildcards -C "$dir/modules" --transform 's|.*/||' './lib/modules/*/virtio*.ko'
	mkdir -p "$modules"
	find "$dir/modules" -name '*.ko' -exec mv -t "$modules" {} +
	mv "$file.part.$$" "$file"
fi
echo "$file"
