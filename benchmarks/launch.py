"""launch: run one command from a small process and print what it took.

What a program's peak memory is counted from includes the process that starts it, up to the
moment it becomes the program: started by the benchmark itself, everything would seem to need
what the benchmark needs.  So this file imports next to nothing.

    launch.py LIMIT OUTPUT PROGRAM [ARGUMENT...]

runs PROGRAM with both its streams in the file OUTPUT, kills it and its group after LIMIT
seconds, and prints seconds, processor seconds, peak bytes and exit code.
"""

import os
import signal
import sys
import time

#: ru_maxrss is in bytes on macOS, in kibibytes elsewhere.
UNIT = 1 if sys.platform == "darwin" else 1024


def launch(limit: float, output: str, command: list[str]) -> str:
    """Run a command to its end; return its figures in one line."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=streams, setpgroup=0)

    def end(*_: object) -> None:
        os.killpg(pid, signal.SIGKILL)

    for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    signal.setitimer(signal.ITIMER_REAL, limit)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    signal.setitimer(signal.ITIMER_REAL, 0)
    processor = usage.ru_utime + usage.ru_stime
    return f"{seconds} {processor} {usage.ru_maxrss * UNIT} {os.waitstatus_to_exitcode(status)}"


if __name__ == "__main__":
    print(launch(float(sys.argv[1]), sys.argv[2], sys.argv[3:]))
