"""Call a function in processes that are killed after some time; its imports are done once, before them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback


@contextlib.contextmanager
def forked(module):
    """Yield `run(seconds, *args) -> exit status`, -9 if killed, of a module that calls `serve`."""
    command = [sys.executable, "-W", "ignore:os.fork", "-m", module]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603

        def run(seconds, *args):
            server.stdin.write(json.dumps([seconds, *map(str, args)]) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield run
        server.stdin.close()


def serve(function):
    """Call the function in a process of its own for each line of the input, and print how that ended."""
    for line in sys.stdin:
        seconds, *args = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _call(function, args)
        end, waited = time.monotonic() + seconds, (0, 0)
        while not waited[0]:
            waited = os.waitpid(pid, os.WNOHANG)
            if not waited[0] and time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                waited = os.waitpid(pid, 0)
            time.sleep(0.0005)
        print(os.waitstatus_to_exitcode(waited[1]), flush=True)


def _call(function, args):
    """Call the function, and end this process."""
    status = 1
    try:
        function(*args)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
