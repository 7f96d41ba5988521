#!/bin/sh
# SPDX-License-Identifier: MIT
# Empty the nodes of a job that Slurm drains: see usage below.
set -u

usage() {
	cat <<Y
usage: msrank-drain [--job JOB] [--every S] [--once]
In a Slurm allocation: when one of its nodes is being drained (scontrol update nodename=N state=drain), the ranks there
move to the allocation's other nodes and the node leaves the job. Goes on until the job ends.
  --job JOB  need not be named when you have just one
  --every S  ask Slurm every S seconds (default 30)
  --once     ask once
Exit 0: the job has ended. 1: with --once, if there is no such job or a rank could not move. 2: wrong usage.
Y
}

job= every=30 once= seen= told=
while [ $# -gt 0 ]; do
	case $1 in
	--job | --every) [ $# -gt 1 ] || { echo "msrank-drain: $1 needs a value" >&2 && exit 2; } ;;
	esac
	case $1 in
	--job) job=$2 && shift ;;
	--every) every=${2%s} && shift ;;
	--once) once=yes ;;
	--help) usage && exit 0 ;;
	*) usage >&2 && exit 2 ;;
	esac
	shift
done
case $every in '' | *[!0-9]* | 0*) usage >&2 && exit 2 ;; esac
[ -n "${SLURM_JOB_NODELIST-}" ] || { echo "msrank-drain: this is no Slurm allocation" >&2 && exit 2; }
PATH=$(dirname "$(readlink -f "$0")"):$PATH

# Nodes of the allocation that Slurm wants empty, or is about to take away, with commas between; the state has marks behind it.
leaving() {
	sinfo --noheader --Node --format '%N %T' --nodes "$SLURM_JOB_NODELIST" | sort -u |
		while read -r node state; do
			case $state in drain* | fail*) printf '%s,' "$node" ;; esac
		done
}

# Not again what the user has read: a rank may be busy for long with what keeps it from moving.
tell() {
	case $told in *"|$1|"*) return ;; esac
	told="$told|$1|"
	echo "$1" >&2
}

# Of nodes with commas between, those that are hosts of the job: one that drains may never have been, or has left.
hosts_among() {
	msrank-ps ${job:+"$job"} 2>/dev/null | sed '1,/^HOST /d' | while read -r host rest; do
		case ,$1, in *,"$host",*) printf '%s,' "$host" ;; esac
	done
}

# All ranks off a node, none of them to another one that drains; then the node leaves the job.
empty() {
	said=$(msrank-move ${job:+--job "$job"} --evacuate "$1" --drop "$1" --avoid "$(hosts_among "$2")" 2>&1)
	status=$?
	case $said in
	*"is not one of the job's hosts"*) return 0 ;;
	'') [ $status = 0 ] && tell "msrank-drain: node $1 has left the job" ;;
	*) tell "$said" ;;
	esac
	return $status
}

round() {
	nodes=$(leaving) failed=0
	for node in $(echo "$nodes" | tr , ' '); do
		empty "$node" "${nodes%,}" || failed=1
	done
	return $failed
}

while :; do
	if msrank-ps ${job:+"$job"} >/dev/null 2>&1; then
		seen=yes
		round
		status=$?
		[ -z "$once" ] || exit $status
		sleep "$every"
	elif [ -n "$once" ]; then
		msrank-ps ${job:+"$job"} >/dev/null
		exit 1
	elif [ -n "$seen" ]; then
		exit 0
	else
		sleep 1 # mpiexec is starting it, or will
	fi
done
