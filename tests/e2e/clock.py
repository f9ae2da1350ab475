"""A fake clock in one process: changes its copy of the kernel's clock code; other processes are not affected.

Programs read the clock with code that the kernel maps into each process (vdso(7)). A write through /proc/PID/mem gives
the process a private copy of that page. Linux on x86_64.
"""

import struct

from tests.e2e.operations import must

SYSCALL_CLOCK_GETTIME = 228


def turned(seconds: int) -> bytes:
    """Machine code of clock_gettime(2) that changes the time of day by that many seconds."""
    return (
        b"\xb8"
        + struct.pack("<I", SYSCALL_CLOCK_GETTIME)  # mov eax, 228
        + b"\x0f\x05"  # syscall
        + b"\x85\xff"  # test edi, edi: CLOCK_REALTIME is 0
        + b"\x75\x07"  # jnz past the addition
        + b"\x48\x81\x06"
        + struct.pack("<i", seconds)  # add qword [rsi], seconds
        + b"\xc3"  # ret
    )


PROGRAM = """
import re, struct, sys
pid, code = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
with open(f"/proc/{pid}/maps") as maps:
    [(start, end)] = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*\\\\[vdso\\\\]$", maps.read(), re.MULTILINE)
start, end = int(start, 16), int(end, 16)
with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
    memory.seek(start)
    image = memory.read(end - start)
    headers, = struct.unpack_from("<Q", image, 32)
    count, = struct.unpack_from("<H", image, 56)
    tables, load = {}, 0
    for place in range(count):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", image, headers + 56 * place)
        if kind == 1:
            load = address - offset
        if kind == 2:
            tables = dict(struct.iter_unpack("<QQ", image[offset : offset + size]))
    names, symbols = tables[5] - load, tables[6] - load
    place = symbols
    while True:
        name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, place)
        text = image[names + name : image.index(b"\\\\0", names + name)]
        if text == b"__vdso_clock_gettime":
            break
        place += 24
    memory.seek(start + value - load)
    memory.write(code)
"""


def turn(role: str, container: str, seconds: int) -> None:
    """Change the clock of a container's first process by that many seconds, until it exits."""
    pid = must(role, f"docker inspect --format '{{{{.State.Pid}}}}' {container}")
    must(role, f"/usr/libexec/platform-python - {pid} {turned(seconds).hex()}", stdin=PROGRAM.replace("\\\\", "\\"))
