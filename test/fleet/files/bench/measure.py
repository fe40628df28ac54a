"""Run a command some times; print how long each run took, and the most memory one held."""

import json
import os
import subprocess
import sys
import time

runs, command = int(sys.argv[1]), sys.argv[2:]
took, memory, codes = [], 0, []
for _ in range(runs):
    began = time.monotonic()
    with open("/root/measured", "w") as output, open("/root/measured.errors", "w") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
    took.append(time.monotonic() - began)
    codes.append(os.waitstatus_to_exitcode(status))
    memory = max(memory, usage.ru_maxrss)  # KiB, of one process
print(json.dumps({"seconds": took, "codes": codes, "memory_mb": memory // 1024}))
