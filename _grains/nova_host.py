"""
What a host can do for Nova: virtualisation in the CPU, usable KVM, nesting, its own hypervisor.

Read from /proc, /sys and /dev alone. The file needs nothing of Salt, so it can also be executed
where grains have not been synced yet.
"""

import os

PROC = "/proc"
SYS = "/sys"
KVM = "/dev/kvm"
MACHINE = os.uname().machine

_X86 = ("x86_64", "i386", "i486", "i586", "i686")

# Beginnings of the vendor and product names that only a virtual machine has.
_DMI = (
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Google Compute Engine", "kvm"),
    ("QEMU", "qemu"),
    ("Standard PC", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("VirtualBox", "oracle"),
    ("innotek GmbH", "oracle"),
    ("HVM domU", "xen"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Virtual Machine", "microsoft"),
    ("Apple Virtualization", "apple"),
)
# Vendors that sell bare metal under the same name: they count when the CPU says hypervisor.
_DMI_SHARED = (("Amazon EC2", "amazon"), ("Microsoft Corporation", "microsoft"))
_CLOCKS = (("kvm-clock", "kvm"), ("hyperv", "microsoft"), ("xen", "xen"))


def nova_host() -> dict:
    """
    The grain ``nova_host``.

    Returns a dict with ``vmx``, ``svm``, ``kvm`` (usable), ``nested`` (bool), ``hypervisor`` (the
    type of the one that this machine runs under, ``other`` if it has no known name, or None) and
    ``virt_type`` (``kvm`` or ``qemu``).

    CLI Example::

        salt '*' grains.get nova_host
    """
    flags = _cpu_flags()
    vmx, svm = "vmx" in flags, "svm" in flags
    # On x86 /dev/kvm also opens where the CPU has no virtualisation that a guest could use; other
    # machines list no such flag, there the device decides.
    kvm = (vmx or svm or MACHINE not in _X86) and _opens(KVM)
    return {
        "nova_host": {
            "vmx": vmx,
            "svm": svm,
            "kvm": kvm,
            "nested": _nested(),
            "hypervisor": _hypervisor(flags),
            "virt_type": "kvm" if kvm else "qemu",
        }
    }


def _read(*path: str) -> str:
    try:
        with open(os.path.join(*path), errors="replace") as handle:
            return handle.read(65536).strip(" \t\r\n\0")
    except OSError:
        return ""


def _cpu_flags() -> frozenset:
    if MACHINE not in _X86:
        return frozenset()
    try:
        with open(os.path.join(PROC, "cpuinfo"), errors="replace") as handle:
            # One CPU speaks for all; with hundreds the whole file takes long to make.
            for line in handle:
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def _opens(device: str) -> bool:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _nested() -> bool:
    return any(
        _read(SYS, "module", module, "parameters", "nested") in ("Y", "y", "1")
        for module in ("kvm_intel", "kvm_amd", "kvm_hv", "kvm")
    )


def _hypervisor(flags: frozenset) -> str | None:
    # Xen's control domain is the host, not a guest.
    if "control_d" in _read(PROC, "xen", "capabilities"):
        return None
    kind = _read(SYS, "hypervisor", "type")
    if kind:
        return kind
    in_guest = "hypervisor" in flags
    clocks = _read(SYS, "devices", "system", "clocksource", "clocksource0", "available_clocksource")
    clock = next((kind for name, kind in _CLOCKS if name in clocks), None) if in_guest else None
    kind = _dmi_kind(in_guest)
    if kind:
        # Both QEMU's emulation and KVM say QEMU here; only KVM offers its clock.
        return clock if kind == "qemu" and clock == "kvm" else kind
    return clock or _firmware_kind() or ("other" if in_guest else None)


def _dmi_kind(in_guest: bool) -> str | None:
    names = [
        _read(SYS, "class", "dmi", "id", entry)
        for entry in ("product_name", "sys_vendor", "board_vendor", "bios_vendor")
    ]
    known = _DMI + _DMI_SHARED if in_guest or MACHINE not in _X86 else _DMI
    if names[0].endswith(".metal"):
        return None
    return next((kind for name in names for start, kind in known if name.startswith(start)), None)


def _firmware_kind() -> str | None:
    """The hypervisor by the device tree (arm, ppc) or /proc/sysinfo (s390x)."""
    tree = _read(PROC, "device-tree", "hypervisor", "compatible")
    for name in ("kvm", "xen", "vmware"):
        if name in tree:
            return name
    compatible = _read(PROC, "device-tree", "compatible")
    if "qemu" in compatible or "linux,dummy-virt" in compatible:
        return "qemu"
    for line in _read(PROC, "sysinfo").splitlines():
        if "Control Program:" in line:
            return "kvm" if "KVM" in line else "zvm"
    return None
