# SPDX-License-Identifier: MIT
# bash completion of msock's commands: options, and the jobs, ranks and hosts that there are.

_msock_jobs() {
	local base=${MSOCK_RUNDIR:-${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}}/msock-$(id -u) socket
	for socket in "$base"/*/coord.sock; do
		[ -S "$socket" ] && basename "$(dirname "$socket")"
	done
}

# The values of a key in what msrank-ps says of the job.
_msock_values() {
	msrank-ps ${_msock_job:+"$_msock_job"} --json 2>/dev/null | grep -o "\"$1\":\"[^\"]*\"" | cut -d '"' -f 4 | sort -u
}

# What its usage names.
_msock_options() {
	{ "$1" --help || "$1"; } 2>&1 </dev/null | grep -o -e '--[a-z][a-z-]*' | sort -u
}

_msock() {
	local command=${COMP_WORDS[0]##*/} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} i plain=0
	local _msock_job=
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--job) _msock_job=${COMP_WORDS[++i]} ;;
		--via | --timeout | --evacuate | --drop | --avoid | --host | --policy | --every | --moves | --watch | --limit | --max-freeze | --compress | --output) i=$((i + 1)) ;;
		-*) ;;
		*) plain=$((plain + 1)) ;;
		esac
	done
	case $before in
	--job)
		COMPREPLY=($(compgen -W "$(_msock_jobs)" -- "$word"))
		return
		;;
	--evacuate | --drop | --avoid)
		COMPREPLY=($(compgen -W "$(_msock_values host)" -- "$word"))
		return
		;;
	--via)
		COMPREPLY=($(compgen -W "auto drain mirror" -- "$word"))
		return
		;;
	--policy)
		COMPREPLY=($(compgen -W "greedy refine comm" -- "$word"))
		return
		;;
	--compress)
		COMPREPLY=($(compgen -W "auto never always" -- "$word"))
		return
		;;
	--output)
		COMPREPLY=($(compgen -f -- "$word"))
		return
		;;
	--timeout | --every | --moves | --watch | --limit | --max-freeze) return ;;
	--host)
		COMPREPLY=($(compgen -A hostname -- "$word"))
		return
		;;
	esac
	if [[ $word == -* ]]; then
		COMPREPLY=($(compgen -W "$(_msock_options "${COMP_WORDS[0]}")" -- "$word"))
	elif [ "$command" = msrank-move ]; then
		case $plain in
		0) COMPREPLY=($(compgen -W "$(_msock_values member)" -- "$word")) ;;
		1) COMPREPLY=($(compgen -W "$(_msock_values host)" -- "$word")) ;;
		esac
	elif [ "$command" = msrun ]; then
		[ "$plain" = 0 ] && COMPREPLY=($(compgen -A command -- "$word")) || COMPREPLY=($(compgen -f -- "$word"))
	elif [ "$plain" = 0 ]; then
		COMPREPLY=($(compgen -W "$(_msock_jobs)" -- "$word"))
	fi
}

complete -F _msock msrank-balance msrank-drain msrank-move msrank-ps msrank-top
complete -o filenames -F _msock msrank-trace
complete -o filenames -F _msock msrun
