"""A broker process for scripts: started on a free port, ended however the script ends."""

import os
import re
import signal
import subprocess
import threading
import time


class Broker:
    """`with Broker(binary, shards) as broker:` gives a broker that listens at (host, port)."""

    def __init__(self, binary, shards, arguments=()):
        self.command = [binary, "--listen", "127.0.0.1:0", "--shards", str(shards), "--no-pin", *arguments]
        self.stderr = []
        self.host, self.port = None, None
        self._listens = threading.Event()

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()
        deadline = time.monotonic() + 20
        while not self._listens.wait(0.05):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise SystemExit("the broker does not listen:\n" + "".join(self.stderr))
        return self

    def _read(self):
        for line in self.process.stderr:
            self.stderr.append(line)
            found = re.search(r"listening on (127\.0\.0\.1):(\d+)", line)
            if found:
                self.host, self.port = found.group(1), int(found.group(2))
                self._listens.set()

    def stop(self):
        """Asks the broker to stop and returns its exit code."""
        os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout=10)

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
