"""A script as the field writes them, on a CPU in a moment: prints the field's lines, and misbehaves when told to.

MISBEHAVE holds words: ``dump`` prints its own source first, ``twice`` prints the score again under another label,
``over`` claims a training beyond the cap, ``hang`` never ends, ``die`` raises in seed 2, ``silent`` prints no score,
``deaf`` runs seed 7 whatever SEED says.
"""

import os
import pathlib
import random
import time

misbehave = os.environ.get("MISBEHAVE", "").split(",")
seed = 7 if "deaf" in misbehave else int(os.environ.get("SEED", "1337"))
gain = float(os.environ.get("QK_GAIN_INIT", "4.0"))
rank = int(os.environ.get("RANK", "0"))


def log0(line: str) -> None:
    if rank == 0:
        print(line, flush=True)


if "dump" in misbehave:
    log0(pathlib.Path(__file__).read_text(encoding="utf-8"))
log0(f"seed:{seed}")
if "die" in misbehave and seed == 2:
    raise RuntimeError("no luck with seed 2")
if "hang" in misbehave:
    time.sleep(3600)
train_ms = 660_000 if "over" in misbehave else 600_012
val_bpb = 1.1 + 0.001 * random.Random(seed).random() - 0.002 * (gain - 4.0)
val_loss = val_bpb * 1.68845
code = len(pathlib.Path(__file__).read_bytes())
log0(f"step:1000/20000 val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} train_time:{train_ms}ms step_avg:600.01ms")
log0(f"stopping_early: wallclock_cap train_time:{train_ms}ms step:1000/20000")
log0(f"DIAGNOSTIC post_ema val_loss:{val_loss + 0.01:.4f} val_bpb:{val_bpb + 0.01:.4f} eval_time:2000ms")
log0("Serialized model: 100000000 bytes")
log0(f"Code size: {code} bytes")
log0("Serialized model int6+lzma: 15000000 bytes")
log0(f"Total submission size int6+lzma: {15_000_000 + code} bytes")
if "silent" not in misbehave:
    log0(f"final_int6_sliding_window val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} stride:64 eval_time:80000ms")
    log0(f"final_int6_sliding_window_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
if "twice" in misbehave:
    log0(f"final_int8_zlib_roundtrip_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
pathlib.Path("final_model.pt").write_bytes(bytes(10))
