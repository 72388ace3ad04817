"""Function, file, line, start line and every inlined call, at thousands of addresses: as llvm-symbolizer has them."""
import functools
import lzma
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import compare

TOOL = os.environ["ELF_NAMES"]
HERE = pathlib.Path(__file__).parent
SHARE = 0.999  # equal, of those that either of both knows


def run(*argv, **more):
    return subprocess.run(list(map(str, argv)), check=True, capture_output=True, text=True, **more).stdout


def build_id(path):
    return run("readelf", "-n", path).split("Build ID:")[1].split()[0]


GO_WITH_C = """
package main

// static int half(int x) { return x / 2; }
import "C"

func main() {
	println(C.half(84))
}
"""

# gcc describes the method where its class is: within a function that is inlined everywhere, and so has no code.
CLASS_IN_FUNCTION = """
struct visitor { virtual long visit(long) = 0; };
volatile long sum;
static inline long twice(long x) { return x + (sum & x); }
__attribute__((noipa)) void all(visitor &v, long n) { while (n--) sum += v.visit(n); }
template <class T> struct outer {
	T factor;
	void run(long n) {
		struct inner : visitor {
			T factor;
			inner(T t) : factor(t) {}
			__attribute__((noinline)) long visit(long x) override { return twice(x) * factor; }
		} it(factor);
		all(it, n);
	}
};
int main(int argc, char **) { outer<long>{3}.run(argc); }
"""


class Names(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="sprof-names.")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)

    @classmethod
    @functools.cache
    def built(cls, compiler, *flags):
        path = cls.directory / f"built-{compiler}{''.join(flags)}"
        run(compiler, "-std=c++14", "-O2", *flags, "-Wl,--build-id", "-o", path, HERE / "inlines.cc")
        return path

    def build(self, name, *flags, compiler="g++"):
        """A copy of its own for each test that asks for it."""
        return pathlib.Path(shutil.copy(self.built(compiler, *flags), self.directory / name))

    def assert_equal_names(self, path, n, *debug, inlined=0.3):
        known, different = compare.compare(TOOL, str(path), compare.sample(path, n), *map(str, debug))
        text = "\n".join(f"{address:#x}\n  ours {m}\n  llvm {t}" for address, m, t in different[:5])
        self.assertLessEqual(len(different), (1 - SHARE) * known, f"{len(different)} of {known} differ\n{text}")
        self.assertGreater(known, 0.9 * n)
        # It would not do to agree on nothing: most have files and lines, and many are in inlined calls.
        answers = compare.ours(TOOL, str(path), compare.sample(path, 1000), *map(str, debug))
        self.assertGreater(sum(bool(a) and a[0][2] > 0 for a in answers), 750)
        self.assertGreaterEqual(sum(len(a) > 1 for a in answers), inlined * 1000)
        return answers

    def test_versions_of_dwarf(self):
        for name, *flags in (("gcc5", "-gdwarf-5"), ("gcc4", "-gdwarf-4", "-gz")):
            with self.subTest(name=name):
                self.assert_equal_names(self.build(name, *flags), 4000)

    def test_classes_in_functions(self):
        path, source = self.directory / "class_in_function", self.directory / "class_in_function.cc"
        source.write_text(CLASS_IN_FUNCTION)
        run("g++", "-O2", "-g", "-o", path, source)
        symbol = next(line.split() for line in run("nm", "-S", path).splitlines() if "5inner5visit" in line)
        addresses = list(range(int(symbol[0], 16), int(symbol[0], 16) + int(symbol[1], 16)))
        _, different = compare.compare(TOOL, str(path), addresses)
        self.assertEqual(different, [])
        depths = [len(frames) for frames in compare.ours(TOOL, str(path), addresses)]
        self.assertEqual(set(depths), {1, 2}, "twice is inlined")

    def test_compressed_sections(self):
        """Whatever they are compressed with, it makes no difference."""
        path = self.build("plain", "-g")
        addresses = compare.sample(path, 1000)
        whole = compare.ours(TOOL, str(path), addresses)
        for kind in ("zlib", "zlib-gnu", "zstd"):
            with self.subTest(kind=kind):
                packed = self.directory / kind
                run("objcopy", f"--compress-debug-sections={kind}", path, packed)
                self.assertLess(packed.stat().st_size, 0.8 * path.stat().st_size)
                self.assertEqual(compare.ours(TOOL, str(packed), addresses), whole)

    def test_clang(self):
        self.assert_equal_names(self.build("clang5", "-gdwarf-5", compiler="clang++"), 4000)

    def test_libc(self):
        """By its separate debug file."""
        libc = next(line.split()[2] for line in run("ldd", "/bin/true").splitlines() if "libc.so" in line)
        id = build_id(libc)
        debug = f"/usr/lib/debug/.build-id/{id[:2]}/{id[2:]}.debug"
        self.assert_equal_names(os.path.realpath(libc), 10000, debug, inlined=0.1)

    def test_go(self):
        path = self.directory / "program"
        run("go", "build", "-o", path, HERE / "program.go", env={**os.environ, "GOFLAGS": "", "GOCACHE": str(self.directory / "cache")})
        self.assert_equal_names(path, 4000, inlined=0.05)
        self.assert_go_by_its_own_table(path, 2000)

    def assert_go_by_its_own_table(self, path, n):
        """Without symbols and DWARF there is what Go's runtime needs for its tracebacks, inlined calls too."""
        stripped = self.directory / f"stripped_{path.name}"
        run("strip", "-o", stripped, path)
        addresses = compare.sample(path, n)
        # C's, assembly under its second name, and what no source has a line of, are left out.
        pairs = [
            ([frame[:3] for frame in frames], [frame[:3] for frame in found])
            for frames, found in zip(compare.ours(TOOL, str(path), addresses), compare.ours(TOOL, str(stripped), addresses))
            if frames and all(file.endswith(".go") and "_cgo_" not in file for _, file, _, _ in frames) and not frames[-1][0].endswith(".abi0")]  # fmt: skip
        self.assertGreater(len(pairs), 0.5 * n)
        self.assertGreater(sum(len(frames) > 1 for frames, _ in pairs), 0.05 * n)
        different = [pair for pair in pairs if pair[0] != pair[1]]
        self.assertLessEqual(len(different), (1 - SHARE) * len(pairs), different[:5])
        return stripped, addresses

    def test_go_of_later_versions(self):
        """As Go 1.20 and later have it, which Debian 12 does not: a file that was made by hand (tests/fuzz/make_go_elf.py)."""
        path = HERE.parent / "fuzz" / "corpus" / "elf" / "go.elf"
        outer, other = ("main.outer", "/src/main.go", 10, 9), ("main.other", "/src/main.go", 42, 41)
        inner, innermost, call = ("main.inner", "/src/main.go", 12, 30), ("main.innermost", "/src/main.go", 20, 40), outer
        for offset, frames in ((0, [outer]), (8, [innermost, inner, call]), (16, [inner, call]), (32, [other])):
            with self.subTest(offset=offset):
                self.assertEqual(compare.ours(TOOL, str(path), [0x401000 + offset])[0], frames)

    def test_go_that_another_linker_linked(self):
        """Position-independent, as distributions have it: Go's table is among other data, and the C library's code before Go's."""
        path = self.directory / "pie"
        source = self.directory / "pie.go"
        source.write_text(GO_WITH_C)
        environment = {**os.environ, "GOFLAGS": "", "GO111MODULE": "off", "CGO_ENABLED": "1", "GOCACHE": str(self.directory / "cache")}
        run("go", "build", "-buildmode=pie", "-ldflags=-linkmode=external", "-o", path, source, env=environment)
        self.assertIn("DYN", run("readelf", "-hW", path))
        self.assertNotIn("gopclntab", run("readelf", "-SW", path))
        self.assert_go_by_its_own_table(path, 2000)
        # With symbols and without DWARF: the symbols' names, and the table's lines.
        symbols = self.directory / "symbols"
        run("strip", "--strip-debug", "-o", symbols, path)
        addresses = compare.sample(path, 500)
        lines = sum(bool(frames) and frames[0][2] > 0 for frames in compare.ours(TOOL, str(symbols), addresses))
        self.assertGreater(lines, 400)

    def test_debug_files(self):
        """What is split off, in all the ways in which that is done, makes no difference."""
        path = self.build("whole", "-g")
        addresses = compare.sample(path, 2000)
        whole = compare.ours(TOOL, str(path), addresses)
        debug, stripped, other = (self.directory / name for name in ("split.debug", "stripped", "other"))
        run("objcopy", "--only-keep-debug", path, debug)
        run("objcopy", "--strip-all", f"--add-gnu-debuglink={debug}", path, stripped)
        self.assertEqual(compare.ours(TOOL, str(stripped), addresses, str(debug)), whole)
        self.assertLess(sum(bool(a) and a[0][2] > 0 for a in compare.ours(TOOL, str(stripped), addresses)), 1)
        # Another program's is refused, by the build id; without one, by the CRC in .gnu_debuglink.
        run("objcopy", "--only-keep-debug", self.build("another", "-g", "-DANOTHER", "-O1"), other)
        self.assert_refused(stripped, other)
        anonymous, of_anonymous = self.directory / "anonymous", self.directory / "anonymous.debug"
        run("objcopy", "--remove-section=.note.gnu.build-id", debug, of_anonymous)
        run("objcopy", "--remove-section=.note.gnu.build-id", "--remove-section=.gnu_debuglink", stripped, anonymous)
        run("objcopy", f"--add-gnu-debuglink={of_anonymous}", anonymous)
        self.assertEqual(compare.ours(TOOL, str(anonymous), addresses, str(of_anonymous)), whole)
        self.assert_refused(anonymous, other)

    def assert_refused(self, path, debug):
        done = subprocess.run([TOOL, path, debug], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 1, done.stderr)

    def test_dwz(self):
        """What two programs share is in a third file."""
        first, second, common = (self.directory / name for name in ("first", "second", "common.debug"))
        first = self.build("first", "-gdwarf-4")
        second = self.build("second", "-gdwarf-4", "-DSECOND", "-fno-inline-small-functions")
        addresses = compare.sample(first, 2000)
        whole = compare.ours(TOOL, str(first), addresses)
        run("dwz", "-m", common, "-M", "common.debug", first, second)
        self.assertIn(".gnu_debugaltlink", run("readelf", "-SW", first))
        debug = self.directory / "first.debug"
        run("objcopy", "--only-keep-debug", first, debug)
        self.assertEqual(compare.ours(TOOL, str(first), addresses, str(debug), str(common)), whole)
        self.assertNotEqual(compare.ours(TOOL, str(first), addresses, str(debug)), whole)

    def build_split(self, name, compiler, version, whole=False):
        """A program of two units, of which each is split in two; or, of the same code, not at all."""
        directory = self.directory / name
        directory.mkdir()
        flags = ["-std=c++14", "-O2", f"-gdwarf-{version}", *([] if whole else ["-gsplit-dwarf"]), "-c"]
        # First of the two, so that nothing of the other is at the begin of a table.
        (directory / "first.cc").write_text("static int twice(int x) { return x + x; }\nint first(int x) { int s = 0; while (x--) s += twice(x) * s; return s; }\n")
        run(compiler, *flags, "-o", "first.o", "first.cc", cwd=directory)
        run(compiler, *flags, "-o", "second.o", HERE / "inlines.cc", cwd=directory)
        run(compiler, "-o", "program", "first.o", "second.o", cwd=directory)
        return directory / "program"

    def test_split_dwarf(self):
        """In a file for each unit, and in packages by two tools, makes no difference."""
        # binutils' dwp cannot take DWARF 5.
        for compiler, version, tools in (("g++", 4, ("dwp", "llvm-dwp")), ("g++", 5, ("llvm-dwp",)), ("clang++", 5, ("llvm-dwp",))):
            whole = self.build_split(f"whole-{compiler}{version}", compiler, version, whole=True)
            path = self.build_split(f"split-{compiler}{version}", compiler, version)
            addresses = compare.sample(path, 3000)
            self.assertEqual(compare.sample(whole, 3000), addresses)
            expected = [[(n, f.replace("/whole-", "/split-"), *rest) for n, f, *rest in frames] for frames in compare.ours(TOOL, str(whole), addresses)]
            self.assertTrue(any(frames and frames[0][0].startswith("_Z5first") for frames in expected))
            # llvm-symbolizer 14 misses the ranges of inlined calls in gcc's split units, so it is asked of the whole.
            self.assert_equal_names(whole, 3000)
            with self.subTest(compiler=compiler, version=version):
                self.assertEqual(len(list(path.parent.glob("*.dwo"))), 2)
                self.assertEqual(compare.ours(TOOL, str(path), addresses), expected)
            for tool in tools:
                with self.subTest(compiler=compiler, version=version, tool=tool):
                    package = path.parent / "program.dwp"
                    run(tool, "-e", path, "-o", package, cwd=path.parent)
                    hidden = path.parent / "hidden"
                    hidden.mkdir()
                    files = list(path.parent.glob("*.dwo"))
                    for file in files:
                        file.rename(hidden / file.name)
                    self.assertEqual(compare.ours(TOOL, str(path), addresses), expected)
                    package.unlink()
                    # With neither, the lines are the skeletons'.
                    alone = compare.ours(TOOL, str(path), addresses)
                    self.assertNotEqual(alone, expected)
                    self.assertGreater(sum(bool(a) and a[0][2] > 0 for a in alone), 0.75 * len(alone))
                    for file in files:
                        (hidden / file.name).rename(file)
                    hidden.rmdir()

    def test_split_dwarf_of_another_compilation(self):
        """It has the right path alone: the id in it is another."""
        path = self.build_split("stale", "g++", 5)
        addresses = compare.sample(path, 2000)
        before = compare.ours(TOOL, str(path), addresses)
        run("g++", "-std=c++14", "-O0", "-DOTHER", "-gdwarf-5", "-gsplit-dwarf", "-c", "-o", "second.o", HERE / "inlines.cc", cwd=path.parent)
        after = compare.ours(TOOL, str(path), addresses)
        self.assertNotEqual(after, before)
        # Where it was needed, what is left is the symbol's name and the skeleton's line.
        for old, new in zip(before, after):
            if new != old:
                self.assertEqual([frame[1:] for frame in new], [old[0][1:3] + (0,)] if old else [])

    def test_mini_debug_info(self):
        """Of a stripped file: functions that are in no dynamic symbol table."""
        path = self.build("mini_whole")
        inner, packed, stripped = (self.directory / name for name in ("inner", "inner.xz", "mini"))
        run("objcopy", "--only-keep-debug", path, inner)
        packed.write_bytes(lzma.compress(inner.read_bytes()))
        run("objcopy", "--strip-all", f"--add-section=.gnu_debugdata={packed}", path, stripped)
        addresses = compare.sample(path, 2000)
        whole = compare.ours(TOOL, str(path), addresses)
        self.assertGreater(sum(bool(a) for a in whole), 1900)
        self.assertEqual(compare.ours(TOOL, str(stripped), addresses), whole)


if __name__ == "__main__":
    unittest.main(verbosity=2)
