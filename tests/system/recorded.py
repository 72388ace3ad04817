"""Stacks that others recorded, for tests/tools/walk_recorded: out of an ELF core dump, or of a file of perf's (perf record --call-graph dwarf).

Both readers make a Recording: stacks (thread, registers as DWARF numbers them, where the copy of memory begins, its bytes) and executable mappings."""
import collections
import mmap
import struct
import subprocess

import harness

WALKER = harness.BUILD / "tests/tools/walk_recorded"
Stack = collections.namedtuple("Stack", "tid registers start memory")
Mapping = collections.namedtuple("Mapping", "start end offset path")
Walked = collections.namedtuple("Walked", "end frames")


class Recording:
    def __init__(self):
        self.stacks, self.mappings = [], []

    def walk(self, directory):
        """What our walk makes of each stack."""
        lines = "".join(f"{m.start:x} {m.end:x} {m.offset:x} {m.path}\n" for m in sorted(self.mappings))
        (directory / "mappings").write_text(lines)
        with open(directory / "stacks", "wb") as file:
            for stack in self.stacks:
                file.write(struct.pack("<19Q", *stack.registers, stack.start, len(stack.memory)) + stack.memory)
        with open(directory / "stacks", "rb") as file:
            done = subprocess.run([WALKER, directory / "mappings"], stdin=file, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"walk_recorded: {done.returncode}: {done.stderr}")
        words = (line.split() for line in done.stdout.splitlines())
        return [Walked(end, [int(frame, 16) for frame in frames]) for end, *frames in words]


# --- core dumps: elf(5), linux/elfcore.h, fs/binfmt_elf.c ---

PT_LOAD, PT_NOTE, PF_X = 1, 4, 1
NT_PRSTATUS, NT_AUXV, NT_FILE = 1, 6, 0x46494C45
AT_SYSINFO_EHDR = 33
# In a core's struct user_regs_struct: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ...
CORE_REGISTERS = (10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16)
RED_ZONE = 128


def notes_of(data):
    at = 0
    while at + 12 <= len(data):
        n_name, n_content, kind = struct.unpack_from("<3I", data, at)
        content = at + 12 + (n_name + 3 & ~3)
        yield kind, data[content : content + n_content]
        at = content + (n_content + 3 & ~3)


class Core(Recording):
    """directory: where the vdso goes, which is in no file but the core."""

    def __init__(self, path, directory):
        super().__init__()
        with open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        at, size, count = struct.unpack_from("<Q", self.data, 32)[0], *struct.unpack_from("<HH", self.data, 54)
        headers = [struct.unpack_from("<IIQQQQQQ", self.data, at + i * size) for i in range(count)]
        self.loads = [(flags, start, offset, in_file, in_memory) for kind, flags, offset, start, _, in_file, in_memory, _ in headers if kind == PT_LOAD]
        notes = [note for kind, _, offset, _, _, n, _, _ in headers if kind == PT_NOTE for note in notes_of(self.data[offset : offset + n])]
        files = next((self.files(content) for kind, content in notes if kind == NT_FILE), [])
        auxiliary = next(content for kind, content in notes if kind == NT_AUXV)
        vdso = dict(struct.iter_unpack("<QQ", auxiliary)).get(AT_SYSINFO_EHDR)
        for flags, start, offset, in_file, in_memory in self.loads:
            if flags & PF_X:
                found = next((Mapping(start, start + in_memory, m.offset + start - m.start, m.path) for m in files if m.start <= start < m.end), None)
                if start == vdso:
                    (directory / "vdso").write_bytes(self.data[offset : offset + in_file])
                    found = Mapping(start, start + in_memory, 0, directory / "vdso")
                self.mappings.append(found or Mapping(start, start + in_memory, 0, "-"))
        # gcore leaves out what is as in the file, and with it whether it may be executed: that its table says, for code.
        self.mappings += [m for m in files if not any(start <= m.start < start + in_memory for _, start, _, _, in_memory in self.loads)]
        self.stacks = [self.stack(content) for kind, content in notes if kind == NT_PRSTATUS]

    @staticmethod
    def files(content):
        count, page = struct.unpack_from("<QQ", content)
        places = [struct.unpack_from("<QQQ", content, 16 + 24 * i) for i in range(count)]
        names = content[16 + 24 * count :].split(b"\0")
        return [Mapping(start, end, offset * page, name.decode()) for (start, end, offset), name in zip(places, names)]

    def stack(self, status):
        """Of a struct elf_prstatus: the number at 32, the registers from 112 on. The memory is that of the mapping that the stack is in, from the stack pointer on."""
        tid = struct.unpack_from("<I", status, 32)[0]
        values = struct.unpack_from("<27Q", status, 112)
        registers = [values[i] for i in CORE_REGISTERS]
        sp = registers[7]
        for _, start, offset, in_file, _ in self.loads:
            if start <= sp < start + in_file:
                first = max(start, sp - RED_ZONE & ~4095)
                return Stack(tid, registers, first, self.data[offset + first - start : offset + in_file])
        raise AssertionError(f"the stack of thread {tid} is not in the core: {sp:#x}")


# --- perf.data: perf_event_open(2), tools/perf/Documentation/perf.data-file-format.txt ---

RECORD_MMAP2, RECORD_SAMPLE = 10, 9
(IP, TID, TIME, ADDR, READ, CALLCHAIN, ID, CPU, PERIOD, STREAM_ID, RAW, BRANCH_STACK, REGS_USER, STACK_USER, _, _, IDENTIFIER) = (1 << i for i in range(17))
BEFORE_CHAIN = (IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM_ID, CPU, PERIOD)  # a word each, in this order
# enum perf_event_x86_regs: ax bx cx dx si di bp sp ip flags cs ss ds es fs gs r8 .. r15
PERF_REGISTERS = (0, 3, 2, 1, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 8)
PROT_EXEC = 4


class Perf(Recording):
    """Samples of user code with a copy of its stack, in the order of the file. pid: whose. vdso: a file with it. Each stack has its time too, in times (ns)."""

    def __init__(self, path, pid, vdso):
        super().__init__()
        self.times, mappings = [], {}
        data = path.read_bytes()
        attrs_at, _, data_at, data_size = struct.unpack_from("<4Q", data, 24)
        self.sample_type, self.mask = struct.unpack_from("<Q", data, attrs_at + 24)[0], struct.unpack_from("<Q", data, attrs_at + 80)[0]
        at = data_at
        while at < data_at + data_size:
            kind, _, size = struct.unpack_from("<IHH", data, at)
            if kind == RECORD_MMAP2:
                of, _, start, length, offset = struct.unpack_from("<IIQQQ", data, at + 8)
                protection = struct.unpack_from("<I", data, at + 64)[0]
                name = data[at + 72 : at + size].split(b"\0")[0].decode()
                if of == pid and protection & PROT_EXEC:
                    place = vdso if name == "[vdso]" else name if name.startswith("/") and not name.startswith("//") else "-"
                    mappings[start] = Mapping(start, start + length, 0 if name == "[vdso]" else offset, place)
            elif kind == RECORD_SAMPLE:
                self.sample(data, at + 8)
            at += size
        self.mappings = list(mappings.values())

    def sample(self, data, at):
        kept = {}
        for field in BEFORE_CHAIN:
            if self.sample_type & field:
                kept[field] = struct.unpack_from("<Q", data, at)[0]
                at += 8
        if self.sample_type & CALLCHAIN:
            at += 8 + 8 * struct.unpack_from("<Q", data, at)[0]
        abi = struct.unpack_from("<Q", data, at)[0]
        at += 8
        if abi != 2:  # PERF_SAMPLE_REGS_ABI_64; 0: a moment without user registers
            return
        numbers = [i for i in range(64) if self.mask >> i & 1]
        values = dict(zip(numbers, struct.unpack_from(f"<{len(numbers)}Q", data, at)))
        at += 8 * len(numbers)
        registers = [values[i] for i in PERF_REGISTERS]
        size = struct.unpack_from("<Q", data, at)[0]
        used = struct.unpack_from("<Q", data, at + 8 + size)[0] if size else 0
        self.times.append(kept[TIME])
        # The copy begins at the stack pointer, but our walk copies from below it, and in epilogues a register's rule can lead there, since compilers leave it as it was when
        # the register is popped. These read as 0.
        self.stacks.append(Stack(kept[TID] >> 32, registers, registers[7] - RED_ZONE, bytes(RED_ZONE) + data[at + 8 : at + 8 + used]))
