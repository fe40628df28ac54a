"""The demonstration: a fleet, one state.apply, a guest, and a picture of its console."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import cache, hosts, inventory, lab, machine, network, shell

BROWSER = {
    "/usr/bin/chromium": "chromium",
    "/usr/bin/chromedriver": "chromium-driver",
    "/usr/lib/python3/dist-packages/selenium": "python3-selenium",
}
SAYS = "nova-formula guest is up"


def show(name: str, os_name: str, salt: str, picture: Path | None) -> int:
    """Go all the way; return an exit code."""
    began = time.monotonic()
    lab.up(name, (), os_name, salt)
    site = lab.Lab(name)
    picture = (picture or site.directory / "demo-guest.png").absolute()
    with ThreadPoolExecutor() as pool:
        browser = pool.submit(machine.prepare, BROWSER)
        with shell.step("salt '*' state.apply nova"):
            applied = apply(site)
        browser.result()
    with shell.step("boot the guest and read its console"):
        found = guest(site)
    with shell.step("open its console in a browser"):
        shell.run(*network.enter(name), "/usr/bin/python3", Path(__file__).with_name("browser.py"),
                  found["url"], inventory.VIP_NAME, inventory.VIP, picture)
    print(table(applied, found))
    print(f"\nPicture: {picture}\nConsole: {found['url']}\n"
          f"All of it took {time.monotonic() - began:.0f} s.")
    return 0


def apply(site: lab.Lab) -> dict[str, dict[str, int]]:
    """Apply the formula; return how many states did what, by minion."""
    lab.refresh_pillar(site)
    place = site.place("infra")
    done = subprocess.run(
        hosts.command_in(place, ["salt", "--out=json", "--static", "--timeout=1800", "*",
                                 "state.apply", "nova"]),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    log = site.directory / "demo-apply.json"
    log.write_text(done.stdout)
    try:
        answers = json.loads(done.stdout[done.stdout.index("{"):])
    except ValueError:
        raise shell.LabError(f"Salt said: {(done.stdout + done.stderr).strip()[-500:]}") from None
    counts, failures = {}, []
    for minion, states in sorted(answers.items()):
        if not isinstance(states, dict):
            failures.append(f"{minion}: {states}")
            continue
        failures += [f"{minion}: {state['__id__']}: {state['comment']}"
                     for state in states.values() if state["result"] is False]
        counts[minion] = {"states": len(states),
                          "changed": sum(bool(state["changes"]) for state in states.values())}
    if failures:
        raise shell.LabError("The formula did not apply (all in "
                             f"{log}):\n" + "\n".join(failures[:10]))
    return counts


def guest(site: lab.Lab) -> dict:
    """Boot the guest, or take the one that is there; return what the cloud knows."""
    script = (cache.FILES / "demo/boot_guest.py").read_text()
    command = hosts.command_in(site.place("infra"), ["/opt/saltstack/bin/python", "-", SAYS])
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise shell.LabError(f"The guest did not come up: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def table(applied: dict[str, dict[str, int]], found: dict) -> str:
    """Return what runs where, for a person."""
    row = "{:<6} {:<12} {:<16} {}".format
    lines = ["", row("HOST", "ROLE", "STATES", "RUNS")]
    for minion, count in applied.items():
        runs = ", ".join(found["services"].get(minion, ()))
        states = f"{count['states']}, {count['changed']} changed"
        lines.append(row(minion, inventory.HOSTS[minion].role, states,
                         runs or ("the VIP" if inventory.HOSTS[minion].also else "")))
    lines.append("")
    row = "{:<18} {:<6} {:<6} {}".format
    lines.append(row("HYPERVISOR", "TYPE", "STATE", "GUESTS"))
    for hypervisor in found["hypervisors"]:
        on_it = found["guest"]["name"] if hypervisor["name"] == found["guest"]["host"] else ""
        lines.append(row(hypervisor["name"], hypervisor["type"], hypervisor["state"], on_it))
    lines += ["", f"Guest {found['guest']['name']} is {found['guest']['status']} on "
                  f"{found['guest']['host']}; its console says: {found['guest']['says']}"]
    return "\n".join(lines)
