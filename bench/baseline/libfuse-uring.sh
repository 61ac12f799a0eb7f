#!/bin/sh
# libfuse's passthrough_hp over FUSE's io_uring door: needs a newer libfuse than Debian has, and Linux 6.14 or newer.
#   libfuse-uring.sh build [SOURCE]       builds it outside the project; SOURCE is a folder with libfuse's source, a git
#                                         folder, or a URL that git can clone (default: $LIBFUSE_SOURCE)
#   libfuse-uring.sh up SOURCE MOUNT      mounts SOURCE at MOUNT; fails if the mount does not get the io_uring door
#   libfuse-uring.sh down MOUNT
#   libfuse-uring.sh options              prints program, version and options that `up` uses
# The programs lie in $XDG_CACHE_HOME/holdfast-bench/libfuse-uring (~/.cache by default). LIBFUSE_PROGRAM=passthrough_ll
# mounts that one instead. `up` sets fuse's module parameter enable_uring where it may (root).
set -eu

cache=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast-bench/libfuse-uring
program=${LIBFUSE_PROGRAM:-passthrough_hp}
parameter=/sys/module/fuse/parameters/enable_uring

# Attributes and names stay in the kernel for a day in both programs (passthrough_hp: by its own default).
# --nopassthrough: the kernel's passthrough mode would take every read and write past the program, and would measure the
# disk. passthrough_hp then turns the kernel's writeback cache on, and has no option against it that does not turn all
# caching off: its writes without fsync are answered by the kernel. passthrough_ll writes through, as Holdfast does.
case $program in
passthrough_hp) options="io_uring" flags="--nopassthrough --nosplice" ;;
passthrough_ll) options="io_uring,cache=always,timeout=86400" flags="" ;;
*) echo "libfuse-uring.sh: LIBFUSE_PROGRAM is passthrough_hp or passthrough_ll" >&2 && exit 1 ;;
esac

fail() {
	echo "libfuse-uring.sh: $1" >&2
	exit 1
}

build() {
	given=${1:-${LIBFUSE_SOURCE:-}}
	[ -n "$given" ] || fail "where is libfuse's source? libfuse-uring.sh build SOURCE, or LIBFUSE_SOURCE=…"
	for tool in meson ninja cc c++ pkg-config git; do
		command -v $tool >/dev/null || fail "$tool is missing; on Debian: apt install meson ninja-build g++ pkg-config git"
	done
	pkg-config --exists liburing || fail "liburing is missing; on Debian: apt install liburing-dev"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	mkdir "$work/source"
	if [ -e "$given/meson.build" ]; then
		cp -R "$given/." "$work/source"
		version=unknown
	else
		if [ -d "$given" ]; then git_folder=$given; else
			git clone -q --bare "$given" "$work/git" || fail "cannot clone $given"
			git_folder=$work/git
		fi
		git --git-dir="$git_folder" archive HEAD | tar -x -C "$work/source"
		version=$(git --git-dir="$git_folder" rev-parse --short=12 HEAD)
	fi
	meson setup "$work/build" "$work/source" --buildtype=release -Ddefault_library=static -Dexamples=true \
		-Dtests=false -Dutils=false -Duseroot=false >"$work/log" || { cat "$work/log" >&2 && fail "meson failed"; }
	grep -q 'io_uring support *: *True' "$work/log" || fail "this libfuse is built without io_uring"
	ninja -C "$work/build" example/passthrough_hp example/passthrough_ll >"$work/log" ||
		{ cat "$work/log" >&2 && fail "ninja failed"; }
	mkdir -p "$cache"
	cp "$work/build/example/passthrough_hp" "$work/build/example/passthrough_ll" "$cache/"
	base=$(sed -n "s/^ *version: '\(.*\)',/\1/p" "$work/source/meson.build" | head -n 1)
	echo "$base, commit $version" >"$cache/version"
}

# Only libfuse's own threads tell that a mount has the door: one for each queue.
rings() {
	grep -qs '^fuse-ring-' "/proc/$1/task/"*/comm
}

up() {
	[ -x "$cache/$program" ] || build ""
	[ -e $parameter ] || fail "this kernel has no FUSE over io_uring (6.14 or newer is wanted)"
	[ "$(cat $parameter)" = Y ] || echo Y 2>/dev/null >$parameter ||
		fail "FUSE over io_uring is off; as root: echo Y > $parameter"
	source=$(cd "$1" && pwd)
	mount=$(cd "$2" && pwd)
	log=$cache/$program.log
	# shellcheck disable=SC2086  # flags are several words
	if [ "$program" = passthrough_hp ]; then
		setsid "$cache/$program" --foreground -o $options $flags "$source" "$mount" >"$log" 2>&1 </dev/null &
	else
		setsid "$cache/$program" -f -o "source=$source,$options" "$mount" >"$log" 2>&1 </dev/null &
	fi
	server=$!
	until grep -q " $(echo "$mount" | sed 's/ /\\\\040/g') " /proc/self/mountinfo; do
		kill -0 $server 2>/dev/null || fail "it ended: $(cat "$log")"
		sleep 0.05
	done
	ls "$mount" >/dev/null
	if ! rings "$server"; then
		fusermount3 -u "$mount"
		fail "the mount got no ring: $(cat "$log")"
	fi
}

case "${1-}" in
build)
	build "${2-}"
	;;
up)
	[ $# -eq 3 ] || fail "up SOURCE MOUNT"
	up "$2" "$3"
	;;
down)
	[ $# -eq 2 ] || fail "down MOUNT"
	fusermount3 -u "$2"
	;;
options)
	echo "$program of libfuse $(cat "$cache/version"): -o $options $flags"
	;;
*)
	sed -n '2,10s/^# \{0,1\}//p' "$0"
	exit 1
	;;
esac
