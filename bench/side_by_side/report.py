"""From measurements to verdicts and tables."""
from .tools import median


def best(values, lower):
    return min(values) if lower else max(values)


def ratio(point, ours, peer):
    """How many times as good as the peer."""
    return peer / ours if point.lower_is_better else ours / peer


def figures(row, point, repetitions, bandwidth):
    """What is known about one figure, from the repetitions measured so far; None when ours is missing."""
    ours = [r["ours"][point.label] for r in repetitions if point.label in r.get("ours", {})]
    peer = [r["peer"][point.label] for r in repetitions if point.label in r.get("peer", {})]
    if not ours:
        return None
    f = {"row": row.id, "label": point.label, "unit": point.unit, "samples": len(ours),
         "ours_best": best([v for v, _ in ours], point.lower_is_better), "ours_median": median([v for v, _ in ours])}
    size = max(b for _, b in ours)
    if size and bandwidth and "token" in point.unit:
        # Bytes a step must read, at the speed memory was read in this run: nothing can be faster (but for caches).
        floor_s = size / bandwidth
        step_s = f["ours_best"] / 1e3 if point.unit.startswith("ms") else batch_of(point) / f["ours_best"]
        f["floor_ms"], f["of_floor"] = floor_s * 1e3, floor_s / step_s
    if peer:
        f["peer_best"] = best([v for v, _ in peer], point.lower_is_better)
        f["peer_median"] = median([v for v, _ in peer])
        f["ratio"] = ratio(point, f["ours_best"], f["peer_best"])
        f["ratio_median"] = ratio(point, f["ours_median"], f["peer_median"])
    if point.target is not None:
        f["target"] = f">= {point.target}x"
        f["ok"] = "ratio" in f and f["ratio"] >= point.target
    elif point.limit is not None:
        f["target"] = f"{'<=' if point.lower_is_better else '>='} {point.limit:g} {point.unit}"
        f["ok"] = f["ours_best"] <= point.limit if point.lower_is_better else f["ours_best"] >= point.limit
    return f


def batch_of(point):
    return int(point.label.split()[-1])


def number(v):
    return "-" if v is None else f"{v:.0f}" if abs(v) >= 1000 else f"{v:.3g}" if abs(v) < 100 else f"{v:.1f}"


def head(peer):
    return ["figure", "unit", "ours", "median", peer or "-", "median", "ratio", "median", "target", "", "floor ms", "of floor"]


def cells(f):
    ratio_text = lambda key: f"{f[key]:.2f}x" if key in f else "-"
    return [f["label"], f["unit"], number(f["ours_best"]), number(f["ours_median"]), number(f.get("peer_best")),
            number(f.get("peer_median")), ratio_text("ratio"), ratio_text("ratio_median"), f.get("target", ""),
            "ok" if f.get("ok") else "MISSED" if "ok" in f else "", number(f.get("floor_ms")),
            f"{100 * f['of_floor']:.0f}%" if "of_floor" in f else "-"]


def text_table(peer, title, rows):
    table = [head(peer)] + [cells(f) for f in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = ["", title]
    for line in table:
        lines.append("  " + "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))))
    return "\n".join(lines)


def markdown_table(peer, title, rows):
    lines = ["", f"### {title}", "", "| " + " | ".join(head(peer)) + " |", "|" + "---|" * len(head(peer))]
    lines += ["| " + " | ".join(cells(f)) + " |" for f in rows]
    return "\n".join(lines)


def summary(all_figures):
    judged = [f for f in all_figures if "ok" in f]
    missed = [f"{f['row']} {f['label']}" for f in judged if not f["ok"]]
    text = f"{len(judged) - len(missed)} of {len(judged)} goals reached"
    return text + (f"; missed: {', '.join(missed)}" if missed else "")
