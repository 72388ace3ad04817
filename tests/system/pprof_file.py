"""Reads a pprof profile (gzip'ed protobuf of proto/profile.proto) with nothing but the standard library, and judges it by the strict rules:
those of `go tool pprof`, Parca and Pyroscope together."""
import gzip
from collections import Counter, namedtuple


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data):
    """Yields (field number, int or bytes)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field reaches behind the end")
            value, at = data[at : at + length], at + length
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        else:
            raise ValueError(f"wire type {kind}")
        yield tag >> 3, value


def _signed(value):
    return value - (1 << 64) if value >= 1 << 63 else value


def _numbers(value):
    """A repeated number: packed or single."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


Mapping = namedtuple("Mapping", "id start limit offset filename build_id has_functions has_filenames has_lines has_inline")
Function = namedtuple("Function", "id name system_name filename start_line")
Location = namedtuple("Location", "id mapping address lines")  # lines: [(Function, line number)], innermost first
Sample = namedtuple("Sample", "locations values labels")  # locations: leaf first; labels: {key: str or int}


def _message(data, single, repeated=()):
    """{field: value} for the numbers in single (default 0), {field: [values]} for those in repeated."""
    out = {number: 0 for number in single}
    out.update({number: [] for number in repeated})
    for number, value in _fields(data):
        if number in repeated:
            out[number].append(value)
        elif number in out:
            out[number] = value
    return out


class Profile:
    def __init__(self, packed):
        if packed[:2] != b"\x1f\x8b":
            raise ValueError(f"not gzip: {packed[:80]!r}")
        top = _message(gzip.decompress(packed), (9, 10, 11, 12, 14, 15), (1, 2, 3, 4, 5, 6, 13))
        self.strings = [text.decode("utf-8") for text in top[6]]  # raises on invalid UTF-8
        self.sample_types = [self._value_type(data) for data in top[1]]
        self.period_type = self._value_type(top[11]) if top[11] else None
        self.period, self.time_ns, self.duration_ns = _signed(top[12]), _signed(top[9]), _signed(top[10])
        self.default_sample_type = self.strings[top[14]]
        self.doc_url = self.strings[top[15]]
        self.comments = [self.strings[i] for value in top[13] for i in _numbers(value)]
        self.mappings = [self._mapping(data) for data in top[3]]
        self.functions = [self._function(data) for data in top[5]]
        self._mapping_by_id = {m.id: m for m in self.mappings}
        self._function_by_id = {f.id: f for f in self.functions}
        self.locations = [self._location(data) for data in top[4]]
        self._location_by_id = {x.id: x for x in self.locations}
        self.samples = [self._sample(data) for data in top[2]]

    @classmethod
    def read(cls, path):
        with open(path, "rb") as file:
            return cls(file.read())

    def _value_type(self, data):
        m = _message(data, (1, 2))
        return self.strings[m[1]], self.strings[m[2]]

    def _mapping(self, data):
        m = _message(data, range(1, 11))
        return Mapping(m[1], m[2], m[3], m[4], self.strings[m[5]], self.strings[m[6]], *(bool(m[i]) for i in range(7, 11)))

    def _function(self, data):
        m = _message(data, range(1, 6))
        return Function(m[1], self.strings[m[2]], self.strings[m[3]], self.strings[m[4]], _signed(m[5]))

    def _location(self, data):
        m = _message(data, (1, 2, 3), (4,))
        lines = []
        for line in m[4]:
            n = _message(line, (1, 2))
            lines.append((self._function_by_id[n[1]], _signed(n[2])))  # KeyError: a dangling reference
        return Location(m[1], self._mapping_by_id[m[2]] if m[2] else None, m[3], lines)

    def _sample(self, data):
        m = _message(data, (), (1, 2, 3))
        locations = [self._location_by_id[i] for value in m[1] for i in _numbers(value)]
        values = [_signed(v) for value in m[2] for v in _numbers(value)]
        labels = {}
        for label in m[3]:
            n = _message(label, (1, 2, 3, 4))
            key = self.strings[n[1]]
            if key in labels:
                raise ValueError(f"two labels {key}")
            if n[2] and n[3]:
                raise ValueError(f"label {key} is both text and number")
            labels[key] = self.strings[n[2]] if n[2] else _signed(n[3])
        return Sample(locations, values, labels)

    def validate(self):
        """Raises ValueError for what one of the readers would refuse."""

        def need(condition, what):
            if not condition:
                raise ValueError(what)

        need(self.strings and self.strings[0] == "", "string_table[0] is not empty")
        need(len(set(self.strings)) == len(self.strings), "a string stands twice in the table")
        need(self.sample_types == [("samples", "count"), ("cpu", "nanoseconds")], f"sample types {self.sample_types}")
        need(self.default_sample_type == "cpu", "default_sample_type is not cpu")
        need(self.period_type == ("cpu", "nanoseconds") and self.period > 0, "period")
        need(self.time_ns > 10**18 and self.duration_ns > 0, "time_nanos or duration_nanos")
        need(not self.doc_url or "://" in self.doc_url, "doc_url is not absolute")
        for name, things in (("mapping", self.mappings), ("function", self.functions), ("location", self.locations)):
            need([x.id for x in things] == list(range(1, len(things) + 1)), f"{name} ids are not sequential from 1")
        for m in self.mappings:
            need(m.start < m.limit, f"mapping {m}")
            need(all(c in "0123456789abcdef" for c in m.build_id), f"build id {m.build_id}")
        for location in self.locations:
            m = location.mapping
            need(m is None or m.start <= location.address < m.limit, f"location {location.address:#x} outside of its mapping")
            if m and m.has_functions:
                need(location.lines, f"{m.filename} has_functions, but {location.address:#x} has no name")
        for function in self.functions:
            need(function.name, "a function without name")
        for sample in self.samples:
            need(len(sample.values) == 2, "a sample without two values")
            need(sample.locations, "a sample without locations")
            need(sample.values[0] > 0 and sample.values[1] >= 0, f"values {sample.values}")
            need(not any(key.startswith("pprof::") for key in sample.labels), "a reserved label")
            need({"pid", "tid", "comm"} <= set(sample.labels), f"labels {sample.labels}")
        return self

    def count(self):
        return sum(s.values[0] for s in self.samples)

    def cpu_ns(self):
        return sum(s.values[1] for s in self.samples)

    def by_label(self, key):
        """{label: [count, cpu_ns]}"""
        out = {}
        for s in self.samples:
            entry = out.setdefault(s.labels.get(key), [0, 0])
            entry[0] += s.values[0]
            entry[1] += s.values[1]
        return out

    def by_tid(self):
        return {int(tid): values for tid, values in self.by_label("tid").items()}

    def leaves(self):
        """Counter of samples by the innermost function (or "MAPPING+unnamed")."""
        out = Counter()
        for s in self.samples:
            out[frame_name(s.locations[0])] += s.values[0]
        return out

    def inclusive(self):
        """Counter of samples by each function that is anywhere in the stack."""
        out = Counter()
        for s in self.samples:
            for name in {name for location in s.locations for name in frame_names(location)}:
                out[name] += s.values[0]
        return out

    def stacks(self):
        """[([function, ...] leaf first, count)]"""
        return [([n for x in s.locations for n in frame_names(x)], s.values[0]) for s in self.samples]


def frame_names(location):
    if location.lines:
        return [function.name for function, _ in location.lines]
    return [(location.mapping.filename if location.mapping else "?") + "+unnamed"]


def frame_name(location):
    return frame_names(location)[0]
