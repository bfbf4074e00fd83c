"""The form in which a script ships: minified, LZMA, base85 and a loader of four lines, as the field does since
openai/parameter-golf #1217. Its bytes are what the cap counts; the readable form lies beside it."""

from __future__ import annotations

import base64
import lzma
from pathlib import Path

from python_minifier import RemoveAnnotationsOptions, minify

from service.record.bundle import bundle
from service.source import ROOT
from service.spec import RunSpec

READABLE = "train_gpt_readable.py"
"""The program as it was before it was packed, beside it."""
NAME = "train_gpt_packed"
"""What tracebacks call the unpacked source."""

LOADER = """\
# {readable} is this program before it was packed; how to run it stands there.
import base64,linecache as l,lzma
s=lzma.decompress(base64.b85decode("{packed}")).decode()
l.cache["{name}"]=len(s),None,s.splitlines(1),"{name}"
exec(compile(s,"{name}","exec"))
"""
"""The cache of lines is where ``inspect`` finds a function's source, which Triton compiles kernels from."""

_FILTER = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}
"""Bytes of text depend on the high bits of the byte before, and not on their place."""


def shipped(spec: RunSpec, corpus: str, corpus_digest: str, root: Path = ROOT) -> tuple[str, str]:
    """The script of ``spec`` as :func:`service.record.bundle.bundle` makes it, and as it ships.

    Raises:
        SpecError: it can't be bundled.
    """
    code = bundle(spec.config, corpus=corpus, corpus_digest=corpus_digest, threads=spec.gang.threads, root=root)
    return code, wrap(code)


def with_code_bytes(spec: RunSpec, corpus: str, corpus_digest: str) -> RunSpec:
    """``spec`` with ``pack.code_bytes`` set to what its own script takes, if ``pack.fit_to`` wants to know and nobody
    has said; and up to 384 bytes more, because a sweep's overlays write longer numbers into it.

    Raises:
        SpecError: the code alone is larger than the cap; the message has both sizes.
    """
    if getattr(spec.config.pack, "fit_to", None) is None or spec.config.pack.code_bytes:
        return spec
    size = len(shipped(spec, corpus, corpus_digest)[1])
    return spec.at({"pack.code_bytes": -(-(size + 256) // 128) * 128})


def wrap(code: str) -> str:
    """The script that does what ``code`` does, which lies beside it as :data:`READABLE`. The same code gives the same
    bytes; all of them are ASCII."""
    # Annotations of arguments stay: Triton reads those of its kernels. Names of classes stay: messages have them.
    kept = RemoveAnnotationsOptions(
        remove_variable_annotations=True,
        remove_return_annotations=True,
        remove_argument_annotations=False,
        remove_class_attribute_annotations=False,
    )
    small = minify(code, remove_annotations=kept, hoist_literals=False, remove_literal_statements=True)
    packed = lzma.compress(small.encode(), format=lzma.FORMAT_ALONE, filters=[_FILTER])
    return LOADER.format(readable=READABLE, packed=base64.b85encode(packed).decode(), name=NAME)
