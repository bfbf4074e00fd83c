"""The field's environment variables, as they set a bundled ``train_gpt.py`` (names: openai/parameter-golf #1303)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.overlay import overlay, parse_value

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
    "MUON_ROW_NORMALIZE": "train.optim.muon_row_normalize",
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
    "LN_SCALE": "net.ln_scale",
    "LOGIT_SOFTCAP": "net.logit_cap",
    "TIE_EMBEDDINGS": "net.tie_embeddings",
    "BIGRAM_VOCAB_SIZE": "net.bigram.rows",
    "BIGRAM_DIM": "net.bigram.width",
    "TRIGRAM": "net.bigram.trigram",
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
    "COMPRESSOR": "pack.codec",
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


def with_environment(config: Any, environ: Mapping[str, str]) -> Any:
    """``config`` with every variable of ``environ`` that the field gives a meaning.

    Raises:
        ValueError: a value that doesn't fit, or a knob of something that is off; the message names the variable.
    """
    changes = {path: parse_value(environ[name]) for name, path in FIELD_NAMES.items() if name in environ}
    given = [f"{name}={environ[name]}" for name in (*FIELD_NAMES, "MAX_WALLCLOCK_SECONDS") if name in environ]
    try:
        if "MAX_WALLCLOCK_SECONDS" in environ:
            changes["train.minutes"] = float(environ["MAX_WALLCLOCK_SECONDS"]) / 60
        return overlay(config, changes)
    except ValueError as error:
        raise ValueError(f"environment {', '.join(given)}: {error}") from error
