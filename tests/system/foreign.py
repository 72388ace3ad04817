"""Programs that nobody here wrote, as Debian ships them, put under load that does not end: each starter returns the pid of the process that works."""
import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import harness

PYTHON = """
import json, re
def work(n):
    data = [{"k%d" % (i % 37): [i, str(i), {"x": i * 1.5}]} for i in range(n)]
    text = json.dumps(sorted(data, key=lambda d: re.sub("k", "", next(iter(d)))))
    return json.loads(text)
while True: work(200)
"""
PERL = r"""
sub f { my $n = shift; return $n < 2 ? $n : f($n - 1) + f($n - 2) }
while (1) { my %h; $h{$_} = f(10) for 1..50; my $x = join ",", sort { $h{$a} <=> $h{$b} } keys %h; $x =~ s/1(\d+)/$1/g; }
"""
RUBY = r"""
def fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2)
loop do
  words = (1..2000).map { |i| "w#{i * 7919 % 1009}" }
  words.group_by { |w| w[-1] }.transform_values { |v| v.sort.uniq.join(",").gsub(/w(\d)/) { $1 } }
  fib(15)
end
"""
SQL = """with recursive c(x) as (select 1 union all select x + 1 from c where x < 100000000)
select x % 10, count(*), sum(x * x % 7), max(hex(x)), group_concat(substr(printf('%d', x), 1, 1)) from c where x % 5 < 3 group by 1;"""
NODE = """
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) }
class A { constructor(i) { this.i = i } f(x) { return x.map(v => v * this.i).filter(v => v % 3).reduce((a, b) => a + b, 0) } }
for (let i = 0;; i++) { fib(15); new A(i).f([1, 2, 3, 4, 5, 6, 7]); if (i % 50 == 0) JSON.parse(JSON.stringify([...Array(300).keys()])); 'abcabc'.replace(/b(c)/g, (m, c) => c + i) }
"""
# fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2), as WebAssembly: a type, a function, its export, its code.
WASM = """
const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 102, 105, 98, 0, 0,
  10, 30, 1, 28, 0, 32, 0, 65, 2, 72, 4, 127, 32, 0, 5, 32, 0, 65, 1, 107, 16, 0, 32, 0, 65, 2, 107, 16, 0, 106, 11, 11])
const { fib } = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports
if (fib(20) != 6765) process.exit(1)
for (;;) fib(20)
"""
JAVA = """
import java.util.*;
import java.util.stream.*;
public class Busy {
    static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
    public static void main(String[] a) {
        for (int i = 0; ; i++) {
            fib(15);
            Map<String, Integer> m = new TreeMap<>();
            for (int j = 0; j < 200; j++) m.merge("k" + (j * 7919 % 101), j, Integer::sum);
            IntStream.range(0, 500).boxed().map(x -> x * 3).filter(x -> x % 2 == 0).collect(Collectors.toList()).hashCode();
            String.format("%d %s", i, m.size()).replaceAll("[0-9]", "x");
        }
    }
}
"""
LUA = """
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
while true do
  fib(18)
  local t = {}
  for i = 1, 2000 do t[i] = tostring(i * 7919 % 1009) end
  table.sort(t)
  table.concat(t, ","):gsub("1(%d)", "%1")
end
"""
POSTGRES_JIT = "set jit_above_cost = 0; set jit_inline_above_cost = 0; set jit_optimize_above_cost = 0;\n" + 100000 * (
    "select sum(x * x % 7 + case when x % 3 = 0 then sqrt(x) else 2.5 * x end), count(*) from generate_series(1, 300000) x where x % 5 <> 1;\n")  # fmt: skip


def c_source(functions):
    lines = ["int f0(int a, int b) { return a + b; }"]
    for i in range(1, functions):
        lines.append(
            f"int f{i}(int a, int b) {{ int s = 0; for (int i = 0; i < a; i++) switch (i % 7) {{ case 0: s += b; break; case 1: s *= a; break;"
            f" case 2: s ^= b << 3; break; default: s -= i; }} return s + f{i - 1}(a - 1, b); }}")
    return "\n".join(lines)


def cpp_source(types):
    lines = ["#include <algorithm>", "#include <functional>", "#include <map>", "#include <regex>", "#include <string>", "#include <vector>"]
    for i in range(types):
        lines.append(
            f"struct T{i} {{ int a[{i % 7 + 1}]; std::string s; bool operator<(const T{i} &o) const {{ return a[0] < o.a[0] || s < o.s; }} }};\n"
            f"int f{i}(std::map<T{i}, std::vector<T{i}>> &m, T{i} t) {{ m[t].push_back(t); auto &v = m[t]; std::sort(v.begin(), v.end());"
            f" std::function<int(int)> g = [&](int x) {{ return x + v.back().a[0]; }}; return g(int(m.size())); }}")
    return "\n".join(lines)


def go_source(functions):
    lines = ["package many", "import \"fmt\"", "func f0(a map[string]int, b int) int { return b }"]
    for i in range(1, functions):
        lines.append(
            f"func f{i}(a map[string]int, b int) int {{ s := 0; for k, v := range a {{ switch v % 7 {{ case 0: s += b; case 1: s *= len(k); default: s -= {i} }} }};"
            f" defer func() {{ a[fmt.Sprint(s)] = b }}(); return s + f{i - 1}(a, b+s) }}")
    return "\n".join(lines)


class Foreign:
    """A mixin of harness.Case."""

    def scratch(self):
        """A folder of this test's own, which a user without rights may enter."""
        if not hasattr(self, "scratch_"):
            self.scratch_ = Path(tempfile.mkdtemp(prefix="sprof-foreign."))
            self.scratch_.chmod(0o755)
            self.addCleanup(shutil.rmtree, self.scratch_, ignore_errors=True)
        return self.scratch_

    def start(self, *argv, **more):
        process = subprocess.Popen(
            list(map(str, argv)), **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.scratch(), "preexec_fn": harness.give_way, **more})
        self.addCleanup(harness.end, process)
        return process

    def file(self, name, content):
        path = self.scratch() / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def python(self):
        return self.start("/usr/bin/python3", "-c", PYTHON).pid

    def perl(self):
        return self.start("perl", "-e", PERL).pid

    def ruby(self):
        return self.start("ruby", "-e", RUBY).pid

    def sqlite(self):
        return self.start("sqlite3", ":memory:", SQL).pid

    def luajit(self):
        return self.start("luajit", "-e", LUA).pid

    def xz(self):
        data = self.file("random", os.urandom(1 << 20) * 60)
        return self.start("xz", "-9", "-T2", "--block-size=4MiB", "-k", "-c", data).pid

    def zstd(self):
        data = self.file("random", os.urandom(1 << 20) * 4 + Path("/usr/bin/python3").resolve().read_bytes() * 12)
        return self.start("zstd", "-19", "-T2", "-c", data).pid

    def gcc(self, compiler, source):
        """The compiler proper, as its driver would start it."""
        said = subprocess.run([compiler, "-###", "-O2", "-S", source, "-o", "/dev/null"], capture_output=True, text=True, check=True).stderr
        return self.start(*next(shlex.split(line) for line in said.splitlines() if "/cc1" in line)).pid

    def cc1(self):
        return self.gcc("gcc", self.file("many.c", c_source(8000)))

    def cc1plus(self):
        return self.gcc("g++", self.file("many.cc", cpp_source(300)))

    def clang(self):
        return self.start("clang", "-O2", "-c", self.file("many.c", c_source(8000)), "-o", "/dev/null").pid

    def git(self):
        """Takes in an endless history."""
        repository = self.scratch() / "repository"
        subprocess.run(["git", "init", "-q", repository], check=True)
        process = self.start("git", "fast-import", "--quiet", stdin=subprocess.PIPE, bufsize=0, cwd=repository)

        def feed():
            try:
                for i in range(1000000):
                    text = "".join(f"line {j * i % 1009} of {i}\n" for j in range(400)).encode()
                    process.stdin.write(
                        b"commit refs/heads/main\ncommitter a <a@example.org> %d +0000\ndata 1\nx\nM 644 inline file%d\ndata %d\n%s\n"
                        % (i + 1, i % 50, len(text), text))
            except (BrokenPipeError, ValueError):
                pass

        threading.Thread(target=feed, daemon=True).start()
        return process.pid

    def redis(self):
        path = self.scratch() / "redis.sock"
        server = self.start("redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no")
        harness.wait_for(path.exists, 10, "redis-server does not listen")
        self.start("redis-benchmark", "-s", path, "-l", "-q", "-t", "set,get,lpush,zadd,mset", "-P", "4", "-c", "20")
        return server.pid

    def nginx(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = self.scratch()
        self.file("page.html", "<p>text</p>\n" * 500)
        paths = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        configuration = self.file(
            "nginx.conf",
            f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ {paths} access_log {folder}/access.log; gzip on; gzip_types *; keepalive_requests 100000000; server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n")
        server = self.start("nginx", "-c", configuration, "-e", folder / "error.log")

        def listens():
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        harness.wait_for(listens, 10, "nginx does not listen")
        self.start("ab", "-q", "-k", "-c", "8", "-t", "10000", "-n", "100000000", "-H", "Accept-Encoding: gzip", f"http://127.0.0.1:{port}/page.html")
        return server.pid

    def postgres_server(self, *options, **environment):
        """Of the user `nobody`, since PostgreSQL refuses to run as root; (folder of its programs, what a client takes to find it)."""
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        data = self.scratch() / "data"
        data.mkdir()
        os.chown(data, 65534, 65534)
        os.chown(self.scratch(), 65534, 65534)
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "nobody", "--auth=trust", "--no-sync", "--no-instructions"],
            check=True, stdout=subprocess.DEVNULL, cwd=data, **nobody)  # fmt: skip
        server = self.start(
            programs / "postgres", "-D", data, "-k", self.scratch(), "-c", "listen_addresses=", "-c", "fsync=off", "-c", "autovacuum=off", *options,
            cwd=data, env={**os.environ, **environment}, **nobody)  # fmt: skip
        harness.wait_for((self.scratch() / ".s.PGSQL.5432").exists, 20, "postgres does not listen")
        harness.wait_for(
            lambda: subprocess.run([programs / "pg_isready", "-q", "-h", self.scratch()]).returncode == 0, 20, "postgres does not answer")
        return server, programs, ["-h", self.scratch(), "-U", "nobody", "postgres"]

    def postgres_backend(self, server, application):
        """The process that serves a client that stays: its title has the user and the database."""
        found = set()

        def serving():
            for child in harness.children_of(server.pid):
                with contextlib.suppress(OSError):
                    if b" nobody postgres [local]" in Path(f"/proc/{child}/cmdline").read_bytes():
                        yield child

        def find():
            nonlocal found
            before, found = found, set(serving())
            time.sleep(0.3)
            return next(iter(before & found), None)

        return harness.wait_for(find, 10, f"no backend serves {application}")

    def postgres(self):
        server, programs, client = self.postgres_server()
        subprocess.run([programs / "pgbench", "-i", "-q", "-s", "2", *client], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.start(programs / "pgbench", "-n", "-T", "10000", "-c", "1", *client)
        return self.postgres_backend(server, "pgbench")

    def postgres_jit(self):
        server, programs, client = self.postgres_server()
        self.start(programs / "psql", "-q", *client, "-f", self.file("jit.sql", POSTGRES_JIT))
        return self.postgres_backend(server, "psql")

    def go(self):
        """Go's own compiler."""
        tool = subprocess.run(["go", "tool", "-n", "compile"], capture_output=True, text=True, check=True, cwd=self.scratch()).stdout.strip()
        return self.start(tool, "-o", "/dev/null", "-p", "many", self.file("many.go", go_source(6000))).pid

    def rust(self):
        """ripgrep."""
        data = self.file("random", os.urandom(1 << 20) * 20)
        return self.start("rg", "-a", "-c", "--no-mmap", "([a-f0-9]{2,}|[g-m]+z).{0,3}(q|[r-t]+)", *[data] * 2000).pid

    def node(self, *options):
        return self.start("node", *options, "-e", NODE).pid

    def wasm(self):
        """V8's WebAssembly."""
        return self.start("node", "-e", WASM).pid

    def java(self, *options):
        self.file("Busy.java", JAVA)
        subprocess.run(["javac", "Busy.java"], check=True, cwd=self.scratch())
        return self.start("java", "-Xmx200m", *options, "Busy").pid
