"""Whose work the recipes build on, in the field's pull requests: what a record's credits are made of.

:data:`PARTS` go with a part of the config wherever it is turned on, also by ``--set``; a recipe adds what it takes
beyond that. An author is named as the READMEs of merged records name them, where they do.
"""

from __future__ import annotations

from service.spec import Credit

PARTS = (
    Credit(pr=162, author="raahilshah", what="hash embedding of token pairs", when="BigramHash"),
    Credit(pr=65, author="aquariouseworkman", what="SmearGate", when="SmearGate"),
    Credit(pr=374, what="value embeddings in the last layers", when="ValueEmbedding"),
    Credit(pr=175, what="value residuals", when="ValueResidual"),
    Credit(pr=478, author="gowtham0992", what="XSA, attention less each token's own value", when="Xsa"),
    Credit(pr=1172, what="gated skips", when="SkipGates"),
    Credit(
        pr=1412, author="Robby955", what="attention and MLP in parallel in the last layers", when="ParallelResidual"
    ),
    Credit(pr=1529, author="msisovic", what="attention and MLP on two lanes", when="TwoLanes"),
    Credit(pr=1394, author="clarkkev", what="depth recurrence", when="Recurrence"),
    Credit(pr=399, author="abaybektursun", what="Muon's work shared over the ranks", when="ParallelMuon"),
    Credit(pr=1344, author="Omrigotlieb", what="Polar Express", when="PolarExpress"),
    Credit(pr=1019, author="abaybektursun", what="GPTQ", when="Gptq"),
    Credit(pr=1394, author="clarkkev", what="clipping by the spread of a row", when="SdClip"),
    Credit(pr=1084, what="SLOT", when="Slot"),
    Credit(pr=461, author="Christopher-Lee-McClendon", what="test-time training that scores a chunk first", when="Ttt"),
    Credit(pr=1135, what="test-time training by Muon", when="MuonRule"),
    Credit(pr=1364, what="training on the validation split before packing", when="Prequant"),
)
STACK = (
    Credit(pr=175, what="the SP1024 stack: U-Net skips, residual mix, soft cap"),
    Credit(pr=315, author="jfprincz", what="partial RoPE, scale by layer"),
    Credit(pr=493, author="parinzee", what="squared leaky ReLU in a larger MLP"),
    Credit(pr=401, author="newjordan", what="the weights' moving average"),
    *PARTS,
)

ROW_MUON = Credit(pr=1217, what="MuonEq-R")
SMEAR_FIX = Credit(pr=1851, author="aquariouseworkman", what="SmearGate that ends at documents")
RANS = Credit(pr=1123, author="sisegod", what="weights coded by rANS")
SLOT_24 = Credit(pr=1488, author="ndokutovich", what="SLOT's 24 steps from 0.012", when="Slot")

PR1135 = Credit(pr=1135, what="the banked stack with parallel Muon")
PR1176 = Credit(pr=1176, author="bigbag", what="Muon test-time training and SLOT after it")
PR1303 = Credit(pr=1303, author="anthony-maio", what="the config that this repeats or begins from")
PR1313 = Credit(pr=1313, what="SLOT with 24 steps at 0.012, stride 96")
PR1394 = Credit(pr=1394, author="clarkkev", what="SP8192 with a 4x MLP, and its settings")
WARMDOWN = Credit(pr=1394, author="clarkkev", what="a warmdown over most of the clock")
PR1413 = Credit(pr=1413, author="dexhunter", what="test-time training on the quantised stack")
PR1416 = Credit(pr=1416, what="the SP8192 stack with training before packing")
PR1423 = Credit(pr=1423, author="aryanbhosale", what="QK gain 5 and six epochs before packing")
PR1488 = Credit(pr=1488, author="ndokutovich", what="QK gain 5.25 and ten epochs before packing")
PR1493 = Credit(pr=1493, author="bigbag", what="a third looped layer, QK gain 5.25, and its settings")
PR1514 = Credit(pr=1514, author="dexhunter", what="Muon's momentum of 0.97")
PR1787 = Credit(pr=1787, author="nprime06", what="rate and warmdown of the record of 2026-04-23")
PR1855 = Credit(pr=1855, author="codemath3000", what="Polar Express in a record")
