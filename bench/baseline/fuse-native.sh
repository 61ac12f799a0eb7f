#!/bin/sh
# The baseline in JavaScript: the npm package fuse-native serving a directory through callbacks (fuse-native/serve.cjs).
#   fuse-native.sh up SOURCE MOUNT     installs it when it is not there yet and mounts SOURCE at MOUNT
#   fuse-native.sh down MOUNT
#   fuse-native.sh options             prints the options that `up` uses
# Installed once with `npm ci` (network, or npm's cache) into $XDG_CACHE_HOME/holdfast-bench (~/.cache by default); no
# install script runs: the package carries a built addon and its libfuse 2.9. It works offline from then on.
set -eu

cache=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast-bench/fuse-native
here=$(cd "$(dirname "$0")" && pwd)/fuse-native

fail() {
	echo "fuse-native.sh: $1" >&2
	exit 1
}

install() {
	cmp -s "$here/package-lock.json" "$cache/package-lock.json" && [ -e "$cache/lib/libfuse.so.2" ] && return
	command -v npm >/dev/null || fail "npm is missing"
	mkdir -p "$cache/lib"
	cp "$here/package.json" "$cache/"
	cp "$here/package-lock.json" "$cache/package-lock.json.new"
	# npm reads only this name; it counts as installed once the library's link is there.
	mv "$cache/package-lock.json.new" "$cache/package-lock.json"
	(cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2 || fail "npm ci failed"
	built=$cache/node_modules/fuse-native/prebuilds/linux-x64
	[ -e "$built/node.napi.node" ] || fail "the package has no addon for this machine"
	ln -sf "$built/libfuse.so" "$cache/lib/libfuse.so.2"
}

# Where the server's process id is kept, by mount point.
server_of() {
	mkdir -p "$cache/servers"
	echo "$cache/servers/$(echo "$1" | tr / +)"
}

case "${1-}" in
up)
	[ $# -eq 3 ] || fail "up SOURCE MOUNT"
	install
	command -v fusermount >/dev/null || fail "fusermount is missing; on Debian: apt install fuse3"
	source=$(cd "$2" && pwd)
	mount=$(cd "$3" && pwd)
	# Resolved where the package was installed.
	cp "$here/serve.cjs" "$cache/serve.cjs"
	log=$(mktemp)
	LD_LIBRARY_PATH=$cache/lib setsid node "$cache/serve.cjs" "$source" "$mount" >"$log" 2>&1 </dev/null &
	server=$!
	while ! grep -q '^ready$' "$log"; do
		kill -0 $server 2>/dev/null || fail "it ended: $(cat "$log")"
		sleep 0.05
	done
	rm "$log"
	echo $server >"$(server_of "$mount")"
	;;
down)
	[ $# -eq 2 ] || fail "down MOUNT"
	server_file=$(server_of "$(cd "$2" && pwd)")
	server=$(cat "$server_file")
	kill "$server"
	# It unmounts and ends; once dead, its program is gone, though nobody may have waited for it.
	for _ in $(seq 200); do
		readlink "/proc/$server/exe" >/dev/null || break
		sleep 0.05
	done
	! readlink "/proc/$server/exe" >/dev/null || fail "process $server does not end"
	rm "$server_file"
	;;
options)
	echo "kernel_cache,entry_timeout=86400,attr_timeout=86400,big_writes"
	;;
*)
	sed -n '2,7s/^# \{0,1\}//p' "$0"
	exit 1
	;;
esac
