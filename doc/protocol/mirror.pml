/*
 * mirror.pml - the link between a mirror and its member: ATTACH, offsets,
 * HALFCLOSE and RELEASE while links break and the member moves on.
 *
 * The mirror holds one leg with N bytes and the peer's end of stream in it; the
 * member wants them in order, once, then the leg released and the mirror
 * gone.  A link is two queues, one each way.  It breaks at any time (CUTS): what
 * is in it is lost.  The member may move on (MOVES): its former place's link is
 * dead, but the mirror sees that end only after it has handled what lies in it,
 * or never.  The stream may be over (the peer has closed) before the member has
 * attached: then the leg is released without having been asked for.
 *
 *   BUG_NOKEEP   the mirror drops what it has sent, without waiting for MIRROR_ACK
 *   BUG_NOSKIP   it sends from what it sent last, whatever ATTACH asks for
 *   BUG_OLDLINK  a link of an older m may take the place of a newer one
 *   BUG_ONERELEASE  RELEASE and HALFCLOSE are said once, when they are due, and not again after ATTACHED
 *   BUG_LEAVES   the member forgets a mirror whose link breaks when no leg is left (addition 9 off)
 */
#ifndef N
#define N 2
#endif
#ifndef CUTS
#define CUTS 2
#endif
#ifndef MOVES
#define MOVES 1
#endif
#define LINKS (CUTS+MOVES+1)
#define END 99

mtype = { ATTACH, ATTACHED, BYTE, MEND, MACK, HALF, RELEASE };

chan up[LINKS] = [N+5] of { mtype, byte };    /* member to mirror */
chan down[LINKS] = [3] of { mtype, byte };  /* mirror to member; BYTE: its offset; what it is is known from that */
bit  broken[LINKS];
byte place[LINKS];                          /* m of the member when it dialled */

/* the member */
byte m = 1, cur, dialled, taken, cuts = CUTS, moves = MOVES;
bit  on, upstate, gotend, both, released, closedpeer, done;
/* the mirror */
byte base, sentto, at = 255, mm, read;
bit  listed, endsent, endtold, halved, gone;

inline order(to, ty, val) { assert(nfull(up[to])); up[to]!ty(val) }

proctype Member()
{
	byte v;

end:	do
	/* dial, and say from where to go on; a leg that is released is not listed (255) */
	:: atomic { !done && !on && !gone && dialled < LINKS ->
		cur = dialled; dialled++; place[cur] = m; on = 1; upstate = 0;
		if
		:: released -> up[cur]!ATTACH(255)
		:: else -> up[cur]!ATTACH(taken)
		fi }
	/* nobody listens there: the mirror has ended */
	:: atomic { !done && !on && gone -> assert(released); done = 1 }
	:: atomic { on && !broken[cur] && down[cur]?[ATTACHED,_] -> down[cur]?ATTACHED(v);
		upstate = 1;
#ifndef BUG_ONERELEASE
		if
		:: released -> order(cur, RELEASE, 0)
		:: !released && both -> order(cur, HALF, 0)
		:: else
		fi;
#endif
		v = 0 }
	:: atomic { on && !broken[cur] && down[cur]?[BYTE,_] -> down[cur]?BYTE(v);
		if
		:: released -> skip                             /* released meanwhile */
		:: !released -> assert(v == taken && !gotend); taken++;
			order(cur, MACK, taken)
		fi; v = 0 }
	:: atomic { on && !broken[cur] && down[cur]?[MEND,_] -> down[cur]?MEND(v);
		if
		:: released -> skip
		:: !released -> assert(v == taken && taken == N); gotend = 1
		fi; v = 0 }
	/* the new leg exists: the peer is told, so the older one may be shut */
	:: atomic { !both && !released -> both = 1;
		if
		:: on && upstate && !broken[cur] -> order(cur, HALF, 0)
		:: else
		fi }
	/* settled (its end taken, the peer's FLUSHED there, which needs the FIN that the mirror sent); or the peer has closed */
	:: atomic { !released && ((gotend && both && halved) || closedpeer) -> released = 1;
		if
		:: on && upstate && !broken[cur] -> order(cur, RELEASE, 0)
		:: else
		fi }
	/* the member sees that its link is broken */
	:: atomic { on && broken[cur] -> on = 0; upstate = 0;
#ifdef BUG_LEAVES
		if
		:: released -> done = 1
		:: else
		fi
#endif
		}
	:: atomic { on && gone && !broken[cur] -> broken[cur] = 1 }    /* the mirror has ended */
	:: atomic { cuts > 0 && on && !broken[cur] -> cuts--; broken[cur] = 1 }
	/* it moves on: what it said from there may still arrive */
	:: atomic { moves > 0 && !done && dialled < LINKS -> moves--; m++; on = 0; upstate = 0 }
	/* the peer closes: the member learns of it over control */
	:: atomic { !closedpeer && !released -> closedpeer = 1 }
	od
}

inline forget() { listed = 0; at = 255 }

#define STRANGER(n) \
	:: atomic { !gone && !calls && n < LINKS && at != n && !broken[n%LINKS] && up[n%LINKS]?[ATTACH,_] -> l = n; calls = 1 }

proctype Mirror()
{
	byte l, v; bit calls;

end:	do
	:: atomic { !gone && read < N -> read++ }                       /* from the leg */
	/* the end of a link is seen when what lay in it has been handled */
	:: atomic { !gone && at < LINKS && broken[at] -> forget() }
	:: atomic { !gone && at < LINKS && listed && sentto < read && nfull(down[at]) ->
		down[at]!BYTE(sentto); sentto++;
#ifdef BUG_NOKEEP
		base = sentto
#endif
		}
	:: atomic { !gone && at < LINKS && listed && sentto == N && !endsent && nfull(down[at]) ->
		down[at]!MEND(N); endsent = 1; endtold = 1 }
	/* a stranger's first frame; any of the links */
	STRANGER(0)
	STRANGER(1)
	STRANGER(2)
	STRANGER(3)
	:: atomic { calls ->
		calls = 0;
		up[l]?ATTACH(v);
		if
#ifndef BUG_OLDLINK
		:: place[l] < mm -> broken[l] = 1              /* its m is older */
		:: place[l] >= mm ->
#else
		:: true ->
#endif
			if
			:: at < LINKS -> broken[at] = 1        /* another one takes its place */
			:: else
			fi;
			forget(); at = l; mm = place[l];
			down[l]!ATTACHED(0);
			if
			:: v != 255 ->
				assert(v >= base && v <= read); /* what is asked for is kept */
				listed = 1; endsent = 0; base = v;
#ifndef BUG_NOSKIP
				sentto = v
#endif
			:: v == 255 && endtold && halved -> gone = 1   /* its RELEASE was lost */
			:: v == 255 && !(endtold && halved) -> skip    /* its RELEASE follows */
			fi
		fi; v = 0; l = 0 }
	:: atomic { !gone && at < LINKS && !broken[at] && up[at]?[MACK,_] -> up[at]?MACK(v); base = v; v = 0 }
	:: atomic { !gone && at < LINKS && !broken[at] && up[at]?[HALF,_] -> up[at]?HALF(v); halved = 1 }
	:: atomic { !gone && at < LINKS && !broken[at] && up[at]?[RELEASE,_] -> up[at]?RELEASE(v); gone = 1 }
	od
}

init {
	atomic { run Member(); run Mirror() }
end:	do
	:: atomic { timeout ->
		/* all was taken, or the peer had closed; the mirror is gone, and the member knows it */
		assert(gone && released && (taken == N || closedpeer));
		assert(done);
		break }
	od
}
