"""Functions of the executable, its libraries, the kernel and the vdso have their names; a stripped file can be named by pprof."""
import shutil
import signal
import subprocess

import harness
from harness import Case, Daemon, Target, pprof


def chain(stack, *names):
    """Whether these functions follow one another, leaf first."""
    at = stack.index(names[0]) if names[0] in stack else -1
    return at >= 0 and stack[at : at + len(names)] == list(names)


class Names(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def profile(self, target, hz=999, seconds=1.5):
        self.daemon.attach(target.pid, hz)
        harness.let_run(target.pid, seconds * 0.7)
        return self.daemon.pull(target.pid)

    def assert_chain(self, profile, share, *names):
        hits = sum(count for stack, count in profile.stacks() if chain(stack, *names))
        self.assertGreater(hits, share * profile.count(), f"{names} in {hits} of {profile.count()} samples")

    def mapping(self, profile, name):
        found = [m for m in profile.mappings if m.filename.split("/")[-1].startswith(name)]
        self.assertTrue(found, f"no mapping of {name} in {[m.filename for m in profile.mappings]}")
        return found[0]

    def test_the_executable(self):
        for program in ("spin", "spin_fixed"):  # position-independent, and not
            with self.subTest(program=program):
                profile = self.profile(Target(self, program))
                self.assert_chain(profile, 0.4, "a_heavy", "drive", "thread_main", "run", "main")
                self.assert_chain(profile, 0.25, "b_leaf", "b_mid", "drive", "thread_main", "run", "main")
                self.assertTrue(profile.mappings[0].filename.endswith("/" + program))
                self.assertEqual(profile.mappings[0].build_id, build_id(harness.TARGETS / program))

    def test_a_deep_stack(self):
        for depth in (10, 100, 900):
            with self.subTest(depth=depth):
                profile = self.profile(Target(self, "deep", f"--depth={depth}"), 499, 1)
                exact = sum(count for stack, count in profile.stacks() if stack.count("deep_frame") == depth)
                self.assertGreater(exact, 0.95 * profile.count())
                self.assert_chain(profile, 0.95, "deep_leaf", "deep_frame")

    def test_deeper_than_a_record(self):
        for program in ("deep", "deep_cfi"):  # by frame pointer, and by unwind table
            with self.subTest(program=program):
                target = Target(self, program, "--depth=2000")
                profile = self.profile(target, 499, 1)
                ends = {e["name"]: int(e["count"]) for e in self.daemon.target(target.pid)["stack_ends"]}
                self.assertGreater(ends.get("cut", 0), 0.9 * sum(ends.values()))
                self.assertTrue(all(sample.labels.get("stack_end") == "cut" for sample in profile.samples if len(sample.locations) > 1000))
                ends = [stack for stack, _ in profile.stacks() if "[LeftOut]" in stack]
                self.assertGreater(len(ends), 0)
                for stack in ends:
                    between = stack.index("[LeftOut]")
                    self.assertGreater(stack[:between].count("deep_frame"), 1000)
                    self.assertGreater(stack[between:].count("deep_frame"), 240)
                    self.assertEqual(("main", "_start"), (next(name for name in stack[between + 1 :] if name != "deep_frame"), stack[-1]))

    def test_deeper_than_is_walked(self):
        target = Target(self, "deep", "--depth=9000")
        profile = self.profile(target, 499, 1)
        ends = {e["name"]: int(e["count"]) for e in self.daemon.target(target.pid)["stack_ends"]}
        self.assertGreater(ends.get("too_deep", 0), 0.9 * sum(ends.values()))
        self.assertGreater(max(stack.count("deep_frame") for stack, _ in profile.stacks()), 1000)

    def test_the_kernel(self):
        profile = self.profile(Target(self, "syscaller", "--what=0"))
        kernel = self.mapping(profile, "[kernel.kallsyms]")
        self.assertTrue(kernel.has_functions)
        found = profile.inclusive()
        self.assertGreater(found["read_zero"] + found["read_iter_zero"], 0.7 * profile.count(), found.most_common(12))
        # One stack from the kernel into the program. The caller of a libc function without frame is not in it: that needs CFI.
        self.assertTrue(
            any({"read_zero", "read_iter_zero"} & set(s) and "main" in s for s, _ in profile.stacks()),
            profile.stacks()[:5],
        )
        self.assertGreater(found["main"], 0.7 * profile.count(), found.most_common(12))

    def test_system_calls_and_libc(self):
        profile = self.profile(Target(self, "syscaller", "--what=1"))
        found = profile.inclusive()
        self.assertGreater(found["syscall"], 0.3 * profile.count(), found.most_common(12))
        libc = self.mapping(profile, "libc.so.6")
        self.assertRegex(libc.build_id, "^[0-9a-f]{40}$")

    def test_the_vdso(self):
        profile = self.profile(Target(self, "syscaller", "--what=2"))
        named = sum(
            s.values[0] for s in profile.samples
            if s.locations[0].mapping and s.locations[0].mapping.filename == "[vdso]" and s.locations[0].lines)  # fmt: skip
        self.assertGreater(named, 0.3 * profile.count(), profile.leaves().most_common(12))
        # The leaf is often one of its helpers, which have no symbols.
        self.assertGreater(profile.inclusive()["__vdso_clock_gettime"], 0.3 * profile.count(), profile.stacks()[:5])

    def test_a_library_opened_later(self):
        target = Target(self, "loader", harness.TARGETS / "libplugin.so")
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 0.5)
        target.signal(signal.SIGUSR1)
        self.assertTrue(target.line()["loaded"])
        harness.let_run(target.pid, 1)
        profile = self.daemon.pull(target.pid)
        self.assertGreater(profile.inclusive()["burn_before"], 200)
        self.assertTrue(any(chain(s, "plugin_inner", "plugin_burn", "burn_through", "main") for s, _ in profile.stacks()))
        inner = profile.inclusive()["plugin_inner"]
        self.assertGreater(inner, 300, profile.leaves().most_common(8))
        self.assertTrue(self.mapping(profile, "libplugin.so").has_functions)

    def test_a_deleted_file(self):
        path = self.daemon.directory / "deleted_spin"
        shutil.copy(harness.TARGETS / "spin", path)
        target = Target(self, "spin", path=path)
        path.unlink()
        profile = self.profile(target)
        self.assert_chain(profile, 0.4, "a_heavy", "drive")
        self.assertEqual(profile.mappings[0].filename, str(path), "' (deleted)' belongs to no name")

    def test_names_after_the_exit(self):
        path = self.daemon.directory / "short_spin"
        shutil.copy(harness.TARGETS / "spin", path)
        target = Target(self, "spin", "--seconds=1", path=path)
        self.daemon.attach(target.pid, 999)
        path.unlink()
        target.process.wait(30)
        self.daemon.settle(target.pid)
        self.assert_chain(self.daemon.pull(target.pid), 0.4, "a_heavy", "drive")

    @staticmethod
    def symbols(program):
        return subprocess.run(["nm", "--defined-only", harness.TARGETS / program], capture_output=True, text=True, check=True).stdout.splitlines()

    def test_a_stripped_file_is_named_by_pprof(self):
        path = self.daemon.directory / "stripped_spin"
        subprocess.run(["strip", "-o", path, harness.TARGETS / "spin"], check=True)
        profile_path = self.daemon.directory / "stripped.pb.gz"
        target = Target(self, "spin", path=path)
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 1)
        packed = self.daemon.pull_bytes(target.pid)
        profile_path.write_bytes(packed)
        profile = harness.Profile(packed).validate()
        main = profile.mappings[0]
        self.assertFalse(main.has_functions, "a stripped file has no names, and pprof must be let to look for them")
        self.assertEqual(main.build_id, build_id(harness.TARGETS / "spin"))
        # Its functions are told apart by where they begin.
        starts = {line.split()[2]: int(line.split()[0], 16) for line in self.symbols("spin")}
        found = profile.inclusive()
        self.assertEqual(found["a_heavy"], 0)
        for name, percent in (("a_heavy", 50), ("b_leaf", 33), ("main", 100)):
            self.assert_near(100 * found[f"stripped_spin+{starts[name]:#x}"] / profile.count(), percent, 0, 10, found.most_common(8))
        # Given the unstripped file, pprof finds them. (By $PPROF_BINARY_PATH too, where its build-ids are read: the pprof of
        # Go 1.19 says "build-id mismatch" to every file that it looks up by one.)
        path.unlink()
        text = pprof("-top", "-sample_index=samples", harness.TARGETS / "spin", profile_path)
        shares = {line.split()[-1]: float(line.split()[1].rstrip("%")) for line in text.splitlines() if line.endswith(("a_heavy", "b_leaf", "c_light"))}
        self.assert_near(shares["a_heavy"], 50, 0, 10, text)
        self.assert_near(shares["b_leaf"], 33, 0, 10, text)
        self.assert_near(shares["c_light"], 17, 0, 10, text)


def build_id(path):
    notes = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
    return notes.split("Build ID:")[1].split()[0]


if __name__ == "__main__":
    harness.main()
