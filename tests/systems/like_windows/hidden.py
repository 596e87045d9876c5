"""What Windows does not have of Python's modules, or has and does not do: `os.chmod` there changes one bit."""

from __future__ import annotations

MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
NAMES = {
    "os": """
O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK chown chroot ctermid fchdir fchmod fchown fork forkpty fstatvfs getegid
geteuid getgid getgroups getloadavg getpgid getpgrp getsid getuid initgroups killpg lchown lockf mkfifo mknod nice
openpty posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev readv sched_getaffinity
sched_setaffinity sendfile set_blocking setegid seteuid setgid setgroups setpgid setpriority setsid setuid statvfs
sync sysconf uname wait wait3 wait4 waitid writev
""",
    "signal": """
ITIMER_REAL SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 alarm getitimer
pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigwait
""",
}
"""Module -> names."""
