"""Prints one line per scenario, as every client program under tests/foreign does: PASS or FAIL and its name."""

import sys
import traceback

MEGABYTE = bytes(i * 7 % 251 for i in range(1024 * 1024))


class Report:
    def __init__(self, client):
        self.client, self.failed = client, 0

    def run(self, version, scenario, *arguments):
        name = f"{self.client} {version}: {scenario.__name__.replace('_', ' ')}"
        try:
            scenario(*arguments)
            print(f"PASS {name}", flush=True)
        except Exception:
            self.failed += 1
            traceback.print_exc()
            print(f"FAIL {name}", flush=True)

    def end(self):
        sys.exit(1 if self.failed else 0)
