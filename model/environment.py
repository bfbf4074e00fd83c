"""The field's environment variables, as they set a bundled ``train_gpt.py`` (names: openai/parameter-golf #1303).

All are numbers. What switches a technique on or off or picks another isn't among them: a script holds the code of its
own recipe and no other.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LARGEST = 3e38
"""What float32 holds, about; also NaN and infinity are refused by it."""

FIELD_NAMES = {
    "ITERATIONS": "train.steps",
    "TRAIN_BATCH_TOKENS": "train.batch_tokens",
    "TRAIN_SEQ_LEN": "train.seq_len",
    "TRAIN_LOG_EVERY": "train.log_every",
    "WARMUP_STEPS": "train.warmup_steps",
    "WARMDOWN_FRAC": "train.warmdown_frac",
    "WARMDOWN_ITERS": "train.warmdown_steps",
    "MIN_LR": "train.min_lr",
    "GRAD_CLIP_NORM": "train.grad_clip",
    "EMA_DECAY": "train.ema_decay",
    "MATRIX_LR": "train.optim.matrix_lr",
    "TIED_EMBED_LR": "train.optim.embed_lr",
    "SCALAR_LR": "train.optim.scalar_lr",
    "MUON_MOMENTUM": "train.optim.muon_momentum",
    "MUON_MOMENTUM_WARMUP_START": "train.optim.muon_momentum_start",
    "MUON_MOMENTUM_WARMUP_STEPS": "train.optim.muon_momentum_warmup_steps",
    "HEAD_LR": "train.optim.head_lr",
    "MUON_WD": "train.optim.muon_wd",
    "MUON_BACKEND_STEPS": "train.optim.muon_steps",
    "EMBED_WD": "train.optim.embed_wd",
    "SWA_EVERY": "train.swa.every",
    "LATE_QAT_THRESHOLD": "train.qat.threshold",
    "ADAM_WD": "train.optim.adam_wd",
    "BETA1": "train.optim.beta1",
    "BETA2": "train.optim.beta2",
    "ADAM_EPS": "train.optim.adam_eps",
    "VOCAB_SIZE": "net.vocab_size",
    "NUM_LAYERS": "net.layers",
    "MODEL_DIM": "net.dim",
    "NUM_HEADS": "net.heads",
    "NUM_KV_HEADS": "net.kv_heads",
    "MLP_MULT": "net.mlp_mult",
    "QK_GAIN_INIT": "net.qk_gain",
    "ROPE_DIMS": "net.rope_dims",
    "ROPE_BASE": "net.rope_base",
    "ROPE_TRAIN_SEQ_LEN": "net.rope_trained_len",
    "LOGIT_SOFTCAP": "net.logit_cap",
    "BIGRAM_VOCAB_SIZE": "net.bigram.rows",
    "BIGRAM_DIM": "net.bigram.width",
    "VE_DIM": "net.value_embedding.width",
    "XSA_LAST_N": "net.xsa.last",
    "PARALLEL_RESIDUAL_START": "net.parallel.first",
    "LOOP_START": "net.recurrence.first",
    "LOOP_END": "net.recurrence.last",
    "NUM_LOOPS": "net.recurrence.loops",
    "ENABLE_LOOPING_AT": "net.recurrence.start",
    "TIED_EMBED_INIT_STD": "net.embed_std",
    "MATRIX_BITS": "pack.matrix_bits",
    "EMBED_BITS": "pack.embed_bits",
    "MATRIX_CLIP_SIGMAS": "pack.matrices.sigmas",
    "EMBED_CLIP_SIGMAS": "pack.tables.sigmas",
    "GPTQ_CALIBRATION_BATCHES": "pack.gptq.batches",
    "EVAL_SEQ_LEN": "score.windows.seq_len",
    "EVAL_STRIDE": "score.windows.stride",
    "PREQUANT_TTT_LR": "adapt.prequant.lr",
    "PREQUANT_TTT_EPOCHS": "adapt.prequant.epochs",
    "PREQUANT_TTT_FREEZE_BLOCKS": "adapt.prequant.freeze_blocks",
    "PREQUANT_TTT_GRAD_CLIP": "adapt.prequant.grad_clip",
    # Score-first TTT, as in #1176 and #1493; #1423 has the same names for what is PREQUANT_TTT_* here. *_BATCH_SEQS are
    # left out: in the field they are of one rank, here of all together.
    "TTT_LR": "score.ttt.lr",
    "TTT_EPOCHS": "score.ttt.epochs",
    "TTT_CHUNK_TOKENS": "score.ttt.chunk_tokens",
    "TTT_FREEZE_BLOCKS": "score.ttt.freeze_blocks",
    "TTT_GRAD_CLIP": "score.ttt.grad_clip",
    "TTT_MOMENTUM": "score.ttt.rule.momentum",
    "SLOT_BATCH_SEQS": "score.windows.batch_seqs",
    "SLOT_STEPS": "score.slot.steps",
    "SLOT_LR": "score.slot.lr",
    "SLOT_LR_MIN": "score.slot.lr_min",
}


def knob(name: str, default: Any) -> Any:
    """The number that the variable ``name`` says, of the kind of ``default``, which counts when it isn't set.

    Raises:
        SystemExit: it says something else; the message names the variable.
    """
    text = os.environ.get(name, default)
    try:
        value = type(default)(text)
        if 0 <= value < LARGEST:
            return value
    except ValueError:
        pass
    sys.exit(f"train_gpt.py: {name} must be {type(default).__name__}, 0 or more, got {text}")
