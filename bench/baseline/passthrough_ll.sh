#!/bin/sh
# The baseline that any machine can build: libfuse's own passthrough_ll, from the examples of Debian's libfuse3-dev.
#   passthrough_ll.sh up SOURCE MOUNT     builds it when it is not there yet and mounts SOURCE at MOUNT
#   passthrough_ll.sh down MOUNT
#   passthrough_ll.sh options             prints the options that `up` uses
# Nothing is copied into the project: the program lies in $XDG_CACHE_HOME/holdfast-bench (~/.cache by default).
set -eu

# The best it can do for one user of the directory: attributes, names and pages stay in the kernel. It writes through
# (no writeback cache), as Holdfast does.
options=cache=always,timeout=86400

cache=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast-bench
examples=${LIBFUSE_EXAMPLES:-/usr/share/doc/libfuse3-dev/examples}

fail() {
	echo "passthrough_ll.sh: $1" >&2
	exit 1
}

build() {
	[ -x "$cache/passthrough_ll" ] && return
	for program in cc pkg-config fusermount3; do
		command -v $program >/dev/null || fail "$program is missing; on Debian: apt install gcc pkg-config fuse3"
	done
	pkg-config --exists fuse3 || fail "libfuse 3 is missing; on Debian: apt install libfuse3-dev"
	mkdir -p "$cache"
	for file in passthrough_ll.c passthrough_helpers.h; do
		if [ -e "$examples/$file" ]; then
			cp "$examples/$file" "$cache/$file"
		elif [ -e "$examples/$file.gz" ]; then
			gzip -dc "$examples/$file.gz" >"$cache/$file"
		else
			fail "$examples/$file is missing; set LIBFUSE_EXAMPLES to the folder of libfuse's examples"
		fi
	done
	# shellcheck disable=SC2046  # pkg-config prints several words
	cc -O2 -w -o "$cache/passthrough_ll.new" "$cache/passthrough_ll.c" $(pkg-config --cflags --libs fuse3)
	mv "$cache/passthrough_ll.new" "$cache/passthrough_ll"
}

case "${1-}" in
up)
	[ $# -eq 3 ] || fail "up SOURCE MOUNT"
	build
	source=$(cd "$2" && pwd)
	"$cache/passthrough_ll" -o "source=$source,$options" "$3"
	;;
down)
	[ $# -eq 2 ] || fail "down MOUNT"
	fusermount3 -u "$2"
	;;
options)
	echo "$options"
	;;
*)
	sed -n '2,6s/^# \{0,1\}//p' "$0"
	exit 1
	;;
esac
