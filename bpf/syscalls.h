/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* System calls that move bytes through a socket (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h). */
#ifndef KFR_SYSCALLS_H
#define KFR_SYSCALLS_H

#if defined(__TARGET_ARCH_x86)
enum {
	NR_READ = 0,
	NR_WRITE = 1,
	NR_READV = 19,
	NR_WRITEV = 20,
	NR_SENDFILE = 40,
	NR_CONNECT = 42,
	NR_SENDTO = 44,
	NR_RECVFROM = 45,
	NR_SENDMSG = 46,
	NR_RECVMSG = 47,
	NR_SETSOCKOPT = 54,
	NR_SPLICE = 275,
	NR_RECVMMSG = 299,
	NR_SENDMMSG = 307,
	NR_PREADV2 = 327,
	NR_PWRITEV2 = 328,
	NR_IO_URING_ENTER = 426,
};
#define SYSCALL_NUMBER(regs) ((long)(regs)->orig_ax)
/* The entry code stores -ENOSYS as the result until the call is over: later, the registers are history. */
#define SYSCALL_RUNNING(regs) ((long)(regs)->ax == -38)
/* thread_info.status, arch/x86/include/asm/thread_info.h: TS_COMPAT */
#define TASK_IS_COMPAT(task) ((task)->thread_info.status & 2)
/* The same calls of 32-bit tasks (arch/x86/entry/syscalls/syscall_32.tbl). */
enum {
	COMPAT_NR_READ = 3,
	COMPAT_NR_WRITE = 4,
	COMPAT_NR_SOCKETCALL = 102,
	COMPAT_NR_READV = 145,
	COMPAT_NR_WRITEV = 146,
	COMPAT_NR_SENDFILE = 187,
	COMPAT_NR_SENDFILE64 = 239,
	COMPAT_NR_SENDTO = 369,
	COMPAT_NR_SENDMSG = 370,
	COMPAT_NR_RECVFROM = 371,
	COMPAT_NR_RECVMSG = 372,
	COMPAT_NR_SEND = -1, /* none: SENDTO or SOCKETCALL */
	COMPAT_NR_RECV = -2,
};
#define COMPAT_NR_SOCKETCALL COMPAT_NR_SOCKETCALL
#define COMPAT_PARM1(regs) ((__u32)(regs)->bx)
#define COMPAT_PARM2(regs) ((__u32)(regs)->cx)
#define COMPAT_PARM3(regs) ((__u32)(regs)->dx)
#define COMPAT_PARM4(regs) ((__u32)(regs)->si)
/* Numbers of the above that no 64-bit task's call of interest has: only for these is it asked which kind it is. */
#define COMPAT_CANDIDATE(number)                                                                                    \
	((number) == COMPAT_NR_READ || (number) == COMPAT_NR_WRITE || (number) == COMPAT_NR_SOCKETCALL ||           \
	 (number) == COMPAT_NR_READV || (number) == COMPAT_NR_WRITEV || (number) == COMPAT_NR_SENDFILE ||           \
	 (number) == COMPAT_NR_SENDFILE64 || ((number) >= COMPAT_NR_SENDTO && (number) <= COMPAT_NR_RECVMSG))
#elif defined(__TARGET_ARCH_arm64)
enum {
	NR_READ = 63,
	NR_WRITE = 64,
	NR_READV = 65,
	NR_WRITEV = 66,
	NR_SENDFILE = 71,
	NR_SPLICE = 76,
	NR_CONNECT = 203,
	NR_SENDTO = 206,
	NR_RECVFROM = 207,
	NR_SETSOCKOPT = 208,
	NR_SENDMSG = 211,
	NR_RECVMSG = 212,
	NR_RECVMMSG = 243,
	NR_SENDMMSG = 269,
	NR_PREADV2 = 286,
	NR_PWRITEV2 = 287,
	NR_IO_URING_ENTER = 426,
};
#define SYSCALL_NUMBER(regs) ((long)(regs)->syscallno)
/* x0 holds the first argument until the result replaces it. */
#define SYSCALL_RUNNING(regs) ((regs)->regs[0] == (regs)->orig_x0)
/* thread_info.flags, arch/arm64/include/asm/thread_info.h: TIF_32BIT */
#define TASK_IS_COMPAT(task) ((task)->thread_info.flags & (1UL << 22))
/* The same calls of 32-bit tasks (arch/arm64/tools/syscall_32.tbl). */
enum {
	COMPAT_NR_READ = 3,
	COMPAT_NR_WRITE = 4,
	COMPAT_NR_READV = 145,
	COMPAT_NR_WRITEV = 146,
	COMPAT_NR_SENDFILE = 187,
	COMPAT_NR_SENDFILE64 = 239,
	COMPAT_NR_SEND = 289,
	COMPAT_NR_SENDTO = 290,
	COMPAT_NR_RECV = 291,
	COMPAT_NR_RECVFROM = 292,
	COMPAT_NR_SENDMSG = 296,
	COMPAT_NR_RECVMSG = 297,
};
#define COMPAT_PARM1(regs) ((__u32)(regs)->orig_x0)
#define COMPAT_PARM3(regs) ((__u32)(regs)->regs[2])
#define COMPAT_PARM4(regs) ((__u32)(regs)->regs[3])
/* Numbers of the above that no 64-bit task's call of interest has: only for these is it asked which kind it is. */
#define COMPAT_CANDIDATE(number)                                                                                    \
	((number) == COMPAT_NR_READ || (number) == COMPAT_NR_WRITE || (number) == COMPAT_NR_READV ||                \
	 (number) == COMPAT_NR_WRITEV || (number) == COMPAT_NR_SENDFILE || (number) == COMPAT_NR_SENDFILE64 ||      \
	 ((number) >= COMPAT_NR_SEND && (number) <= COMPAT_NR_RECVMSG))
#endif

#endif
