"""Who may do what: root and the group sprof everything; everyone else, where the socket is open to all, what is wholly their own."""
import grp
import os
import shutil
import subprocess
import time

import harness
from harness import PARANOID, Case, Daemon, Profile, Target

GROUP = 64999  # where the machine has no group sprof, the daemon is shown an /etc/group that has this one
ALICE, BOB = 64001, 64002


def with_group(directory):
    """A command prefix under which a group sprof exists, and its number."""
    try:
        return [], grp.getgrnam("sprof").gr_gid
    except KeyError:
        path = os.path.join(directory, "group")
        with open("/etc/group") as before, open(path, "w") as after:
            after.write(before.read() + f"sprof:x:{GROUP}:\n")
        os.chmod(path, 0o644)
        return ["unshare", "-m", "sh", "-c", f'mount --bind "{path}" /etc/group && exec "$@"', "sh"], GROUP


class Closed(Case):
    """The default: socket 0660 root:sprof."""

    def setUp(self):
        directory = harness.tempfile.mkdtemp(prefix="sprof-test.")
        self.addCleanup(shutil.rmtree, directory)
        prefix, self.group = with_group(directory)
        self.daemon = Daemon(self, prefix=prefix, directory=directory)

    def test_the_socket(self):
        st = os.stat(self.daemon.socket)
        self.assertEqual((st.st_mode & 0o777, st.st_uid, st.st_gid), (0o660, 0, self.group))

    def test_a_member_may_do_everything(self):
        target = Target(self, "spin")  # of root
        for prefix in (harness.as_user(ALICE, groups=[self.group]), harness.as_user(ALICE, gid=self.group)):
            self.daemon.ok("attach", target.pid, "--frequency=999", prefix=prefix)
            harness.let_run(target.pid, 0.4)
            profile = Profile(self.daemon.ok("pull", target.pid, "--output=-", prefix=prefix, text=False)).validate()
            self.assertGreater(profile.inclusive()["a_heavy"], 100)
            self.daemon.ok("detach", target.pid, prefix=prefix)

    def test_a_stranger_may_do_nothing(self):
        own = Target(self, "spin", user=ALICE, path=public_copy(self))
        for args in (("status",), ("attach", own.pid), ("pull", own.pid, "--output=-")):
            self.assert_refused(self.daemon.ctl(*args, user=ALICE), "permission|group sprof")


def public_copy(test, name="spin"):
    """A target that any user may run, wherever the build is."""
    directory = harness.tempfile.mkdtemp(prefix="sprof-test.")
    test.addCleanup(shutil.rmtree, directory)
    os.chmod(directory, 0o755)
    path = os.path.join(directory, name)
    shutil.copy(harness.TARGETS / name, path)
    os.chmod(path, 0o755)
    return path


class Open(Case):
    """SocketMode=0666: everyone may ask, each is given what is theirs."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls, config="[daemon]\nsocket_mode = 0666\n")

    def setUp(self):
        self.program = public_copy(self)
        self.paranoid = PARANOID.read_text()
        self.addCleanup(PARANOID.write_text, self.paranoid)

    def refuse(self, *args, user, words="yours|by somebody else"):
        done = self.daemon.ctl(*args, user=user)
        self.assert_refused(done, words)

    def test_ones_own(self):
        target = Target(self, "spin", user=ALICE, path=self.program)
        self.daemon.ok("attach", target.pid, "--frequency=999", user=ALICE)
        harness.let_run(target.pid, 0.4)
        profile = Profile(self.daemon.ok("pull", target.pid, "--output=-", user=ALICE, text=False)).validate()
        self.assertGreater(profile.inclusive()["a_heavy"], 100)
        self.daemon.ok("rate", target.pid, 499, user=ALICE)
        self.assertIn(str(target.pid), self.daemon.ok("list", user=ALICE))
        self.assertEqual(harness.number(self.daemon.target(target.pid), "owner_uid"), ALICE)
        self.daemon.ok("detach", target.pid, user=ALICE)

    def test_not_that_of_others(self):
        of_root, of_alice = Target(self, "spin"), Target(self, "spin", user=ALICE, path=self.program)
        self.daemon.attach(of_root.pid, 999)
        self.daemon.ok("attach", of_alice.pid, user=ALICE)
        for target in (of_root, of_alice):
            for command in (("attach", target.pid), ("pull", target.pid, "--output=-"), ("pull", target.pid, "--seconds=1", "--output=-"), ("detach", target.pid),
                            ("rate", target.pid, 99)):  # fmt: skip
                self.refuse(*command, user=BOB)
        self.assertEqual(self.daemon.target(of_root.pid)["state"], harness.LIVE)
        # Nor is it told of them.
        seen = self.daemon.ok("list", "--json", user=BOB) + self.daemon.ok("status", "--json", user=BOB)
        self.assertNotIn(str(of_root.pid), seen)
        self.assertNotIn(str(of_alice.pid), seen)
        fetched = subprocess.run(
            [*harness.as_user(BOB), "curl", "-sS", "--unix-socket", self.daemon.socket, "http://x/metrics"],
            capture_output=True, text=True, check=True, timeout=20)  # fmt: skip
        self.assertNotRegex(fetched.stdout, rf"\b({of_root.pid}|{of_alice.pid})\b")

    def test_what_an_administrator_attached(self):
        """Its user may pull the profile of what is wholly theirs, but not change an administrator's sampling."""
        target = Target(self, "spin", user=ALICE, path=self.program)
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 0.4)
        profile = Profile(self.daemon.ok("pull", target.pid, "--output=-", user=ALICE, text=False)).validate()
        self.assertGreater(profile.inclusive()["a_heavy"], 100)
        for command in (("detach", target.pid), ("rate", target.pid, 99)):
            self.refuse(*command, user=ALICE, words="administrator")
        self.assertEqual(harness.number(self.daemon.target(target.pid), "frequency_hz"), 999)

    def test_so_many_pulls_at_once(self):
        """One user cannot take the daemon for themselves."""
        target = Target(self, "spin", user=ALICE, path=self.program)
        pulls = [
            subprocess.Popen([*harness.as_user(ALICE), "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", self.daemon.socket,
                              f"http://x/debug/pprof/profile?pid={target.pid}&seconds=4"], stdout=subprocess.PIPE, text=True)
            for _ in range(20)]  # fmt: skip
        codes = [pull.communicate(timeout=30)[0] for pull in pulls]
        self.assertEqual((codes.count("200"), codes.count("503")), (16, 4), codes)

    def test_the_curl_line_too(self):
        target = Target(self, "spin")
        url = f"http://localhost/debug/pprof/profile?pid={target.pid}&seconds=1"
        asked = subprocess.run(
            [*harness.as_user(BOB), "curl", "-sS", "--unix-socket", self.daemon.socket, "-w", "%{http_code}", url],
            capture_output=True, text=True, timeout=20)  # fmt: skip
        self.assertTrue(asked.stdout.endswith("403"), asked.stdout[:200])

    def test_not_a_set_id_process(self):
        os.chown(self.program, 0, 0)
        os.chmod(self.program, 0o4755)
        target = Target(self, "spin", user=ALICE, path=self.program)
        self.refuse("attach", target.pid, user=ALICE)

    def test_not_one_that_may_not_be_dumped(self):
        target = Target(self, "spin", "--undumpable", user=ALICE, path=self.program)
        self.refuse("attach", target.pid, user=ALICE)
        self.daemon.attach(target.pid)  # but root may
        self.daemon.ok("detach", target.pid)

    def test_not_one_of_another_group(self):
        process = subprocess.Popen([*harness.as_user(ALICE, gid=BOB), self.program], stdout=subprocess.PIPE)
        self.addCleanup(harness.end, process)
        process.stdout.readline()
        self.refuse("attach", process.pid, user=ALICE)

    def test_not_one_with_capabilities(self):
        process = subprocess.Popen(
            ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", "--inh-caps=+net_raw", "--ambient-caps=+net_raw", self.program],
            stdout=subprocess.PIPE)  # fmt: skip
        self.addCleanup(harness.end, process)
        process.stdout.readline()
        self.refuse("attach", process.pid, user=ALICE)

    def test_kernel_frames_as_the_kernel_would_show_them(self):
        program = public_copy(self, "syscaller")
        target = Target(self, "syscaller", "--what=0", user=ALICE, path=program)
        self.daemon.ok("attach", target.pid, "--frequency=999", user=ALICE)
        harness.let_run(target.pid, 0.5)

        def kernel_frames(user):
            packed = self.daemon.ok("pull", target.pid, "--output=-", text=False, user=user)
            profile = Profile(packed).validate()
            frames = [x for s in profile.samples for x in s.locations if x.address >= 1 << 63]
            self.assertGreater(profile.count(), 100)
            return len(frames), any(m.filename.startswith("[kernel") for m in profile.mappings)

        PARANOID.write_text("2")
        self.assertEqual(kernel_frames(ALICE), (0, False))
        self.assertGreater(kernel_frames(None)[0], 0, "root sees them")
        PARANOID.write_text("1")
        self.assertGreater(kernel_frames(ALICE)[0], 0)
        PARANOID.write_text("2")
        self.assertEqual(kernel_frames(ALICE), (0, False))

    def test_access_is_lost_with_what_gave_it(self):
        """A process that was one's own when attached, and is set-id now, gives no more of itself."""
        shutil.copy(harness.TARGETS / "spin", self.program)
        os.chown(self.program, 0, 0)
        os.chmod(self.program, 0o4755)
        execer = public_copy(self, "execer")
        target = Target(self, "execer", "--", self.program, user=ALICE, path=execer)
        self.daemon.ok("attach", target.pid, user=ALICE)
        target.signal(harness.signal.SIGUSR1)
        target.line()
        time.sleep(2.5)
        done = self.daemon.ctl("pull", target.pid, "--output=-", user=ALICE, text=False)
        if done.returncode == 0:
            self.assertEqual(Profile(done.stdout).inclusive()["a_heavy"], 0)
        self.refuse("attach", target.pid, user=ALICE)


if __name__ == "__main__":
    harness.main()
