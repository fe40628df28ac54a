#!/usr/bin/python3 -I
"""
All that another compute node may do here over SSH: what Nova's migration of guests asks for.

Managed by Salt (nova formula). sshd starts it as Nova's user, whatever the peer asked for, which
stands in SSH_ORIGINAL_COMMAND and never reaches a shell:

    mkdir -p PATH, touch PATH, rm PATH, rm -rf PATH    Nova's SshDriver prepares and cleans up
    scp -t or -f PATH, or the subsystem sftp           scp brings and fetches disks, old way and new
    sh -c '… virt-ssh-helper …'                        libvirt; only where the argument is given

PATH is the directory of one guest (a UUID) below the instances path, or a file in it. SFTP is
served here, for sftp-server knows no limits: opens, reads, writes, attributes and mkdir.

Usage: migration INSTANCES_PATH [libvirt]     (Python 3.6 or later, no other library)
"""

import os
import re
import shlex
import stat
import struct
import sys
import syslog

INSTANCES = os.path.realpath(sys.argv[1])
LIBVIRT = "libvirt" in sys.argv[2:]
GUEST = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
BIN = "/usr/local/bin:/usr/bin:/bin"
HELPER, NETCAT = "/usr/bin/virt-ssh-helper", "/usr/bin/nc"
LIBVIRT_SOCKET = "/var/run/libvirt/libvirt-sock"

# SFTP, version 3 (draft-ietf-secsh-filexfer-02).
LONGEST = 256 * 1024 + 1024
INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = range(1, 11)
MKDIR, REALPATH, STAT = 14, 16, 17
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
OK, EOF, NO_FILE, DENIED, FAILURE, BAD, _, _, UNSUPPORTED = range(9)
SIZE, OWNER, MODE, TIMES = 1, 2, 4, 8
MODES = {1: os.O_RDONLY, 2: os.O_WRONLY, 3: os.O_RDWR}
CREATE, TRUNCATE, EXCLUSIVE = 8, 16, 32


class Refused(Exception):
    """What migration does not need."""


def main():
    """Do what was asked, or refuse it."""
    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    os.environ.clear()
    os.environ["PATH"] = BIN
    try:
        act(asked)
    except (Refused, ValueError) as reason:
        syslog.openlog("nova-migration", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
        syslog.syslog(syslog.LOG_WARNING, f"refused {asked!r:.200}: {reason}")
        sys.exit("Refused: this key is for the migration of guests alone.")


def act(asked):
    """Serve SFTP, or become the one program that does it."""
    if LIBVIRT and asked.startswith("sh -c ") and re.search("virt-ssh-helper|libvirt-sock", asked):
        # What the peer would have a shell run ends at this socket too.
        if os.path.exists(HELPER):
            os.execv(HELPER, [HELPER, "qemu:///system"])
        os.execv(NETCAT, [NETCAT, "-U", LIBVIRT_SOCKET])
    words = shlex.split(asked)
    if len(words) == 1 and os.path.basename(words[0]) in ("sftp-server", "internal-sftp"):
        return serve(sys.stdin.buffer, sys.stdout.buffer)
    program, options, path = words[:1], words[1:-1], words[-1] if words else ""
    if options[-1:] == ["--"]:
        options.pop()
    if program + options in (["mkdir", "-p"], ["touch"], ["rm"], ["rm", "-rf"]):
        os.execvp(words[0], [*program, *options, "--", guests(path)])
    if (
        program == ["scp"]
        and options[-1:] in (["-t"], ["-f"])
        and set(options[:-1]) <= {"-r", "-d"}
    ):
        os.execvp("scp", ["scp", *options, "--", guests(path)])
    raise Refused("no step of a migration")


def guests(path):
    """The real path of a guest's directory or of what is in it; no link leads out of there."""
    real = os.path.realpath(path)
    if not os.path.isabs(path) or os.path.commonpath([real, INSTANCES]) != INSTANCES:
        raise Refused("outside " + INSTANCES)
    if not GUEST.match(os.path.relpath(real, INSTANCES).split("/")[0]):
        raise Refused("no guest's directory")
    return real


# ---- SFTP --------------------------------------------------------------------------------------


class Packet:
    """A request's body, read from the front."""

    def __init__(self, body):
        self.body = body

    def take(self, size):
        taken, self.body = self.body[:size], self.body[size:]
        if len(taken) < size:
            raise ValueError("a packet that is too short")
        return taken

    def number(self):
        return struct.unpack(">I", self.take(4))[0]

    def long(self):
        return struct.unpack(">Q", self.take(8))[0]

    def string(self):
        return self.take(self.number())

    def path(self):
        return guests(os.fsdecode(self.string()))

    def attributes(self):
        """``{SIZE: …, MODE: …, TIMES: …}`` of what is there; owners are not for the peer to say."""
        flags, found = self.number(), {}
        if flags & SIZE:
            found[SIZE] = self.long()
        if flags & OWNER:
            self.take(8)
        if flags & MODE:
            found[MODE] = self.number() & 0o777
        if flags & TIMES:
            found[TIMES] = (self.number(), self.number())
        return found


def serve(source, sink):
    """Answer requests until the peer has no more."""
    handles = {}
    while True:
        head = source.read(4)
        if len(head) < 4:
            return
        size = struct.unpack(">I", head)[0]
        if not 0 < size <= LONGEST:
            raise ValueError(f"a packet of {size} bytes")
        packet = Packet(source.read(size))
        kind = packet.take(1)[0]
        if kind == INIT:
            answer, number = (VERSION, struct.pack(">I", 3)), b""
        else:
            number = packet.take(4)
            answer = answered(kind, packet, handles)
        body = bytes([answer[0]]) + number + answer[1]
        sink.write(struct.pack(">I", len(body)) + body)
        sink.flush()


def answered(kind, packet, handles):
    """The answer to one request: its kind and body."""
    try:
        return REQUESTS[kind](packet, handles) if kind in REQUESTS else status(UNSUPPORTED)
    except Refused as reason:
        return status(DENIED, str(reason))
    except FileNotFoundError:
        return status(NO_FILE, "no such file")
    except OSError as error:
        return status(FAILURE, error.strerror or "")
    except (ValueError, KeyError):
        return status(BAD, "bad request")


def string(data):
    return struct.pack(">I", len(data)) + data


def status(code, text=""):
    return STATUS, struct.pack(">I", code) + string(text.encode()) + string(b"")


def attrs(found):
    times = int(found.st_atime), int(found.st_mtime)
    flags, owner = SIZE | OWNER | MODE | TIMES, (found.st_uid, found.st_gid)
    return ATTRS, struct.pack(">IQ5I", flags, found.st_size, *owner, found.st_mode, *times)


def change(target, wanted):
    """Give a file, by path or descriptor, attributes."""
    if SIZE in wanted:
        os.truncate(target, wanted[SIZE])
    if MODE in wanted:
        os.chmod(target, wanted[MODE])
    if TIMES in wanted:
        os.utime(target, wanted[TIMES])
    return status(OK)


def opened(packet, handles):
    path, flags, wanted = packet.path(), packet.number(), packet.attributes()
    how = MODES[flags & 3] | os.O_NOFOLLOW | os.O_NONBLOCK
    how |= os.O_CREAT * bool(flags & CREATE) | os.O_TRUNC * bool(flags & TRUNCATE)
    how |= os.O_EXCL * bool(flags & EXCLUSIVE)
    descriptor = os.open(path, how, wanted.get(MODE, 0o644))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("no file")
    name = b"%d" % descriptor
    handles[name] = descriptor
    return HANDLE, string(name)


def closed(packet, handles):
    os.close(handles.pop(packet.string()))
    return status(OK)


def read(packet, handles):
    descriptor, offset, size = handles[packet.string()], packet.long(), packet.number()
    data = os.pread(descriptor, min(size, LONGEST - 1024), offset)
    return (DATA, string(data)) if data else status(EOF)


def write(packet, handles):
    descriptor, offset, data = handles[packet.string()], packet.long(), packet.string()
    while data:
        done = os.pwrite(descriptor, data, offset)
        offset, data = offset + done, data[done:]
    return status(OK)


def made(packet, _):
    os.mkdir(packet.path(), packet.attributes().get(MODE, 0o755))
    return status(OK)


def real(packet, _):
    """Only spelling: it tells nothing of what is there."""
    path = os.path.normpath(os.path.join(b"/", packet.string()))
    return NAME, struct.pack(">I", 1) + string(path) + string(path) + struct.pack(">I", 0)


REQUESTS = {
    OPEN: opened,
    CLOSE: closed,
    READ: read,
    WRITE: write,
    LSTAT: lambda packet, _: attrs(os.lstat(packet.path())),
    STAT: lambda packet, _: attrs(os.stat(packet.path())),
    FSTAT: lambda packet, handles: attrs(os.fstat(handles[packet.string()])),
    SETSTAT: lambda packet, _: change(packet.path(), packet.attributes()),
    FSETSTAT: lambda packet, handles: change(handles[packet.string()], packet.attributes()),
    MKDIR: made,
    REALPATH: real,
}

if __name__ == "__main__":
    main()
