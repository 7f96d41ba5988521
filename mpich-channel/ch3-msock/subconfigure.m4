[#] start of __file__
dnl SPDX-License-Identifier: MIT
dnl ch3:msock: where libmsock is, and which thread level the channel has.

AC_DEFUN([PAC_SUBCFG_PREREQ_]PAC_SUBCFG_AUTO_SUFFIX,[
    AM_CONDITIONAL([BUILD_CH3_MSOCK],[test "X$device_name" = "Xch3" -a "X$channel_name" = "Xmsock"])
    AM_COND_IF([BUILD_CH3_MSOCK],[
        AC_MSG_NOTICE([RUNNING PREREQ FOR ch3:msock])
        MPID_MAX_THREAD_LEVEL=MPI_THREAD_MULTIPLE
        AC_ARG_VAR([MSOCK_CFLAGS],[preprocessor flags that find msock.h])
        AC_ARG_VAR([MSOCK_LIBS],[linker flags for libmsock])
        AS_IF([test -z "$MSOCK_LIBS"],[MSOCK_LIBS=-lmsock])
    ])
])dnl

AC_DEFUN([PAC_SUBCFG_BODY_]PAC_SUBCFG_AUTO_SUFFIX,[
AM_COND_IF([BUILD_CH3_MSOCK],[
    AC_MSG_NOTICE([RUNNING CONFIGURE FOR ch3:msock])
    msock_saved_CPPFLAGS="$CPPFLAGS"
    CPPFLAGS="$CPPFLAGS $MSOCK_CFLAGS"
    AC_CHECK_HEADER([msock.h],[],[AC_MSG_ERROR([ch3:msock needs msock.h: set MSOCK_CFLAGS and MSOCK_LIBS])])
    CPPFLAGS="$msock_saved_CPPFLAGS"
])
])dnl end _BODY
[#] end of __file__
