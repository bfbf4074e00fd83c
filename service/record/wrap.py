"""The form in which a script ships: minified, LZMA, base85 and a loader of four lines, as the field does since
openai/parameter-golf #1217. Its bytes are what the cap counts; the readable form lies beside it."""

from __future__ import annotations

import base64
import lzma

from python_minifier import RemoveAnnotationsOptions, minify

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


def wrap(code: str, readable: str) -> str:
    """The script that does what ``code`` does, which lies beside it as the file ``readable``. The same code gives the
    same bytes."""
    # Annotations of arguments stay: Triton reads those of its kernels. Names of classes stay: messages have them.
    kept = RemoveAnnotationsOptions(
        remove_variable_annotations=True,
        remove_return_annotations=True,
        remove_argument_annotations=False,
        remove_class_attribute_annotations=False,
    )
    small = minify(code, remove_annotations=kept, hoist_literals=False, remove_literal_statements=True)
    packed = lzma.compress(small.encode(), format=lzma.FORMAT_ALONE, filters=[_FILTER])
    return LOADER.format(readable=readable, packed=base64.b85encode(packed).decode(), name=NAME)
