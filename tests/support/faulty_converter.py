"""A converter of a stranger's, installed by its metadata in a folder on PYTHONPATH, that does what $FAULT says."""

from __future__ import annotations

from pathlib import Path

_MODULE = """
import os, signal, sys
from tensorquay_convert import errors

class Converter:
    kinds, extra = (), ""

    def open(self, job, kind, say):
        fault = os.environ["FAULT"]
        say("about to " + fault)
        return globals()[fault](job)

def segv(job):
    os.kill(os.getpid(), signal.SIGSEGV)

def killed(job):
    os.kill(os.getpid(), signal.SIGKILL)

def loop(job):
    while True:
        pass

def hog(job):
    kept = []
    while True:
        kept.append(b"x" * (4 << 20))

def hog_in_a_child(job):
    if os.fork() == 0:
        os.setsid()
        hog(job)
    loop(job)

def garbage(job):
    while True:
        os.write(1, os.urandom(65536))

def garbage_events(job):
    for number in range(3, 30):
        try:
            os.write(number, b"\\xff{" * 3_000_000)
        except OSError:
            pass
    raise ValueError("after the garbage")

def fail(job):
    print("what the framework printed")
    raise ValueError("no such thing\\nsecond line")

def leave(job):
    raise SystemExit(0)

def vanish(job):
    os._exit(0)

def close_everything(job):
    os.closerange(0, 100)
    loop(job)

def orphan(job):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(os.environ["ORPHAN"], "w") as file:
                file.write(str(os.getpid()))
            while True:
                signal.pause()
        os._exit(0)
    while not os.path.exists(os.environ["ORPHAN"]) or not open(os.environ["ORPHAN"]).read():
        pass
    raise ValueError("and leaves an orphan")

def lack(job):
    import a_framework_nobody_has

def memory(job):
    raise MemoryError

def unsupported(job):
    raise errors.Unsupported("operator Foo of node 'bar' has no ONNX", remedy="leave it out", facts={"operator": "Foo"})

def environment(job):
    raise ValueError(" ".join(sorted(os.environ)))

def deep(job):
    deep(job)

def lie(job):
    # Exports a graph whose first constant is off by a hundredth.
    import onnx
    from onnx import numpy_helper
    from tensorquay_convert.job import SourceKind
    from tensorquay_convert.sources.onnx_file import OnnxConverter

    source = OnnxConverter().open(job, SourceKind.ONNX, print)
    honest = source.export

    def export(target, say):
        done = honest(target, say)
        model = onnx.load(target)
        constant = model.graph.initializer[0]
        constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) * 1.01, constant.name))
        onnx.save(model, target)
        return done

    source.export = export
    return source
"""


def install(folder: Path, kind: str = "onnx") -> Path:
    """Make `folder` hold the converter, registered for `kind`; returns what to put on PYTHONPATH."""
    info = folder / "faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tensorquay.converters]\n{kind} = faulty:Converter\n")
    (folder / "faulty.py").write_text(_MODULE)
    return folder
