"""The figures of test/bench as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import machine

LIBRARY = {"/usr/lib/python3/dist-packages/matplotlib": "python3-matplotlib"}
RUNS = {
    "floor_s": "Salt's floor: test.ping",
    "haproxy_noop_s": "this formula, balancer",
    "compute_noop_s": "this formula, compute node",
    "noop_s": "this formula, controller",
    "puppet_noop_s": "Puppet, controller",
    "cli_s": "the seed's commands by hand",
}


def draw(found: dict[str, Any], target: Path) -> None:
    """Draw runs with nothing left to do, and how a check grows with what there is."""
    machine.prepare(LIBRARY)
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "nova"  # the same figures give the same file
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.4), width_ratios=(3, 2))
    shown = [(label, found[key]) for key, label in RUNS.items() if key in found]
    bars = left.barh([label for label, _ in shown], [seconds for _, seconds in shown],
                     color=["#5b8c5a" if "formula" in label else "#9a9a9a" for label, _ in shown])
    left.bar_label(bars, labels=[f" {seconds:.1f} s" for _, seconds in shown])
    left.invert_yaxis()
    left.set_title("A run with nothing left to do")
    left.set_xlim(0, max(seconds for _, seconds in shown) * 1.15)
    for kind, by_size in found.get("check_s", {}).items():
        right.plot([int(size) for size in by_size], list(by_size.values()), marker="o",
                   label=kind.replace("_", " "))
    right.set_xscale("log")
    right.set_ylim(bottom=0)
    right.set_xlabel("objects, all as they should be")
    right.set_ylabel("seconds")
    right.set_title("The check of so many objects")
    right.legend()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
