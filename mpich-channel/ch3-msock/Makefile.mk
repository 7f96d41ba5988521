# SPDX-License-Identifier: MIT
# ch3:msock, laid over src/mpid/ch3/channels/msock of an MPICH tree.

if BUILD_CH3_MSOCK

AM_CPPFLAGS +=                                            \
    -I$(top_srcdir)/src/mpid/ch3/channels/msock/include   \
    $(MSOCK_CFLAGS)

external_libs += $(MSOCK_LIBS)

mpi_core_sources +=                                       \
    src/mpid/ch3/channels/msock/src/address.c             \
    src/mpid/ch3/channels/msock/src/ch3_init.c            \
    src/mpid/ch3/channels/msock/src/ch3_send.c            \
    src/mpid/ch3/channels/msock/src/connection.c          \
    src/mpid/ch3/channels/msock/src/greeting.c            \
    src/mpid/ch3/channels/msock/src/handshake.c           \
    src/mpid/ch3/channels/msock/src/listener.c            \
    src/mpid/ch3/channels/msock/src/progress.c            \
    src/mpid/ch3/channels/msock/src/recv.c                \
    src/mpid/ch3/channels/msock/src/sendq.c               \
    src/mpid/ch3/channels/msock/src/spin.c

noinst_HEADERS +=                                         \
    src/mpid/ch3/channels/msock/include/mpidi_ch3_impl.h  \
    src/mpid/ch3/channels/msock/include/mpidi_ch3_post.h  \
    src/mpid/ch3/channels/msock/include/mpidi_ch3_pre.h   \
    src/mpid/ch3/channels/msock/src/address.h             \
    src/mpid/ch3/channels/msock/src/connection.h          \
    src/mpid/ch3/channels/msock/src/greeting.h            \
    src/mpid/ch3/channels/msock/src/handshake.h           \
    src/mpid/ch3/channels/msock/src/listener.h            \
    src/mpid/ch3/channels/msock/src/recv.h                \
    src/mpid/ch3/channels/msock/src/sendq.h               \
    src/mpid/ch3/channels/msock/src/spin.h

endif BUILD_CH3_MSOCK
