"""The grain nova_host, on file trees of many machines."""

import importlib.util
import os
import threading
from pathlib import Path

import pytest
import salt.loader

FILE = Path(__file__).resolve().parents[2] / "_grains" / "nova_host.py"


@pytest.fixture
def grain(tmp_path):
    """The module, loaded as the map does it, looking at an empty tree."""
    spec = importlib.util.spec_from_file_location("nova_host_alone", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PROC, module.SYS = str(tmp_path / "proc"), str(tmp_path / "sys")
    module.KVM, module.MACHINE = str(tmp_path / "kvm"), "x86_64"
    return module


def put(grain, files):
    for name, text in files.items():
        path = Path(grain.PROC).parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(grain):
    return grain.nova_host()["nova_host"]


def cpu(flags):
    return {"proc/cpuinfo": f"processor\t: 0\nflags\t\t: fpu {flags} sse\nvmx flags\t: vnmi\n\n"}


def test_nothing_readable_means_nothing_known(grain):
    assert found(grain) == {
        "vmx": False,
        "svm": False,
        "kvm": False,
        "nested": False,
        "hypervisor": None,
        "virt_type": "qemu",
    }


@pytest.mark.parametrize("flag", ["vmx", "svm"])
def test_kvm_is_usable_with_the_cpu_flag_and_the_device(grain, flag):
    put(grain, {**cpu(flag), "kvm": ""})
    assert found(grain)[flag]
    assert found(grain)["kvm"]
    assert found(grain)["virt_type"] == "kvm"


def test_kvm_is_not_usable_without_the_device(grain):
    put(grain, cpu("vmx"))
    assert found(grain)["vmx"]
    assert not found(grain)["kvm"]
    assert found(grain)["virt_type"] == "qemu"


def test_kvm_is_not_usable_where_the_device_opens_and_the_cpu_has_no_flag(grain):
    put(grain, {**cpu("hypervisor"), "kvm": ""})
    assert not found(grain)["kvm"]


@pytest.mark.parametrize("machine", ["aarch64", "ppc64le", "s390x"])
def test_the_device_alone_decides_where_the_cpu_lists_no_flag(grain, machine):
    grain.MACHINE = machine
    assert not found(grain)["kvm"]
    put(grain, {"kvm": ""})
    assert found(grain)["kvm"]


def test_a_device_that_does_not_open_for_writing_is_not_usable(grain):
    put(grain, cpu("svm"))
    os.mkdir(grain.KVM)
    assert not found(grain)["kvm"]


@pytest.mark.parametrize(
    ("module", "text", "nested"),
    [
        ("kvm_intel", "Y\n", True),
        ("kvm_amd", "1\n", True),
        ("kvm_intel", "N\n", False),
        ("kvm_amd", "0\n", False),
    ],
)
def test_nesting_is_what_the_kernel_module_says(grain, module, text, nested):
    put(grain, {f"sys/module/{module}/parameters/nested": text})
    assert found(grain)["nested"] is nested


DMI = "sys/class/dmi/id/"
CLOCK = "sys/devices/system/clocksource/clocksource0/available_clocksource"
TREE = "proc/device-tree/"


@pytest.mark.parametrize(
    ("machine", "files", "hypervisor"),
    [
        ("x86_64", {DMI + "sys_vendor": "Dell Inc.\n", **cpu("vmx")}, None),
        ("x86_64", {DMI + "sys_vendor": "QEMU\n", **cpu("hypervisor")}, "qemu"),
        (
            "x86_64",
            {DMI + "sys_vendor": "QEMU\n", CLOCK: "tsc kvm-clock\n", **cpu("hypervisor")},
            "kvm",
        ),
        ("x86_64", {DMI + "product_name": "OpenStack Nova\n", **cpu("hypervisor")}, "kvm"),
        ("x86_64", {DMI + "sys_vendor": "VMware, Inc.\n", **cpu("hypervisor")}, "vmware"),
        ("x86_64", {DMI + "sys_vendor": "Microsoft Corporation\n"}, None),
        ("x86_64", {DMI + "product_name": "Virtual Machine\n"}, "microsoft"),
        ("x86_64", {DMI + "sys_vendor": "Amazon EC2\n", **cpu("hypervisor")}, "amazon"),
        (
            "x86_64",
            {DMI + "sys_vendor": "Amazon EC2\n", DMI + "product_name": "m5.metal\n", **cpu("vmx")},
            None,
        ),
        ("x86_64", {CLOCK: "tsc kvm-clock\n", **cpu("hypervisor")}, "kvm"),
        ("x86_64", cpu("hypervisor"), "other"),
        ("x86_64", {"sys/hypervisor/type": "xen\n"}, "xen"),
        ("x86_64", {"sys/hypervisor/type": "xen\n", "proc/xen/capabilities": "control_d\n"}, None),
        ("aarch64", {TREE + "hypervisor/compatible": "linux,kvm\0"}, "kvm"),
        ("aarch64", {DMI + "sys_vendor": "Amazon EC2\n"}, "amazon"),
        ("ppc64le", {TREE + "compatible": "qemu,pseries\0"}, "qemu"),
        ("s390x", {"proc/sysinfo": "VM00 Control Program: KVM/Linux\n"}, "kvm"),
        ("s390x", {"proc/sysinfo": "VM00 Control Program: z/VM    6.4.0\n"}, "zvm"),
        ("s390x", {"proc/sysinfo": "Manufacturer: IBM\n"}, None),
    ],
)
def test_the_hypervisor_is_known_by_what_it_leaves_in_files(grain, machine, files, hypervisor):
    grain.MACHINE = machine
    put(grain, files)
    assert found(grain)["hypervisor"] == hypervisor


def test_files_that_cannot_be_read_raise_nothing(grain):
    for name in ("proc/cpuinfo", "sys/hypervisor/type", DMI + "sys_vendor"):
        (Path(grain.PROC).parent / name).mkdir(parents=True)
    assert found(grain)["hypervisor"] is None


def test_cpuinfo_is_read_no_further_than_the_first_flags(grain):
    # The other CPUs never come: a reader that wants them waits for ever.
    Path(grain.PROC).mkdir()
    fifo = os.path.join(grain.PROC, "cpuinfo")
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    os.write(writer, cpu("svm")["proc/cpuinfo"].encode())
    answers = []
    reader = threading.Thread(target=lambda: answers.append(found(grain)), daemon=True)
    reader.start()
    reader.join(5)
    os.close(writer)
    assert answers
    assert answers[0]["svm"]


def test_salt_loads_it_as_a_grain(opts):
    grains = salt.loader.grain_funcs(opts)["nova_host.nova_host"]()
    assert grains["nova_host"]["virt_type"] in ("kvm", "qemu")
