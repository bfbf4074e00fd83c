"""A record is assembled whole or not at all, and ``verify`` names every number that doesn't follow from the logs."""

from __future__ import annotations

import filecmp
import itertools
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.job import CURVE
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.audit import plan_audit
from service.errors import RecordError
from service.experiment import contend, lookup
from service.record import folder as folder_module
from service.record.compare import NUMBER
from service.record.folder import Record, assemble
from service.record.readme import readme
from service.record.submission import submission
from service.record.verify import verify
from service.results import GroupResult

LEAK = ("score_before_update", "strict_prefix")
SEEDS = (42, 1337, 2024)
FILES = [
    "README.md",
    "audit.json",
    "figure.png",
    "reports.json",
    "requirements.txt",
    "submission.json",
    "train_gpt.py",
    "train_gpt_readable.py",
]
LOGS = [f"train_seed{seed}.log" for seed in SEEDS]


@pytest.fixture(scope="module")
def record(module_lab: Any) -> Record:
    """A record that was chosen out of three configs, one of them with two seeds."""
    base = module_lab.group()
    other = module_lab.group({"score.slot.lr": 0.012}, shift=0.0019)
    raced = module_lab.group({"score.slot.lr": 0.02}, shift=0.0111, seeds=SEEDS[:2])
    made: Record = module_lab.record(other, base, other, raced)
    return made


@pytest.fixture(scope="module")
def assembled(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(record, tmp_path_factory.mktemp("records") / "2026-04-06_Tiny")


@pytest.fixture
def copy(assembled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(assembled, tmp_path / "copy")


def bump(number: str) -> str:
    """Another last digit."""
    return number[:-1] + str((int(number[-1]) + 3) % 10)


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else None
    if pairs is None:
        yield path
        return
    for key, value in pairs:
        yield from leaves(value, (*path, key))


def with_leaf(data: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    changed = json.loads(json.dumps(data))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = change(place[path[-1]])
    return changed


def tampered(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return json.loads(bump(repr(value))) if isinstance(value, (int, float)) else f"{value} or not"


# What is made


def test_a_record_folder_holds_these_files_and_verifies(assembled: Path) -> None:
    assert sorted(path.name for path in assembled.iterdir()) == sorted([*FILES, *LOGS])
    verdict = verify(assembled)
    assert verdict.mismatches == ()
    assert verdict.ok
    assert assembled.stat().st_mode & 0o777 == 0o755


def test_the_verdict_is_what_the_reports_measured(assembled: Path, record: Record) -> None:
    verdict = verify(assembled).to_json()
    code_bytes = len(record.code.encode())
    for seed, result in record.group.seeds.items():
        one = verdict["seeds"][str(seed)]
        assert one["val_bpb"] == pytest.approx(result.metric(Stage.SLOT, "val_bpb"), abs=0.5e-8)
        assert one["artifact_bytes"] == code_bytes + result.metric(Stage.PACK, "model_bytes")
        assert one["train_s"] == pytest.approx(result.metric(Stage.TRAIN, "train_s"), abs=0.5e-3)
        eval_s = result.metric(Stage.SLIDING, "eval_s") + result.metric(Stage.SLOT, "eval_s")
        assert one["eval_s"] == pytest.approx(eval_s, abs=1e-3)
    values = [one["val_bpb"] for one in verdict["seeds"].values()]
    assert verdict["mean_bpb"] == pytest.approx(statistics.mean(values), abs=1e-12)
    assert verdict["sd_bpb"] == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert verdict["caps"]["artifact_bytes"]["cap"] == 16_000_000
    assert all(cap["kept"] for cap in verdict["caps"].values())
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_submission_json_has_the_fields_shape_and_derived_compliance(assembled: Path, record: Record) -> None:
    data = json.loads((assembled / "submission.json").read_text(encoding="utf-8"))
    values = [result.metric(Stage.SLOT, "val_bpb") for result in record.group.seeds.values()]
    assert data["val_bpb"] == pytest.approx(statistics.mean(values), abs=1e-8)
    assert data["val_bpb_std"] == pytest.approx(statistics.stdev(values), abs=2e-8)
    assert (data["author"], data["github_id"], data["track"]) == ("A. Golfer", "golfer", "tiny_cpu")
    assert data["seeds"] == sorted(SEEDS)
    assert data["bytes_total"] == max(row["artifact_bytes"] for row in data["seed_results"].values())
    assert data["hardware"] == "2x x86_64 cpu"
    assert data["compliance"] == dict.fromkeys(
        [
            *("artifact_under_cap", "train_under_cap", "eval_under_cap", "three_seeds"),
            "probabilities_sum_to_one",
            *("each_token_scored_once", "no_token_learned_before_scored"),
            *("strict_prefix", "full_distribution", "score_before_update"),
            *("single_pass", "byte_denominator", "weights_restored"),
        ],
        True,
    )
    sliding = record.group.seeds[42].metric(Stage.SLIDING, "val_bpb")
    assert data["seed_results"]["42"]["sliding_val_bpb"] == pytest.approx(sliding, abs=0.5e-8)


def test_the_readme_states_mean_table_comparison_and_provenance(assembled: Path, record: Record) -> None:
    text = (assembled / "README.md").read_text(encoding="utf-8")
    mean = statistics.mean(result.metric(Stage.SLOT, "val_bpb") for result in record.group.seeds.values())
    assert text.startswith(f"# Record: Tiny SLOT - val_bpb {mean:.4f} (3-seed mean)\n")
    assert "| Seed | Steps | ms/step | Sliding val_bpb | SLOT val_bpb | Artifact bytes | train s | eval s |" in text
    assert "sd (n - 1)" in text
    assert "| `lr=0.012` (this record) | `final_slot` | 3 |" in text
    assert "+0.001900 ± 0.000000 (n = 3) |" in text
    assert "+0.011100 ± 0.000000 (n = 2) |" in text
    assert "Seeds of this record that took part in that choice: 42, 1337, 2024." in text
    for result in record.group.seeds.values():
        assert all(planned.key in text for planned in result.plan)
        assert result.reports[Stage.PACK].outputs["artifact.bin"].sha256 in text


def test_requirements_are_what_the_script_imports(assembled: Path) -> None:
    names = (assembled / "requirements.txt").read_text(encoding="utf-8").split()
    assert names == ["brotli", "numpy", "sentencepiece", "torch==2.13.0"]


def test_the_same_record_gives_the_same_bytes(assembled: Path, record: Record, tmp_path: Path) -> None:
    again = assemble(record, tmp_path / "again")
    match, differ, failed = filecmp.cmpfiles(assembled, again, [*FILES, *LOGS], shallow=False)
    assert (sorted(match), differ, failed) == (sorted([*FILES, *LOGS]), [], [])


def test_reports_and_record_are_the_same_bytes_whatever_the_number_of_tries(lab: Any, tmp_path: Path) -> None:
    plans = [result.plan for result in lab.group().seeds.values()]
    stubborn = replace(lab, store=FolderStore(tmp_path / "stubborn"))
    for count, planned in enumerate(itertools.chain(*plans)):
        for _ in range(count % 4):
            stubborn.store.begin(planned.key)
    folders, tries = [], []
    for one in (lab, stubborn):
        group = one.group()
        known = lookup(contend(group.spec, {}, SEEDS, lab.corpus, group.headline, group.spec.scores), one.store)
        tries.append([result.attempts for result in known.seeds.values()])
        folders.append(assemble(one.record(known, known), tmp_path / f"record-{len(folders)}"))
    assert tries[0] != tries[1]
    assert max(number for seed in tries[1] for number in seed.values()) == 4
    match, differ, failed = filecmp.cmpfiles(*folders, [*FILES, *LOGS], shallow=False)
    assert (sorted(match), differ, failed) == (sorted([*FILES, *LOGS]), [], [])
    for planned in itertools.chain(*plans):
        first, second = (one.store.folder(planned.key) / "report.json" for one in (lab, stubborn))
        assert first.read_bytes() == second.read_bytes()


def test_importing_the_package_takes_neither_torch_nor_matplotlib() -> None:
    code = "import sys, service.record.folder; print({'torch', 'matplotlib', 'ray', 'mlflow'} & sys.modules.keys())"
    root = Path(folder_module.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# What verify finds


def test_every_value_in_submission_json_is_checked(copy: Path) -> None:
    path = copy / "submission.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for leaf in leaves(data):
        path.write_text(json.dumps(with_leaf(data, leaf, tampered)), encoding="utf-8")
        place = ".".join(map(str, leaf[:1] if leaf[0] == "seeds" else leaf))
        assert any(line.startswith(f"submission.json: {place} is ") for line in verify(copy).mismatches), leaf


def test_every_missing_key_of_submission_json_is_named(copy: Path) -> None:
    data = json.loads((copy / "submission.json").read_text(encoding="utf-8"))
    for key in data:
        rest = {name: value for name, value in data.items() if name != key}
        (copy / "submission.json").write_text(json.dumps(rest), encoding="utf-8")
        assert any(line.startswith(f"submission.json: {key} is missing") for line in verify(copy).mismatches), key


def test_a_seed_that_never_ran_is_named(copy: Path) -> None:
    data = json.loads((copy / "submission.json").read_text(encoding="utf-8"))
    data["seed_results"]["7"] = data["seed_results"]["42"]
    (copy / "submission.json").write_text(json.dumps(data), encoding="utf-8")
    assert any(line.startswith("submission.json: seed_results.7 is ") for line in verify(copy).mismatches)


def test_a_rounded_value_agrees_and_a_wrongly_rounded_one_does_not(copy: Path) -> None:
    data = json.loads((copy / "submission.json").read_text(encoding="utf-8"))
    rounded = round(data["val_bpb"], 4)
    (copy / "submission.json").write_text(json.dumps({**data, "val_bpb": rounded}), encoding="utf-8")
    assert verify(copy).ok
    wrong = round(rounded + 0.0002, 4)
    (copy / "submission.json").write_text(json.dumps({**data, "val_bpb": wrong}), encoding="utf-8")
    assert verify(copy).mismatches == (f"submission.json: val_bpb is {wrong}, recomputed {data['val_bpb']}",)
    (copy / "submission.json").write_text(json.dumps({**data, "val_bpb": str(data["val_bpb"])}), encoding="utf-8")
    assert not verify(copy).ok  # text is not a number


def test_every_number_in_the_readme_is_checked(copy: Path) -> None:
    path = copy / "README.md"
    text = path.read_text(encoding="utf-8")
    found = list(NUMBER.finditer(text))
    assert len(found) > 80
    for number in found:
        path.write_text(text[: number.start()] + bump(number[0]) + text[number.end() :], encoding="utf-8")
        mismatches = verify(copy).mismatches
        assert len(mismatches) == 1, (number[0], mismatches)
        assert mismatches[0].startswith("README.md: says "), mismatches


def test_a_readme_may_say_more_and_say_it_shorter(copy: Path) -> None:
    path = copy / "README.md"
    text = path.read_text(encoding="utf-8") + "\n## Thoughts\n\nThe 19th hole is the best one.\n"
    mean = verify(copy).mean_bpb
    assert mean is not None
    path.write_text(text.replace(f"val_bpb = {mean:.6f}", f"val_bpb = {mean:.3f}"), encoding="utf-8")
    assert verify(copy).ok


NUMBER_LINES = {
    r"^seed:(\d+)": "seed is ",
    r"^model_params:(\d+)": "train parameters is ",
    r"^step:(40)/40 ": "train steps is ",
    r"^step:40/40 .*train_time:(\d+)ms": "train train_ms is ",
    r"^Serialized model [^:]+: (\d+)": "pack model_bytes is ",
    r"^Code size: (\d+)": "Code size is ",
    r"^Total submission size [^:]+: (\d+)": "Total submission size is ",
    r"^final_slot val_loss.* eval_time:(\d+)ms": "score.slot eval_ms is ",
    r"^final_slot_exact val_loss:([\d.]+)": "score.slot val_loss is ",
    r"^final_slot_exact .*val_bpb:([\d.]+)": "score.slot val_bpb is ",
    r"^final_int6_sliding_window val_loss.* eval_time:(\d+)ms": "score.sliding eval_ms is ",
    r"^final_int6_sliding_window_exact val_loss:([\d.]+)": "score.sliding val_loss is ",
    r"^final_int6_sliding_window_exact .*val_bpb:([\d.]+)": "score.sliding val_bpb is ",
}


@pytest.mark.parametrize("line", NUMBER_LINES)
def test_every_number_that_counts_in_a_log_is_checked(copy: Path, line: str) -> None:
    path = copy / "train_seed1337.log"
    text = path.read_text(encoding="utf-8")
    found = re.search(line, text, re.M)
    assert found
    path.write_text(text[: found.start(1)] + bump(found[1]) + text[found.end(1) :], encoding="utf-8")
    mismatches = verify(copy).mismatches
    assert any(NUMBER_LINES[line] in mismatch and "1337" in mismatch for mismatch in mismatches), mismatches


def test_the_audit_s_rules_are_in_the_readme_with_verdict_and_numbers(
    assembled: Path, lab: Any, tmp_path: Path
) -> None:
    rules = json.loads((assembled / "audit.json").read_text(encoding="utf-8"))["rules"]
    text = (assembled / "README.md").read_text(encoding="utf-8")
    assert len(rules) == 6
    assert all(f"- [x] {row['rule']}: {row['because']}\n" in text for row in rules)
    leak = assemble(lab.record(leaking(lab, Stage.SLOT), non_record=True), tmp_path / "leak")
    text = (leak / "README.md").read_text(encoding="utf-8")
    assert "- [ ] strict_prefix: changing every token from 3329 (batch 4, window 16) changed what is said of " in text
    assert "by 0.862474 nats; 29 of 31 changed streams" in text
    assert "- [ ] score_before_update: 12,345 of 12,605 tokens" in text


def test_every_verdict_and_sentence_of_the_audit_is_held_against_its_evidence(copy: Path) -> None:
    path = copy / "audit.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for row in range(len(data["rules"])):
        for name in ("kept", "because"):
            path.write_text(json.dumps(with_leaf(data, ("rules", row, name), tampered)), encoding="utf-8")
            place = f"audit.json: {data['rules'][row]['rule']}.{name} is "
            assert any(line.startswith(place) for line in verify(copy).mismatches), place
    path.write_text(json.dumps({**data, "clean": False}), encoding="utf-8")
    assert any(line.startswith("audit.json: clean is false") for line in verify(copy).mismatches)


def test_evidence_of_the_audit_that_was_edited_no_longer_agrees_with_the_readme(copy: Path) -> None:
    path = copy / "audit.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for row, rule in enumerate(data["rules"]):
        for name in rule["evidence"]:
            changed = with_leaf(data, ("rules", row, "evidence", name), lambda value: value + 3)
            path.write_text(json.dumps(changed), encoding="utf-8")
            mismatches = verify(copy).mismatches
            if name == "largest_change_nats":  # a leak has a place
                assert any("audit.json: the audit has no evidence 'flipped_" in line for line in mismatches)
                continue
            assert any(line.startswith(f"audit.json: {rule['rule']}.") for line in mismatches), (rule["rule"], name)
            assert any(line.startswith("README.md: says ") for line in mismatches), (rule["rule"], name)


def test_the_audit_of_another_config_and_one_that_lacks_a_rule_are_found(copy: Path) -> None:
    path = copy / "audit.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, "config_digest": "0" * 12}), encoding="utf-8")
    assert any(line.startswith("audit.json: is of config 000000000000") for line in verify(copy).mismatches)
    path.write_text(json.dumps({**data, "rules": data["rules"][1:]}), encoding="utf-8")
    assert any(line.startswith("audit.json: 5 rules, but there are strict_prefix,") for line in verify(copy).mismatches)


def test_a_lost_audit_is_refused(lab: Any) -> None:
    record = lab.record(lab.group())
    (lab.store.folder(record.audit_key) / "audit.json").unlink()
    lab.audit = lambda spec, scorer, leaking: plan_audit(spec, lab.corpus, scorer)
    with pytest.raises(RecordError, match="the audit can't be read"):
        lab.record(lab.group())


@pytest.mark.parametrize("rule", ["strict_prefix", "score_before_update"])
def test_a_rule_that_only_the_audit_finds_broken_is_refused_all_the_same(lab: Any, rule: str) -> None:
    group = lab.group()
    honest = lab.audit
    lab.audit = lambda spec, scorer, leaking: honest(spec, scorer, leaking=True)
    with pytest.raises(RecordError, match=f"{rule}: "):
        lab.record(group)
    data = submission(lab.record(group, non_record=True))
    assert data["compliance"]["no_token_learned_before_scored"] is True
    assert data["compliance"][rule] is False


def test_any_changed_byte_of_a_log_is_found(copy: Path) -> None:
    path = copy / "train_seed42.log"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("train_loss:5.7683", "train_loss:5.7682"), encoding="utf-8")
    (mismatch,) = verify(copy).mismatches
    assert mismatch.startswith("train_seed42.log: sha256 is ")


def test_changed_code_is_found_by_size_and_by_digest(copy: Path) -> None:
    path = copy / "train_gpt.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n", encoding="utf-8")
    mismatches = verify(copy).mismatches
    size = len(text.encode())
    assert f"train_seed42.log: Code size is {size}, but {size + 1} by train_gpt.py" in mismatches
    assert any(line.startswith("submission.json: bytes_code is ") for line in mismatches)
    assert any(line.startswith("submission.json: seed_results.42.artifact_bytes is ") for line in mismatches)
    path.write_text(text.replace("exec(", "eval("), encoding="utf-8")
    assert any(line.startswith("train_gpt.py: sha256 is ") for line in verify(copy).mismatches)
    path.write_text(text, encoding="utf-8")
    readable = copy / "train_gpt_readable.py"
    code = readable.read_text(encoding="utf-8")
    assert "'QK_GAIN_INIT', 4.0" in code
    readable.write_text(code.replace("'QK_GAIN_INIT', 4.0", "'QK_GAIN_INIT', 5.0"), encoding="utf-8")
    (mismatch,) = verify(copy).mismatches
    assert mismatch.startswith("train_gpt_readable.py: sha256 is ")


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("train", "train_s"),
        ("train", "train_steps"),
        ("train", "parameters"),
        ("pack", "model_bytes"),
        *((f"score.{score}", name) for score in ("sliding", "slot") for name in ("val_bpb", "val_loss_nats", "eval_s")),
        *((f"score.{score}", name) for score in ("sliding", "slot") for name in ("tokens", "text_bytes")),
    ],
)
def test_reports_that_differ_from_the_logs_are_found(copy: Path, stage: str, name: str) -> None:
    data = json.loads((copy / "reports.json").read_text(encoding="utf-8"))
    changed = with_leaf(data, ("seeds", "2024", stage, "metrics", name), lambda value: value * 1.001 + 1)
    (copy / "reports.json").write_text(json.dumps(changed), encoding="utf-8")
    assert any(line.startswith(f"reports.json: seeds.2024 {stage} ") for line in verify(copy).mismatches)


def test_compared_scores_that_were_edited_are_found(copy: Path) -> None:
    data = json.loads((copy / "reports.json").read_text(encoding="utf-8"))
    for row in range(3):
        changed = with_leaf(data, ("compared", row, "val_bpb", "42"), lambda value: value + 0.001)
        (copy / "reports.json").write_text(json.dumps(changed), encoding="utf-8")
        assert any(line.startswith("README.md: says ") for line in verify(copy).mismatches)


def test_a_cap_that_is_given_replaces_the_specs(copy: Path) -> None:
    size = max(one.artifact_bytes for one in verify(copy).seeds.values())
    assert verify(copy, artifact_cap=size).ok
    verdict = verify(copy, artifact_cap=size - 1)
    assert verdict.mismatches == (f"artifact_bytes: {size:,} in the worst seed is over the given cap, {size - 1:,}",)
    assert not verdict.caps["artifact_bytes"].kept
    assert not verify(copy, train_cap_s=12).ok
    assert not verify(copy, eval_cap_s=9).ok


@pytest.mark.parametrize("name", ["README.md", "audit.json", "reports.json", "submission.json", "train_gpt.py", *LOGS])
@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00", b"[1, 2]", b'{"a": ', b'{"val_bpb": NaN}', b"[" * 9999]
)
def test_a_missing_or_broken_file_is_a_mismatch_and_not_a_crash(copy: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    verdict = verify(copy)
    assert any(name in line for line in verdict.mismatches)
    assert verdict.mean_bpb is None or name not in LOGS
    json.dumps(verdict.to_json(), allow_nan=False)


def test_without_reports_the_measured_claims_are_still_checked(copy: Path) -> None:
    mean = verify(copy).mean_bpb
    (copy / "reports.json").unlink()
    assert verify(copy).mismatches == ("reports.json: missing",)
    assert verify(copy).mean_bpb == mean
    data = json.loads((copy / "submission.json").read_text(encoding="utf-8"))
    (copy / "submission.json").write_text(
        json.dumps({**data, "bytes_total": data["bytes_total"] - 1}), encoding="utf-8"
    )
    assert any(line.startswith("submission.json: bytes_total is ") for line in verify(copy).mismatches)


def test_no_folder_and_an_empty_folder_are_mismatches(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        verdict = verify(place)
        assert not verdict.ok
        assert (verdict.mean_bpb, dict(verdict.seeds)) == (None, {})


def test_random_damage_is_never_a_crash(copy: Path) -> None:
    draw = random.Random(1)
    for _ in range(60):
        path = copy / draw.choice(["README.md", "audit.json", "reports.json", "submission.json", *LOGS])
        good = path.read_bytes()
        at = draw.randrange(len(good))
        cut = at + draw.choice([0, 1, 1, 40, len(good)])
        path.write_bytes(good[:at] + draw.choice([b"", b"0", b"}", b'"', b"null", b"1e999"]) + good[cut:])
        json.dumps(verify(copy).to_json(), allow_nan=False)
        path.write_bytes(good)


# What assemble refuses, and what it leaves behind


def failing(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_assemble_leaves_nothing(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "write_figure", failing)
    with pytest.raises(KeyboardInterrupt):
        assemble(record, tmp_path / "record")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_assemble_leaves_nothing_under_the_name_and_the_next_one_cleans_up(
    record: Record, tmp_path: Path
) -> None:
    child = os.fork()
    if not child:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folder_module, "write_figure", lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
            assemble(record, tmp_path / "record")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (tmp_path / "record").exists()
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".record.mine").mkdir()
    assert verify(assemble(record, tmp_path / "record")).ok
    assert {path.name for path in tmp_path.iterdir()} == {"record", ".record.mine"}, "what was left half-way is gone"


def test_an_interrupted_replacement_keeps_the_old_record(
    record: Record, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "README.md").write_text("old", encoding="utf-8")
    rename = os.rename

    def once(source: Path, target: Path) -> None:
        if target == copy and not source.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", once)
    with pytest.raises(RecordError, match="Input/output error"):
        assemble(record, copy)
    assert (copy / "README.md").read_text(encoding="utf-8") == "old"
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_an_older_record_is_replaced_and_an_equal_one_is_kept(record: Record, copy: Path) -> None:
    node = copy.stat().st_ino
    assemble(record, copy)
    assert copy.stat().st_ino == node
    (copy / "train_seed7.log").write_text("from an earlier try", encoding="utf-8")
    (copy / "README.md").unlink()
    assemble(record, copy)
    assert verify(copy).ok
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_a_folder_with_other_files_is_left_alone(record: Record, copy: Path) -> None:
    (copy / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RecordError, match=r"notes\.txt"):
        assemble(record, copy)
    assert (copy / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_failed_seed_is_refused_by_name(lab: Any) -> None:
    group = lab.group()
    seeds = {**group.seeds, 1337: replace(group.seeds[1337], error="the loss is nan at step 3")}
    with pytest.raises(RecordError, match="seed 1337 of base failed: the loss is nan at step 3"):
        lab.record(replace(group, seeds=seeds))


def test_an_unfinished_seed_is_refused_by_name(lab: Any) -> None:
    group = lab.group()
    reports = {stage: report for stage, report in group.seeds[2024].reports.items() if stage is not Stage.SLOT}
    seeds = {**group.seeds, 2024: replace(group.seeds[2024], reports=reports)}
    with pytest.raises(RecordError, match=r"seed 2024 of base is unfinished, it has no score\.slot"):
        lab.record(replace(group, seeds=seeds))


def test_a_lost_curve_is_refused_by_seed(lab: Any) -> None:
    group = lab.group()
    (lab.store.folder(group.seeds[42].key(Stage.TRAIN)) / CURVE).write_text("nothing", encoding="utf-8")
    with pytest.raises(RecordError, match="seed 42: its loss curve"):
        lab.record(group)


def test_a_log_that_differs_from_its_report_is_refused(record: Record, tmp_path: Path) -> None:
    log = re.sub(r"(final_slot_exact .*)$", lambda line: bump(line[0]), record.logs[42], flags=re.M)
    with pytest.raises(RecordError, match=r"seeds\.42 score\.slot val_bpb is 2\.\d+, train_seed42\.log says 2\.\d+"):
        assemble(replace(record, logs={**record.logs, 42: log}), tmp_path / "record")
    assert list(tmp_path.iterdir()) == []


def leaking(lab: Any, headline: Stage) -> GroupResult:
    group: GroupResult = lab.group({"score.slot.loss_on": "scored"}, headline=headline)
    return group


BROKEN: dict[str, tuple[Callable[[Any], GroupResult], str]] = {
    "artifact_under_cap": (lambda lab: lab.group({"budget.artifact_bytes": 30_000}), r"the cap is 30,000"),
    "train_under_cap": (
        lambda lab: lab.group(change={(42, Stage.TRAIN, "train_s"): 600.0014}),
        r"600\.001 s of training in the slowest seed, 42; the cap is 600 s",
    ),
    "eval_under_cap": (
        lambda lab: lab.group(change={(1337, Stage.SLOT, "eval_s"): 599.0}),
        r"602\.\d+ s for all scores together in the slowest seed, 1337; the cap is 600 s",
    ),
    "three_seeds": (lambda lab: lab.group(seeds=(42, 1337)), r"n = 2 \(42, 1337\); a record needs 3"),
    "each_token_scored_once": (
        lambda lab: lab.group(change={(42, Stage.SLIDING, "scored_twice"): 1984.0}),
        r"1,984 of 49,213 tokens .*score\.sliding of seed 42",
    ),
    "no_token_learned_before_scored": (
        lambda lab: lab.group(change={(2024, Stage.SLOT, "exposed"): 96.0}),
        r"96 of 49,213 tokens .*score\.slot of seed 2024\), and the headline",
    ),
    "probabilities_sum_to_one": (
        lambda lab: lab.group(change={(1337, Stage.SLOT, "off_one"): 0.0031}),
        r"within 3\.1e-03 .*score\.slot of seed 1337\); 0\.001 is allowed",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_refused_with_its_numbers_unless_admitted(lab: Any, tmp_path: Path, rule: str) -> None:
    make, because = BROKEN[rule]
    group = make(lab)
    also = set(LEAK) if group.leaks else set()
    with pytest.raises(RecordError, match=f"{rule}: .*{because}"):
        lab.record(group)
    record = lab.record(group, non_record=True)
    with pytest.raises(RecordError, match=rule):
        assemble(replace(record, non_record=()), tmp_path / "record")
    assert readme(record).startswith("# Non-record: Tiny SLOT")
    assert f"- [ ] {rule}: " in readme(record)
    data = submission(record)
    assert data["track"] == "non_record_tiny_cpu"
    assert {name for name, kept in data["compliance"].items() if not kept} == {rule} | also


def test_a_leaking_slot_beside_an_honest_headline_is_not_refused_but_never_ticked(lab: Any) -> None:
    data = submission(lab.record(leaking(lab, Stage.SLIDING)))
    assert data["track"] == "tiny_cpu"
    assert data["compliance"]["no_token_learned_before_scored"] is False
    assert [name for name in data["compliance"] if not data["compliance"][name]] == ["no_token_learned_before_scored"]


def test_a_non_record_verifies_until_a_broken_rule_is_hidden(lab: Any, tmp_path: Path) -> None:
    out = assemble(lab.record(leaking(lab, Stage.SLOT), non_record=True), tmp_path / "record")
    assert verify(out).ok
    data = json.loads((out / "reports.json").read_text(encoding="utf-8"))
    data["about"]["non_record"] = []
    (out / "reports.json").write_text(json.dumps(data), encoding="utf-8")
    hidden = [line for line in verify(out).mismatches if line.startswith("broken and not admitted: ")]
    for rule in ("no_token_learned_before_scored", *LEAK):
        assert any(line.startswith(f"broken and not admitted: {rule}: ") for line in hidden)


def test_a_record_over_fresh_seeds_verifies_beside_the_scores_that_chose_it_and_one_common_seed_must_agree(
    lab: Any, tmp_path: Path
) -> None:
    chose, fresh = lab.group(seeds=(1, 2, 3)), lab.group(seeds=(42, 1337))
    other = replace(chose, overlay={"score.slot.lr": 0.5})
    out = assemble(lab.record(fresh, chose, other, non_record=True), tmp_path / "record")
    assert verify(out).ok
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "Seeds of this record that took part in that choice: none." in text
    data = json.loads((out / "reports.json").read_text(encoding="utf-8"))
    data["compared"][0]["val_bpb"]["42"] = 0.5
    (out / "reports.json").write_text(json.dumps(data), encoding="utf-8")
    assert any(line.startswith("reports.json: compared 'base' is ") for line in verify(out).mismatches)


def test_a_leaking_config_is_marked_where_configs_are_compared(lab: Any) -> None:
    base = lab.group()
    text = readme(lab.record(base, base, leaking(lab, Stage.SLOT)))
    assert "| `loss_on=scored` | `final_slot` (leaks) |" in text
    assert "| `base` (this record) | `final_slot` |" in text


def test_a_record_without_slot_has_no_slot_column(lab: Any, tmp_path: Path) -> None:
    spec = lab.group().spec
    config = replace(spec.config, score=replace(spec.config.score, slot=None))
    group = lab.group(spec=replace(spec, config=config), headline=Stage.SLIDING)
    out = assemble(lab.record(group), tmp_path / "record")
    assert verify(out).ok
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "| Seed | Steps | ms/step | Sliding val_bpb | Artifact bytes | train s | eval s |" in text
    assert "- [x] no_token_learned_before_scored: 0 of 49,213 tokens" in text
    assert "Nothing: one config was run" in text


def test_a_single_seed_has_no_standard_deviation(lab: Any, tmp_path: Path) -> None:
    out = assemble(lab.record(lab.group(seeds=(42,)), non_record=True), tmp_path / "record")
    assert json.loads((out / "submission.json").read_text(encoding="utf-8"))["val_bpb_std"] is None
    assert "| sd (n - 1) | - | - |" in (out / "README.md").read_text(encoding="utf-8")
    verdict = verify(out)
    assert verdict.ok
    assert verdict.sd_bpb is None
