"""Run commands some times, in turn; print how long each run took, and the most memory one held."""

import json
import os
import subprocess
import sys
import time

runs, commands = int(sys.argv[1]), json.loads(sys.argv[2])
found = [{"seconds": [], "codes": [], "memory_mb": 0} for _ in commands]
for _ in range(runs):
    for command, of_it in zip(commands, found, strict=True):
        began = time.monotonic()
        with open("/root/measured", "w") as output, open("/root/measured.errors", "w") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
        of_it["seconds"].append(time.monotonic() - began)
        of_it["codes"].append(os.waitstatus_to_exitcode(status))
        # Of one process, in KiB.
        of_it["memory_mb"] = max(of_it["memory_mb"], usage.ru_maxrss // 1024)
print(json.dumps(found))
