#!/usr/bin/env python3
"""Draws docs/figures/*.svg from docs/results/*.json. Needs matplotlib (3.11 drew them); equal results give equal files.

usage: tools/figures.py [NAME ...]      (default: all of decode prompt share memory quality)
"""

import json
import pathlib
import re
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
INK, PALE, PAPER = "#24292f", "#d0d7de", "#ffffff"
# Okabe and Ito's colours, which stay apart for colour-blind readers; markers tell the same.
PROGRAMS = {
    "Nibble": dict(color="#0072B2", marker="o"),
    "llama.cpp": dict(color="#E69F00", marker="s"),
    "transformers + bitsandbytes": dict(color="#7a7f87", marker="^"),
}
# What is compared at each width: a load, and the form that each program has of it.
FORMS = {
    "4 bits": {"Nibble": "nf4 nested", "llama.cpp": "Q4_0", "transformers + bitsandbytes": "nf4 nested"},
    "8 bits": {"Nibble": "int8", "llama.cpp": "Q8_0", "transformers + bitsandbytes": "int8, threshold 6"},
    "16 bits": {"Nibble": "float16", "transformers + bitsandbytes": "bf16"},
}

plt.rcParams.update({
    "svg.hashsalt": "nibble", "svg.fonttype": "none", "font.family": ["Liberation Sans"],
    "font.size": 10, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.edgecolor": PALE, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "xtick.major.size": 0, "ytick.major.size": 0, "axes.axisbelow": True,
})


def results(name):
    return json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))


def rate(rows, program, load, test, **wanted):
    """Tokens a second by the case's `batch` or `tokens`, whichever is not wanted."""
    key = "tokens" if test == "prompt" else "batch"
    return {
        case[key]: case["tokens_per_second"]
        for row in rows if (row["program"], row["load"]) == (program, load)
        for case in row["cases"] if case["test"] == test and all(case[k] == v for k, v in wanted.items())
    }


def save(figure, name):
    path = DOCS / "figures" / f"{name}.svg"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor=PAPER)
    plt.close(figure)
    path.write_text(small(path.read_text(encoding="utf-8")), encoding="utf-8")


def small(svg):
    """Without comments, names and digits that nobody sees; Arial has the measures of Liberation Sans."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE.*?>|<\?xml .*?\?>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{2,}", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), tag[0]), svg)
    svg = svg.replace("stroke-linecap: butt}", "stroke-linecap: butt; font-family: Arial, Helvetica, 'Liberation Sans', sans-serif}")
    svg = re.sub(r"font-family: 'Liberation Sans'; |; font-family: 'Liberation Sans'", "", svg)
    svg = re.sub(r"font: (bold )?([\d.]+px) 'Liberation Sans'", r"font-size: \2; font-weight: \1", svg).replace("bold ;", "bold;")
    svg = re.sub(r'; text-anchor: start|; stroke-linejoin: miter|; stroke-linecap: square| transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r' id="(figure|patch|axes|matplotlib|xtick|ytick|line2d|text|legend)[^"]*"', "", svg)
    svg = re.sub(r"<g/>", "", svg)
    return re.sub(r"\s*\n\s*", "\n", svg).strip() + "\n"


def legend(figure, handles, labels, **more):
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False, **more)


def titled(width, loads):
    """The width and the forms that are compared, without what a comma says more of them."""
    return f"{width}: {' / '.join(dict.fromkeys(load.split(',')[0] for load in loads.values()))}"


def number(value, _=None):
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def decode():
    rows = results("h200")["rows"]
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.7), sharey=True, layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.9))
    for axis, (title, loads) in zip(axes, FORMS.items()):
        for program, load in loads.items():
            values = rate(rows, program, load, "decode")
            axis.plot(*zip(*sorted(values.items())), label=program, linewidth=2, markersize=6, **PROGRAMS[program])
            below = program != "Nibble"
            for batch, value in values.items():
                if program == "llama.cpp" and title == "8 bits" and batch == 32:
                    continue  # lies on Nibble's
                axis.annotate(
                    number(value), (batch, value), xytext=(8 if below and batch == 32 else 0, -15 if below else 7), textcoords="offset points", fontsize=8.5,
                    color=PROGRAMS[program]["color"] if program != "llama.cpp" else "#9a6a00",
                    ha={1: "left", 32: "right"}.get(batch, "center"))
        axis.set(xscale="log", yscale="log", xlim=(0.8, 40), ylim=(2.5, 14000))
        axis.set_title(titled(title, loads), loc="left")
        axis.xaxis.set_major_locator(FixedLocator([1, 8, 32]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(number))
        axis.yaxis.set_major_formatter(FuncFormatter(number))
        axis.grid(axis="y", color=PALE, linewidth=0.7)
        axis.set_xlabel("sequences side by side")
    axes[0].set_ylabel("tokens a second")
    legend(figure, *axes[0].get_legend_handles_labels())
    save(figure, "decode")


def prompt():
    rows = results("h200")["rows"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.9))
    for axis, length in zip(axes, (512, 2048)):
        for group, loads in enumerate(FORMS.values()):
            for index, (program, load) in enumerate(loads.items()):
                place = group + (index - (len(loads) - 1) / 2) * 0.29
                value = rate(rows, program, load, "prompt").get(length)
                if value is None:
                    axis.text(place, 400, "not measured", rotation=90, ha="center", va="bottom", fontsize=8.5)
                    continue
                axis.bar(place, value, 0.27, color=PROGRAMS[program]["color"], label=program)
                axis.text(place, value + 400, f"{value / 1000:.1f}", ha="center", va="bottom", fontsize=9)
        axis.set_title(f"prompt of {length:,} tokens", loc="left")
        axis.set_ylim(0, 36000)
        axis.set_xticks(range(len(FORMS)), FORMS)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:.0f}"))
        axis.grid(axis="y", color=PALE, linewidth=0.7)
    axes[0].set_ylabel("prompt tokens a second, thousands")
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    legend(figure, [unique[name] for name in PROGRAMS], list(PROGRAMS))
    save(figure, "prompt")


def share():
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.9))
    titles = {"h200": "one H200, Llama of 7 billion", "zen3": "two Zen 3 cores, Llama of 1.1 billion"}
    forms = {"h200": FORMS, "zen3": {"4 bits": dict.fromkeys(PROGRAMS, "nf4") | {"llama.cpp": "Q4_0"},
                                    "8 bits": dict.fromkeys(PROGRAMS, "int8") | {"llama.cpp": "Q8_0"}}}
    for axis, (name, title) in zip(axes, titles.items()):
        data = results(name)
        weights = {(row["program"], row["load"]): row["weight_bytes"] for row in data["rows"]}
        ticks, place = [], 0.0
        for label, loads in forms[name].items():
            start = place
            for program, load in loads.items():
                value = rate(data["rows"], program, load, "decode")[1] * weights[program, load] / data["bandwidth"]
                axis.barh(place, value, 0.85, color=PROGRAMS[program]["color"], label=program)
                axis.text(
                    value + 0.012, place, f"{value:.0%}", va="center", fontsize=9,
                    bbox=dict(facecolor=PAPER, edgecolor="none", pad=1.2))
                place += 1
            ticks.append(((start + place - 1) / 2, label))
            place += 0.6
        axis.axvline(1, color=INK, linewidth=1, linestyle=(0, (3, 2)), zorder=0)
        axis.text(0.99, place - 0.95, "limit", ha="right", va="bottom", fontsize=9)
        axis.set_title(title, loc="left")
        axis.set_yticks(*zip(*ticks))
        axis.set(xlim=(0, 1.15), ylim=(place - 0.9, -0.7), xlabel="share of the memory's bandwidth, one sequence")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axis.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axis.grid(axis="x", color=PALE, linewidth=0.7)
    unique = dict(zip(*reversed(axes[0].get_legend_handles_labels())))
    legend(figure, [unique[name] for name in PROGRAMS], list(PROGRAMS))
    save(figure, "share")


def memory():
    rows = results("memory")["rows"]
    parts = {"weights": ("#0072B2", ["weights"]), "scales": ("#56B4E9", ["scales"]), "KV cache": ("#E69F00", ["kv_cache"]),
             "activations and workspace": ("#c4c9cf", ["workspace", "loading"])}
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(9, 3.5), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.9))
    for axis, name in zip(axes, names):
        mine = [row for row in rows if row["name"] == name]
        below = [0.0] * len(mine)
        for label, (color, keys) in parts.items():
            heights = [sum(row[key] for key in keys) / 1e9 for row in mine]
            axis.bar(range(len(mine)), heights, 0.72, bottom=below, color=color, label=label)
            below = [a + b for a, b in zip(below, heights)]
        for place, height in enumerate(below):
            axis.text(place, height * 1.0 + max(below) * 0.015, f"{height:.1f}", ha="center", va="bottom", fontsize=9)
        axis.set_title(name + (", --quantize-wo" if "--quantize-wo" in mine[-1]["options"] else ""), loc="left")
        axis.set_xticks(range(len(mine)), [row["load"].replace(" ", "\n") for row in mine])
        axis.set_ylim(0, max(below) * 1.1)
        axis.grid(axis="y", color=PALE, linewidth=0.7)
    axes[0].set_ylabel("GB on the GPU, 512 tokens")
    legend(figure, *axes[0].get_legend_handles_labels())
    save(figure, "memory")


def quality():
    rows = results("quality")["rows"]
    base = rows[0]["perplexity"]
    figure, axis = plt.subplots(figsize=(9, 2.3), layout="constrained")
    for place, row in enumerate(rows):
        value = (row["perplexity"] / base - 1) * 100
        axis.barh(place, value, 0.62, color="#0072B2")
        increase = f"  (+{value:.2f} %)" if place else ""
        axis.text(value + 0.04, place, f"{row['perplexity']:.2f}{increase}", va="center", fontsize=9.5)
    axis.set_yticks(range(len(rows)), [row["load"] for row in rows])
    axis.set(xlim=(0, 3.8), ylim=(len(rows) - 0.5, -0.5), xlabel="increase of perplexity over float32, %")
    axis.grid(axis="x", color=PALE, linewidth=0.7)
    save(figure, "quality")


FIGURES = {"decode": decode, "prompt": prompt, "share": share, "memory": memory, "quality": quality}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or FIGURES:
        FIGURES[chosen]()
