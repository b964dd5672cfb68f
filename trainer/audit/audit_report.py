"""Findings of an audit as lines for people and as tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from trainer.audit.audit import Audit
from trainer.evaluation.tables import as_csv
from trainer.host.atomic_files import write_atomically

_NAMED = 5  # most files that a line names


def report_lines(audit: Audit, *, top: int) -> list[str]:
    """The findings, with the `top` most doubtful labels."""
    pictures = audit.pictures
    splits = Counter(pictures.splits)
    where = ", ".join(f"{count:,} {split}" for split, count in splits.items())
    lines = [f"{pictures.root}: {len(pictures.paths):,} pictures of {len(pictures.classes)} classes ({where})"]
    lines += [f"  note       {note}" for note in pictures.notes]
    if pictures.unreadable:
        named = ", ".join(f"{path} ({reason})" for path, reason in pictures.unreadable[:_NAMED])
        more = ", ..." if len(pictures.unreadable) > _NAMED else ""
        lines.append(f"  unreadable {len(pictures.unreadable):,}, not examined: {named}{more}")
    lines += ["", *_label_lines(audit, top), "", *_copy_lines(audit, top), "", *_odd_lines(audit, top)]
    return lines


def write_report(folder: Path, audit: Audit) -> None:
    """Write `labels.csv`, `copies.csv`, `odd.csv`, `unreadable.csv` and `audit.json`; OSError when that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "labels.csv", as_csv(list(_label_table(audit))))
    write_atomically(folder / "copies.csv", as_csv(list(_copy_table(audit))))
    write_atomically(folder / "unreadable.csv", as_csv([["path", "reason"], *map(list, audit.pictures.unreadable)]))
    write_atomically(folder / "odd.csv", as_csv(list(_odd_table(audit))))
    text = json.dumps(facts(audit), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "audit.json", text.encode("utf-8", "backslashreplace"))


def facts(audit: Audit) -> dict[str, object]:
    """Numbers of the findings."""
    doubts = audit.doubts
    return {
        "folder": str(audit.pictures.root),
        "features": audit.origin,
        "pictures": len(audit.pictures.paths),
        "unreadable": len(audit.pictures.unreadable),
        "doubtful_labels": int(doubts.doubtful_N.sum()),
        "estimated_wrong_labels": round(doubts.estimated_wrong, 1),
        "out_of_fold_accuracy": round(_accuracy(audit), 6),
        "sets_of_copies": len(audit.copies),
        "copies_in_several_splits": len(audit.leaks),
        "copies_with_several_labels": len(audit.contradictions),
        "odd_pictures": len({one.row for one in audit.odd}),
    }


def _accuracy(audit: Audit) -> float:
    return float((audit.doubts.probabilities_NK.argmax(1) == audit.doubts.labels_N).mean())


def _label_lines(audit: Audit, top: int) -> list[str]:
    doubts, pictures = audit.doubts, audit.pictures
    number = int(doubts.doubtful_N.sum())
    lines = [
        f"  labels     {number:,} doubtful; about {doubts.estimated_wrong:,.0f} of {len(pictures.paths):,} are worth a look",
        f"             features of {audit.origin}",
        f"             {_accuracy(audit):.1%} of the labels were predicted from the others",
        "             below: the probability of each label, and that of the suggested class",
    ]
    for row in doubts.ranking[: min(top, number)].tolist():
        suggested = doubts.suggested_N[row]
        own, other = (pictures.classes[label] for label in (doubts.labels_N[row], suggested))
        lines.append(
            f"  {doubts.confidence[row]:7.1%} {own}, {doubts.probabilities_NK[row, suggested]:.1%} {other}: {pictures.name(row)}"
        )
    return lines


def _copy_lines(audit: Audit, top: int) -> list[str]:
    where = (
        "a split drawn at random puts them on both sides"
        if audit.pictures.flat
        else f"{len(audit.leaks):,} of them in several splits"
    )
    lines = [
        f"  copies     {len(audit.copies):,} sets of pictures that show the same; {where}; "
        f"{len(audit.contradictions):,} with several labels"
    ]
    severe = {group[0]: (group not in audit.leaks) + (group not in audit.contradictions) for group in audit.copies}
    for group in sorted(audit.copies, key=lambda group: severe[group[0]])[:top]:
        names = " = ".join(audit.pictures.name(row) for row in group[:_NAMED])
        lines.append(f"  {names}" + (f" = ... ({len(group):,})" if len(group) > _NAMED else ""))
    return lines


def _odd_lines(audit: Audit, top: int) -> list[str]:
    kinds = Counter(one.kind for one in audit.odd)
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()) or "none"
    lines = [f"  odd        {shown}"]
    for kind in kinds:
        of_kind = [one for one in audit.odd if one.kind == kind][:top]
        lines += [f"  {kind}, {one.value}: {audit.pictures.name(one.row)}" for one in of_kind]
    return lines


def _label_table(audit: Audit) -> Iterable[list[object]]:
    doubts, pictures = audit.doubts, audit.pictures
    yield ["path", "split", "class", "probability", "suggested", "suggested_probability", "doubtful"]
    for row in doubts.ranking.tolist():
        suggested = int(doubts.suggested_N[row])
        yield [
            pictures.name(row), pictures.splits[row], pictures.classes[doubts.labels_N[row]],
            f"{doubts.confidence[row]:.6f}", pictures.classes[suggested],
            f"{doubts.probabilities_NK[row, suggested]:.6f}", "yes" if doubts.doubtful_N[row] else "no",
        ]  # fmt: skip


def _copy_table(audit: Audit) -> Iterable[list[object]]:
    yield ["path", "class", "split", "copy_of", "copy_class", "copy_split", "correlation", "mirrored"]
    for pair in audit.pairs:
        mirrored = "yes" if pair.is_mirrored else "no"
        yield [*_place(audit, pair.first), *_place(audit, pair.second), f"{pair.correlation:.4f}", mirrored]


def _odd_table(audit: Audit) -> Iterable[list[object]]:
    yield ["path", "class", "split", "kind", "value", "score"]
    for one in audit.odd:
        yield [*_place(audit, one.row), one.kind, one.value, f"{one.score:.2f}"]


def _place(audit: Audit, row: int) -> list[object]:
    pictures = audit.pictures
    return [pictures.name(row), pictures.classes[pictures.labels_N[row]], pictures.splits[row]]
