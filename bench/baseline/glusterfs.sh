#!/bin/sh
# GlusterFS, replica 2, on this machine alone: two bricks on the disk below BRICKS, a glusterd of its own, one mount.
#   glusterfs.sh up BRICKS MOUNT       as root; needs glusterfs-server and glusterfs-client (on Debian: apt install)
#   glusterfs.sh down BRICKS MOUNT     unmounts, deletes the volume, ends the glusterd that `up` started
#   glusterfs.sh options               prints version and options that `up` uses
# Its configuration, state and bricks lie below BRICKS, logs also in gluster's own folder; it listens on the loopback address only. A glusterd
# that already runs here is left alone, and `up` fails then.
set -eu

options="replica 2, every volume option at its default"
volume=holdfast-bench
# Loopback, but not the address that gluster refuses for bricks.
address=127.0.0.2

fail() {
	echo "glusterfs.sh: $1" >&2
	exit 1
}

gl() {
	gluster --mode=script --glusterd-sock="$bricks/glusterd.socket" "$@" >>"$bricks/cli.log" 2>&1
}

configure() {
	cat >"$bricks/glusterd.vol" <<END
volume management
    type mgmt/glusterd
    option working-directory $bricks/state
    option run-directory $bricks/run
    option transport-type socket
    option transport.socket.bind-address $address
    option transport.address-family inet
    option glusterd-sockfile $bricks/glusterd.socket
    option base-port 49200
end-volume
END
}

up() {
	[ "$(id -u)" -eq 0 ] || fail "needs root"
	for program in glusterd gluster mount.glusterfs; do
		command -v $program >/dev/null || fail "$program is missing; on Debian: apt install glusterfs-server glusterfs-client"
	done
	! pgrep -x -r R,S,D glusterd >/dev/null || fail "a glusterd already runs here"
	mkdir -p "$1"
	bricks=$(cd "$1" && pwd)
	mkdir -p "$bricks/state" "$bricks/run" "$bricks/a" "$bricks/b"
	configure
	glusterd --volfile="$bricks/glusterd.vol" --log-file="$bricks/glusterd.log" --pid-file="$bricks/glusterd.pid"
	wait_for "glusterd answers" gl volume info
	gl volume create $volume replica 2 "$address:$bricks/a" "$address:$bricks/b" force || fail "$(tail -n 3 "$bricks/cli.log")"
	gl volume start $volume || fail "$(tail -n 3 "$bricks/cli.log")"
	mount -t glusterfs -o "log-file=$bricks/mount.log" "$address:/$volume" "$2" || fail "$(tail -n 3 "$bricks/mount.log")"
}

down() {
	bricks=$(cd "$1" && pwd)
	umount "$2" || umount -l "$2" || true
	gl volume stop $volume force || true
	gl volume delete $volume || true
	kill "$(cat "$bricks/glusterd.pid")"
}

# Until the command succeeds; a minute at most.
wait_for() {
	words=$1
	shift
	for _ in $(seq 600); do
		if "$@"; then return 0; fi
		sleep 0.1
	done
	fail "not within a minute: $words"
}

case "${1-}" in
up)
	[ $# -eq 3 ] || fail "up BRICKS MOUNT"
	up "$2" "$3"
	;;
down)
	[ $# -eq 3 ] || fail "down BRICKS MOUNT"
	down "$2" "$3"
	;;
options)
	echo "$(glusterd --version | head -n 1): $options"
	;;
*)
	sed -n '2,7s/^# \{0,1\}//p' "$0"
	exit 1
	;;
esac
