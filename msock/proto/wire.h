/* SPDX-License-Identifier: MIT */
/*
 * wire.h - what a member says to its msdaemon, to its peers and to mirrors.
 *
 * Three carriers, one codec (codec.h):
 *  - the control socket: AF_UNIX SOCK_SEQPACKET between a member (or the
 *    restorer that becomes one) and its msdaemon; one message a packet, at
 *    most MS_CTL_MAX bytes, descriptors by SCM_RIGHTS where stated.  The
 *    member finds its end in the environment as MSOCK_FD.  It is trusted: the
 *    pair was made by the daemon, no path leads to it.
 *  - a leg: the TCP connection of a stream.  Frames of "leg" below go over it
 *    until the leg is made, then only the application's bytes.
 *  - a mirror link: a TCP connection from a member to an msmirror.
 *
 * Every message starts with u8 MS_WIRE_VERSION, u8 type.  Fields follow in the
 * order given; uN are little endian; str is u16 length and bytes; ip and port
 * are numbers in host order.  A member is named by a u32, MS_MEMBER(world,
 * rank).  `m` is a member's move number (protocol.md).
 */
#ifndef MSOCK_PROTO_WIRE_H
#define MSOCK_PROTO_WIRE_H

#include <stdint.h>

enum {
	MS_WIRE_VERSION = 1,
	MS_CTL_MAX = 65536, /* bytes of one control packet */
	MS_TOKEN = 16,      /* bytes of cookies, tokens and keys */
	MS_FDS_MAX = 250,   /* descriptors in one packet (the kernel's limit is 253) */
	MS_CHANNELS = 4,    /* stdin, stdout, stderr, PMI */
	MS_CARD_MAX = 192,  /* bytes of a job's card, NUL included (proto/card.h) */
};

#define MS_MEMBER(world, rank) ((uint32_t)(world) << 22 | (uint32_t)(rank))
#define MS_MEMBER_WORLD(m) ((uint32_t)(m) >> 22)
#define MS_MEMBER_RANK(m) ((uint32_t)(m)&0x3fffff)

/* The last world is no world of the job: its members are those of other jobs, as this job calls them (launcher/abroad.h). */
#define MS_WORLD_ABROAD 1023u
#define MS_MEMBER_IS_ABROAD(m) (MS_MEMBER_WORLD(m) == MS_WORLD_ABROAD)

/* The one before is that of forked children (lib/kin.h), by the order in which they became members. */
#define MS_WORLD_CHILDREN 1022u
#define MS_NOBODY 0xffffffffu
#define MS_MEMBER_IS_CHILD(m) (MS_MEMBER_WORLD(m) == MS_WORLD_CHILDREN)

/* Signal by which the kernel (O_ASYNC on control socket and data listener) and
 * the agent reach a member's threads; kernel number. MSOCK_KICK_SIGNAL changes it. */
#define MS_KICK_SIGNAL 63

enum ms_via { MS_VIA_AUTO, MS_VIA_DRAIN, MS_VIA_MIRROR };

enum ms_move_flags {
	MS_MOVE_STOP_AND_COPY = 1, /* nothing is sent before the freeze */
	MS_MOVE_CHECK = 2,         /* only ask: M_CHECKED instead of the freeze */
	MS_MOVE_PACK_NEVER = 4,    /* no compression */
	MS_MOVE_PACK_ALWAYS = 8,   /* whether it pays or not: for tests */
	MS_MOVE_COMPARE = 16,      /* the target compares all memory with the source's, page by page: for tests */
};

/* Control socket. D: from msdaemon, M: from the member, R: from the restorer. */
enum ms_ctl_type {
	MS_M_HELLO = 1,  /* u32 pid */
	MS_D_WELCOME,    /* u32 member, str job, str host, ip real, ip virtual, u64 m (last used),
	                      u16 port lowest, u16 port highest (0 0: any),
	                      u8 n, n x { u32 net, u8 bits }: the job's virtual subnets (nothing: 100.64.0.0/10),
	                      str the job's card (nothing: it has none) */
	MS_M_SERVING,    /* u16 data port, cookie: the member's data listener is open */
	MS_D_SERVING_OK, /* the master knows it */
	MS_M_LOOKUP,     /* u32 request, ip virtual, u64 newer: answer only with an entry whose m >= newer
	                      (0: any); if the member is moving, answer when that is decided */
	MS_D_PLACE,      /* u32 request, u8 status (enum ms_place), u32 member, ip real, u16 data port, u64 m, cookie,
	                      u32 what the asker is called in the job of that member (0: its own name) */
	MS_M_RELAY,     /* u32 to member, bytes: a relink message; the daemons bring it to the member, wherever it is */
	MS_D_RELAY,     /* u32 from member, bytes */
	MS_D_MOVE,      /* u64 m, u8 via, u32 drain ms, u32 timeout ms, u64 hash key, str fault, u8 flags (enum
	                      ms_move_flags), u32 longest freeze in us (0: not said), u64 bytes/s before the freeze (0: no
	                      limit), MS_CHANNELS x { u64 st_dev, u64 st_ino }: the member's end of each, 0 0 if none; 16 x
	                      u64: the processors that it was bound to, all 0 if it was not; one descriptor: the image connection, at its other end is the restorer */
	MS_M_FROZEN,    /* u64 m, u32 streams drained, u32 streams mirrored: no thread runs any more */
	MS_M_MIRROR,    /* u64 m, u16 n, n x { u64 S, u32 leg, u8 fin_sent, u8 at_end, u64 taken }; n descriptors.
	                      taken: the stream offset of the leg's next byte. Several packets if n > MS_FDS_MAX; one with n = 0 ends the list */
	MS_D_MIRROR_AT, /* u64 m, ip, u16 port, key: answer to the end of the list; port 0: no mirror could be had */
	MS_M_IMAGE_SENT,  /* u64 m, u64 sum, u64 bytes, u32 rounds; u16 n, n x { u64 S, u32 leg, u8 mirrored }
	                      (the record's list; what does not fit in a packet is left out and counted: u32) */
	MS_M_MOVE_FAILED, /* u64 m, str reason: the member asks for ABORTED */
	MS_D_OUTCOME, /* u64 m, u8 committed, str path. To the source; on committed it ends at once, or becomes the program
	                      at that path, if it is not empty: msstandin */
	MS_D_RESTORE, /* u64 m, u32 member, str host, ip real, u16 port lowest, u16 port highest, u64 hash key, str fault,
	                      u8 have[MS_CHANNELS]; descriptors: the image connection, then the new end of each channel had */
	MS_R_READY,   /* u64 m: ids, namespaces and memory are there; the image may come */
	MS_R_IMAGE_OK, /* u64 m, u64 sum, u64 bytes, u16 data port, u8 tracking: whole and checked, asks for COMMITTED */
	MS_R_FAILED,   /* u64 m, str reason */
	MS_D_RESUME,   /* the outcome to the restorer: u64 m, u8 committed, str host, ip real, ip mirror, u16 mirror
	                      port, mirror key. Its bytes are handed to the member's resume entry as they are */
	MS_M_RESUMED,  /* u64 m, u64 freeze ns */
	MS_M_RELINKED, /* u64 m, u64 stall ns, u32 drained, u32 mirrored: every stream is STEADY, mirror released */
	MS_D_ENDED,    /* u32 member, u32 status: that member has ended (protocol.md 29) */
	MS_D_STATS,    /* asks for */
	MS_M_STATS,    /* u32 streams, u32 mirrors attached, u64 relinks, u64 bytes carried; u32 open streams of which
			      some may be left out, each: u32 member, u64 bytes written, u64 taken */
	MS_D_KICK,     /* nothing: look at your listener */
	MS_M_STEP,     /* u64 m, u8 step (enum ms_step, steps.h), u64 when (ns, CLOCK_MONOTONIC of the sender), u64 when
	                      (CLOCK_REALTIME), 4 x u64 figures. From the restorer too */
	MS_M_CHECKED,  /* u64 m, u64 bytes to be sent, u64 bytes/s they went in a trial, u64 bytes/s being written, u64
	                      freeze ns, u64 total ns, both predicted: the answer to MS_MOVE_CHECK */
	MS_M_LOOKUP_ABROAD, /* u32 request, ip virtual in the other job, str that job's card; answered with D_PLACE when no
	                      move of that member is undecided */

	/* Of a process that forks, and of its children (lib/kin.h, msdaemon/kin.h). */
	MS_M_CHILD, /* u32 number, from 1: a child is being forked; one descriptor: the daemon's end of its control socket, over
	                      which it says HELLO when it wants to be a member */
	MS_M_LET_GO, /* u64 S, u32 number, u32 member: its end of this stream, that member's, is closed here; a child forked after
	                      that number has it */
	MS_D_LET_GO, /* u64 S (0: all), u32 member (MS_NOBODY: whoever it was): that member does not hold it any more; u32
	                      how many others are told */
	MS_M_LAST, /* u64 S, u8 end, u8 own, u32 peer, bytes: this end is closed, and what it would say of it (MS_RL_CLOSED)
	                      when it is asked later; own: it is its owner, and the peer gets it with the word of its end */
	MS_D_LAST, /* u64 S, u8 end, bytes: to those of whom it has descended */
	MS_M_ASK, /* u32 request, u8 what (enum ms_kin_ask), then by that; one descriptor: for the member that listens */
	MS_D_ASKED, /* u32 from member, u32 request, u8 what, then the same; the descriptor */
	MS_M_ANSWER, /* u32 to member, u32 request, u32 error (errno value), then by what was asked; perhaps a descriptor */
	MS_D_ANSWER,    /* u32 request, u32 error, then the same */
	MS_M_SIGNALLED, /* u32 signal: from the stand-in of a child that has moved (msdaemon/standin.h), for that child */
	MS_D_END,       /* u32 status, as from wait(2): to a stand-in, which ends so */
};

enum ms_kin_ask {
	MS_KIN_ACCEPT =
		1, /* nothing; the listener's number. Answer: u64 S, u8 end, u32 the member that had it, u32 peer, u32 leg, u64 written, u64 taken,
	                      ip own, u16 port own, ip peer, u16 port peer; the leg */
	MS_KIN_LISTEN, /* u16 port (0: any), u32 backlog, u64 inode of the number's file; the other end. Answer: u16 port */
};

enum ms_mirror_end {
	MS_MIRROR_FIN,
	MS_MIRROR_RESET,
	MS_MIRROR_TORN, /* like FIN, but behind a reset that a write had had */
};

enum ms_place { MS_PLACE_OK, MS_PLACE_NOBODY, MS_PLACE_ENDED };

/* Relink messages, inside RELAY: u8 version, u8 type, u64 S, u32 leg, u64 m, then */
enum ms_relink_type {
	MS_RL_PREPARE = 1,
	MS_RL_ACK,     /* u64 cut, u8 app_fin */
	MS_RL_FLUSHED, /* u64 taken */
	MS_RL_OFFER,   /* leg is the new one; ip real, u16 data port, token */
	MS_RL_GONE,
	MS_RL_CLOSED, /* u64 cut, u64 taken, u8 app_fin */
	MS_RL_HEIR,   /* u8 end, u32 member: this end was that member's, and is the sender's now */
	MS_RL_HEIR_OK,
	MS_RL_HEIR_IS, /* u32 member, whose this end is now */
	MS_RL_SHARED, /* u32 pid, u32 pid (0: it is no member): the processes that hold this end; it cannot be relinked */
	MS_RL_BOUND, /* u32 pid: the process that has this end becomes another program, which is no member; this leg is the last. HEIR
	                 takes it back */
	MS_RL_BOUND_OK,

	/* Of UDP sockets (lib/udp_say.c); after version and type only. A place: ip virtual, u16 port, ip real, u16 real
	   port, u64 serial (of all places that sockets of the member ever had, larger is later), u64 m of the last move
	   that it had said HOLD for and that is over. */
	MS_RL_UDP_WHERE =
		32, /* u16 port asked, u8 connected to it, u64 serial of its place at which it is heard (0: none), own place */
	MS_RL_UDP_AT, /* u16 port of who asked, u64 serial of his place that is noted, u8 flags (1: answer NOTED, 2: connected
				 to him, and deaf until then), own place (real port 0: nobody is bound;
				 then of an earlier place of his own, or of the one with this serial if none is noted) */
	MS_RL_UDP_NOTED, /* u16 port of who is told, u64 serial of his place that is noted, ip virtual, u16 port, u64 serial of who tells */
	MS_RL_UDP_HOLD, /* u64 m: I am about to move, send me nothing */
	MS_RL_UDP_HELD, /* u64 m: so be it */
	MS_RL_UDP_GO, /* u64 serial, u64 m: it is over, places before this one are not any more; 0: it came to nothing */
};

/* Leg frames: u32 MS_LEG_MAGIC, u8 version, u8 type, u16 bytes that follow, then */
#define MS_LEG_MAGIC 0x4c534d4du
enum ms_leg_type {
	MS_LEG_CONNECT =
		1, /* u64 S, u32 from member, u64 from m, ip from, u16 from port, ip to, u16 to port, cookie of the listener's member */
	MS_LEG_CONFIRM, /* u64 S */
	MS_LEG_HELLO,   /* u64 S, u32 leg, u64 m, token, u64 cut, u8 app_fin */
	MS_LEG_ACCEPT,  /* u64 S, u32 leg, u64 m, u64 cut, u8 app_fin (answers CONNECT and HELLO) */
	MS_LEG_REFUSE,  /* u64 S, u32 leg, u64 m, u8 reason (enum ms_refuse) */
};
enum ms_refuse {
	MS_REFUSE_NOT_OFFERED = 1,
	MS_REFUSE_NOBODY_LISTENS,
	MS_REFUSE_WRONG_MEMBER,
	MS_REFUSE_BAD_COOKIE,
	MS_REFUSE_BACKLOG
};

/* Mirror link frames: u32 bytes that follow (with type and version), u8 version, u8 type, then.
 * At most MS_MIRROR_FRAME bytes. */
enum { MS_MIRROR_FRAME = 65536 + 64 };
enum ms_mirror_type {
	MS_MI_ATTACH =
		1, /* member: u32 member, u64 m, key, u16 n, n x { u64 S, u32 leg, u64 taken } (several frames; the last has n = 0) */
	MS_MI_ATTACHED,  /* mirror: u64 m; or it closes the link: wrong key or an older m */
	MS_MI_BYTES,     /* mirror: u64 S, u32 leg, u64 offset in the stream, bytes to the frame's end */
	MS_MI_END,       /* mirror: u64 S, u32 leg, u64 total taken, u8 how: enum ms_mirror_end */
	MS_MI_ACK,       /* member: u64 S, u32 leg, u64 offset: all below it is taken */
	MS_MI_HALFCLOSE, /* member: u64 S, u32 leg */
	MS_MI_RELEASE,   /* member: u64 S, u32 leg */
	MS_MI_ABANDON, /* member: u64 S, u32 leg: as RELEASE, where the stream has ended with an error and nothing is settled */
};

/* msmirror's own control socket to its msdaemon (descriptor 3, SEQPACKET):
 * MS_M_MIRROR packets as the member sent them, MS_D_OUTCOME, and these. */
enum ms_mirror_ctl {
	MS_MC_START = 64,   /* daemon: u32 member, u64 m, ip to listen on, u16 port lowest, u16 port highest, key */
	MS_MC_AT,           /* mirror: u16 port: after the end of the list; it holds the legs */
	MS_MC_MEMBER_ENDED, /* daemon: give up what is left */
	MS_MC_DONE,         /* mirror, before it exits 0: u64 ms it lived, u64 bytes forwarded, u32 legs */
};

#endif
