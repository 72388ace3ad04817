"""DWARF that was made to take all of somebody's time or memory, and files that change while they are read: each is answered in bounded
time and memory, with what the symbols say at least."""
import os
import pathlib
import resource
import struct
import subprocess
import tempfile
import time
import unittest
import zlib

import compare

TOOL = os.environ["ELF_NAMES"]
CPU_S = float(os.environ.get("HOSTILE_CPU_S", "4"))  # sprofd waits for 5 s
MEMORY_MIB = 1024

SOURCE = "int work(int x) { volatile int s = 0; for (int i = 0; i < x; i++) s += i; return s; }\nint main(int c, char **v) { (void)v; return work(c); }\n"

# DWARF 5, tables 7.3, 7.5, 7.6
CU, SUBPROGRAM, INLINED, BLOCK = 0x11, 0x2E, 0x1D, 0x0B
NAME, STMT_LIST, LOW, HIGH, ORIGIN, EXTERNAL, RANGES, SPECIFICATION = 0x03, 0x10, 0x11, 0x12, 0x31, 0x3F, 0x55, 0x47
# gABI, compressed sections
ZLIB, ZSTD = 1, 2
ADDR, STRING, UDATA, DATA8, FLAG_PRESENT, REF4, SEC_OFFSET = 0x01, 0x08, 0x0F, 0x07, 0x19, 0x13, 0x17


def uleb(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def abbrev(code, tag, children, *attributes):
    return uleb(code) + uleb(tag) + bytes([children]) + b"".join(uleb(a) + uleb(f) for a, f in attributes) + b"\0\0"


def unit(body, version=4):
    rest = struct.pack("<HIB", version, 0, 8) + body
    return struct.pack("<I", len(rest)) + rest


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="sprof-hostile.")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)
        (cls.directory / "program.c").write_text(SOURCE)
        cls.base = cls.directory / "program"
        subprocess.run(["cc", "-O1", "-gdwarf-4", "-gz=none", "-o", cls.base, cls.directory / "program.c"], check=True)
        symbols = subprocess.run(["nm", "-S", cls.base], capture_output=True, text=True, check=True).stdout
        line = next(line for line in symbols.splitlines() if line.endswith(" work"))
        cls.low, cls.size = (int(word, 16) for word in line.split()[:2])
        cls.pc = struct.pack("<QQ", cls.low, cls.low + cls.size)

    def make(self, name, compress=None, **sections):
        path = self.directory / name
        flags = []
        for section, content in sections.items():
            (self.directory / section).write_bytes(content)
            flags.append(f"--update-section=.{section}={self.directory / section}")
        subprocess.run(["objcopy", *flags, self.base, path], check=True, capture_output=True)
        if compress:
            self.compress(path, *compress)
        return path

    def compress(self, path, section, packed, size, kind=ZLIB):
        """Makes the section a compressed one by hand: SHF_COMPRESSED, and what its header says is up to us."""
        content = struct.pack("<IIQQ", kind, 0, size, 1) + packed
        (self.directory / "packed").write_bytes(content)
        subprocess.run(["objcopy", f"--update-section=.{section}={self.directory / 'packed'}", path], check=True, capture_output=True)
        data = bytearray(path.read_bytes())
        start, = struct.unpack_from("<Q", data, 40)
        count, strings = struct.unpack_from("<HH", data, 60)
        names, = struct.unpack_from("<Q", data, start + strings * 64 + 24)
        for i in range(count):
            name, = struct.unpack_from("<I", data, start + i * 64)
            if data[names + name:].startswith(b"." + section.encode() + b"\0"):
                struct.pack_into("<Q", data, start + i * 64 + 8, 0x800)
                break
        path.write_bytes(data)

    def ask(self, path, n=64):
        """The frames at addresses of work(), within bounds."""
        loads = compare.segments(path)
        addresses = [self.low + i * self.size // n for i in range(n)]
        offsets = "".join(f"{compare.to_offset(a, loads):x}\n" for a in addresses)

        def limit():
            resource.setrlimit(resource.RLIMIT_CPU, (int(CPU_S) + 1, int(CPU_S) + 1))

        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen([TOOL, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=limit)
        out, _ = process.communicate(offsets)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.assertEqual(process.returncode, 0)
        self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, CPU_S)
        self.assertLess(after.ru_maxrss / 1024, MEMORY_MIB)
        answers = [block.splitlines() for block in out.split(".\n")[:-1]]
        self.assertEqual(len(answers), n)
        for frames in answers:
            self.assertTrue(frames and frames[-1].startswith("work\t"), frames[-1:])
            self.assertLessEqual(len(frames), 64)
        return answers

    ROOT = abbrev(1, CU, 1, (LOW, ADDR), (HIGH, ADDR))

    def test_as_it_is(self):
        self.assertTrue(all(int(frames[0].split("\t")[3]) > 0 for frames in self.ask(self.base)))

    def test_entries_within_entries(self):
        table = self.ROOT + abbrev(2, SUBPROGRAM, 1, (LOW, ADDR), (HIGH, ADDR)) + abbrev(3, BLOCK, 1) + b"\0"
        self.ask(self.make("deep", debug_abbrev=table, debug_info=unit(b"\1" + self.pc + b"\2" + self.pc + b"\3" * 4_000_000)))

    def test_calls_within_calls(self):
        table = self.ROOT + abbrev(2, SUBPROGRAM, 1, (LOW, ADDR), (HIGH, ADDR), (NAME, STRING)) + abbrev(3, INLINED, 1, (LOW, ADDR), (HIGH, ADDR), (ORIGIN, REF4)) + b"\0"
        call = b"\3" + self.pc + struct.pack("<I", 11 + 17)
        answers = self.ask(self.make("inlined", debug_abbrev=table, debug_info=unit(b"\1" + self.pc + b"\2" + self.pc + b"work\0" + call * 900)))
        self.assertEqual({len(frames) for frames in answers}, {64})

    def test_many_attributes_of_no_bytes(self):
        many = [(EXTERNAL, FLAG_PRESENT)] * 500_000
        table = self.ROOT + abbrev(2, SUBPROGRAM, 0, *many, (LOW, UDATA)) + b"\0"
        self.ask(self.make("attributes", debug_abbrev=table, debug_info=unit(b"\1" + self.pc + b"\2\0" * 4_000_000)))

    def test_many_functions_with_the_same_long_list(self):
        table = self.ROOT + abbrev(2, SUBPROGRAM, 0, (RANGES, SEC_OFFSET)) + b"\0"
        ranges = struct.pack("<QQ", 1, 2) * 1_000_000
        path = self.make("ranges", debug_abbrev=table, debug_info=unit(b"\1" + self.pc + (b"\2" + struct.pack("<I", 0)) * 100_000))
        (self.directory / "list").write_bytes(ranges)
        subprocess.run(["objcopy", "--remove-section=.debug_ranges", f"--add-section=.debug_ranges={self.directory / 'list'}", path], check=True)
        self.ask(path)

    def test_origins_in_a_circle(self):
        table = self.ROOT + abbrev(2, SUBPROGRAM, 0, (LOW, ADDR), (HIGH, ADDR), (ORIGIN, REF4)) + b"\0"
        at = 11 + 17
        self.ask(self.make("circle", debug_abbrev=table, debug_info=unit(b"\1" + self.pc + b"\2" + self.pc + struct.pack("<I", at))))

    def test_many_units(self):
        """Each with the abbreviation that it needs at the end of a long table."""
        table = b"".join(abbrev(i, BLOCK, 0, (NAME, STRING)) for i in range(2, 60_000)) + self.ROOT + b"\0"
        self.ask(self.make("units", debug_abbrev=table, debug_info=unit(b"\1" + self.pc) * 200_000))

    def lines(self, program):
        header = bytes([1, 1, 0xFB, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]) + b"\0" + b"f.c\0\0\0\0\0"
        rest = struct.pack("<HI", 4, len(header)) + header + program
        return struct.pack("<I", len(rest)) + rest

    def test_a_giant_line_table(self):
        table = abbrev(1, CU, 0, (LOW, ADDR), (HIGH, ADDR), (STMT_LIST, SEC_OFFSET)) + b"\0"
        set_address = b"\0\x09\x02" + struct.pack("<Q", self.low)
        program = set_address + bytes([0x20]) * 60_000_000 + b"\0\1\1"
        self.ask(self.make("lines", debug_abbrev=table, debug_info=unit(b"\1" + self.pc + struct.pack("<I", 0)), debug_line=self.lines(program)))

    def test_compressed_to_nothing(self):
        zeros = zlib.compress(bytes(200 << 20), 9)
        self.ask(self.make("ratio", ("debug_info", zeros, 200 << 20)))
        self.ask(self.make("more", ("debug_info", zeros, 100 << 20)))
        self.ask(self.make("boast", ("debug_info", zeros, 1 << 62)))
        self.ask(self.make("garbage", ("debug_info", os.urandom(4096), 1 << 20)))

    def test_compressed_to_nothing_by_zstd(self):
        pack = lambda content: subprocess.run(["zstd", "-q", "-19", "-c"], input=content, capture_output=True, check=True).stdout
        zeros, few = pack(bytes(200 << 20)), pack(bytes(1 << 20))
        self.ask(self.make("ratio", ("debug_info", zeros, 200 << 20, ZSTD)))
        self.ask(self.make("more", ("debug_info", zeros, 16 << 20, ZSTD)))
        self.ask(self.make("less", ("debug_info", few, 2 << 20, ZSTD)))
        self.ask(self.make("cut", ("debug_info", few[:-8], 1 << 20, ZSTD)))
        self.ask(self.make("boast", ("debug_info", zeros, 1 << 62, ZSTD)))
        self.ask(self.make("garbage", ("debug_info", os.urandom(4096), 1 << 20, ZSTD)))
        self.ask(self.make("unknown", ("debug_info", few, 1 << 20, 3)))

    def test_a_file_that_shrinks(self):
        path = self.make("shrinking")
        with path.open("r+b") as file:
            process = subprocess.Popen([TOOL, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
            self.addCleanup(process.wait, 10)
            offset = compare.to_offset(self.low, compare.segments(path))

            def ask():
                process.stdin.write(f"{offset:x}\n")
                process.stdin.flush()
                return [line for line in iter(process.stdout.readline, ".\n")]

            self.assertTrue(ask())
            for size in (8192, 4096, 1, 0):
                file.truncate(size)
                ask()
            process.stdin.close()
            self.assertEqual(process.wait(10), 0)
            process.stdout.close()


if __name__ == "__main__":
    begin = time.monotonic()
    unittest.main(verbosity=2)
