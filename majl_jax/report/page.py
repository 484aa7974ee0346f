"""The look of report.html: one style sheet for light and dark, and pieces of HTML."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

COLOURS, DASHES = 8, 4  # of the lines of one chart: the classes "many c0 d0" to "many c7 d3"
STYLE = """
:root {
  --page: #fbfaf7; --card: #ffffff; --ink: #1d1d1b; --soft: #6b6963; --line: #e3e0d8;
  --train: #3867a8; --valid: #c4622d; --truth: #8a8678; --estimate: #c4622d; --good: #2f7d4f; --bad: #b3402e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161614; --card: #1f1f1c; --ink: #ecebe6; --soft: #a09d93; --line: #35342f;
    --train: #7fb0f0; --valid: #f0a06c; --truth: #8f8c80; --estimate: #f0a06c; --good: #6fc792; --bad: #ee8a78;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 2.1rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 0.35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 3.2rem 0 0.9rem; }
h3 { font-size: 1.02rem; margin: 1.9rem 0 0.7rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
.lead, .note, figcaption { color: var(--soft); }
.note { font-size: 0.86rem; }
code, pre { font: 0.84rem/1.5 ui-monospace, "SFMono-Regular", "Liberation Mono", Menlo, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 0.8rem 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.6rem 0; max-height: 30rem; overflow: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.4rem; margin: 1.2rem 0; font-size: 0.92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 1.6rem; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th { font-weight: 600; text-align: right; color: var(--soft); white-space: nowrap; }
th, td { padding: 0.42rem 0.5rem; vertical-align: baseline; }
th:first-child, td:first-child { padding-left: 0; }
td { text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
thead th { border-bottom: 1.5px solid var(--ink); }
tbody { border-bottom: 1px solid var(--line); }
tr.reference td { color: var(--soft); }
tr.system td.text { font-weight: 600; }
td strong { color: var(--good); }
td .sd { display: block; color: var(--soft); font-size: 0.76rem; line-height: 1.2; }
.small table { font-size: 0.82rem; }
.small td, .small th { padding: 0.22rem 0.6rem; }
details { margin: 0.9rem 0; }
summary { cursor: pointer; color: var(--soft); }
summary:hover { color: var(--ink); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 0.7rem 0.8rem 0.6rem; min-width: 0; }
figure h4 { margin: 0 0 0.25rem; font-size: 0.85rem; font-weight: 600; overflow-wrap: anywhere; }
figcaption { font-size: 0.8rem; }
.three { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 1rem; margin-bottom: 1rem; }
.example { margin: 0 0 2.4rem; }
audio { width: 100%; height: 36px; margin-top: 0.4rem; display: block; }
.wide svg { min-width: 940px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 12px system-ui, "Liberation Sans", sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg image ~ .grid { stroke: #fff; stroke-opacity: 0.13; }
svg .axis, svg .tick { stroke: var(--soft); stroke-width: 1; }
svg .level { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 3; }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
svg polyline.train { stroke: var(--train); } svg polyline.valid { stroke: var(--valid); }
svg polyline.truth { stroke: var(--truth); stroke-width: 6; }
svg polyline.estimate { stroke: var(--estimate); stroke-width: 1.7; }
svg .dot.truth { fill: var(--truth); } svg .dot.estimate { fill: var(--estimate); }
svg .dot.train { fill: var(--train); } svg .dot.valid { fill: var(--valid); }
svg polyline.many { stroke: var(--many); } svg .dot.many { fill: var(--many); } svg .d1 { stroke-dasharray: 6 4; } svg .d2 { stroke-dasharray: 1.5 3; } svg .d3 { stroke-dasharray: 9 3 2 3; }
.c0 { --many: #3867a8; } .c1 { --many: #c4622d; } .c2 { --many: #2f7d4f; } .c3 { --many: #8a5aa8; }
.c4 { --many: #a8892c; } .c5 { --many: #2f929a; } .c6 { --many: #b8436a; } .c7 { --many: #6b6963; }
@media (prefers-color-scheme: dark) {
  .c0 { --many: #7fb0f0; } .c1 { --many: #f0a06c; } .c2 { --many: #6fc792; } .c3 { --many: #c79be6; }
  .c4 { --many: #dcc05f; } .c5 { --many: #6fced6; } .c6 { --many: #f08fb0; } .c7 { --many: #a9a69c; }
}
svg .mark { fill: none; stroke: var(--good); stroke-width: 2; }
.key { display: inline-block; width: 1.5em; height: 0; border-top: 3px solid; vertical-align: middle; margin: 0 0.35em 0.1em 0; }
.key.train { border-color: var(--train); } .key.valid { border-color: var(--valid); }
.key.truth { border-color: var(--truth); border-top-width: 6px; } .key.estimate { border-color: var(--estimate); }
.key.many { border-color: var(--many); } .key.d1 { border-top-style: dashed; } .key.d2 { border-top-style: dotted; } .key.d3 { border-top-width: 1.5px; }
.entry { white-space: nowrap; margin-right: 0.7em; }

.ring { display: inline-block; width: 0.75em; height: 0.75em; border: 2px solid var(--good); border-radius: 50%; margin-right: 0.35em; }
.state { font-weight: 600; } .state.done { color: var(--good); } .state.open { color: var(--bad); }
@media (max-width: 600px) { main { padding: 1.6rem 1rem 3rem; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 0.5rem; } }
@media print {
  :root {
    --page: #fff; --card: #fff; --ink: #000; --soft: #55534e; --line: #d5d2ca;
    --train: #3867a8; --valid: #c4622d; --truth: #8a8678; --estimate: #c4622d; --good: #22663f; --bad: #b3402e;
  }
  .c0 { --many: #3867a8; } .c1 { --many: #c4622d; } .c2 { --many: #2f7d4f; } .c3 { --many: #8a5aa8; }
  .c4 { --many: #a8892c; } .c5 { --many: #2f929a; } .c6 { --many: #b8436a; } .c7 { --many: #6b6963; }
  html { color-scheme: light; }
  body { font-size: 11pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  h1, h2, h3 { break-after: avoid; }
  figure, tr, .example h3 { break-inside: avoid; }
  .scroll { overflow: visible; }
  table, .small table { font-size: 7.5pt; }
  td .sd { font-size: 6.5pt; }
  td.note { font-size: inherit; }
  th { white-space: normal; }
  th, td, .small td, .small th { padding: 0.2rem 0.3rem; }
  .wide svg { min-width: 0; }
  .charts, .three { grid-template-columns: repeat(3, 1fr); gap: 0.6rem; }
  pre { max-height: none; overflow: visible; }
  audio { display: none; }
  details:not([open]) { display: none; }
}
@page { margin: 15mm; }
"""


def text(value: Any) -> str:
    """Any value as text that cannot be mistaken for HTML."""
    return html.escape(str(value), quote=True)


def page(title: str, body: Iterable[str]) -> str:
    """A whole document that loads nothing from anywhere."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def table(head: Sequence[str], groups: Sequence[Sequence[str]], style: str = "") -> str:
    """A table of ready-made cells: head are <th>, groups are <tr> in one <tbody> each."""
    bodies = "".join(f"<tbody>{''.join(rows)}</tbody>" for rows in groups)
    return (
        f'<div class="scroll {style}" role="group" aria-label="table" tabindex="0"><table><thead><tr>{"".join(head)}</tr></thead>'
        f"{bodies}</table></div>"
    )


def code(label: str, content: str) -> str:
    """Text as it was typed, that a keyboard can scroll."""
    return f'<pre role="group" aria-label="{text(label)}" tabindex="0">{text(content)}</pre>'


def details(summary: str, body: str, *, open_: bool = False) -> str:
    """A part that can be folded."""
    return f"<details{' open' * open_}><summary>{text(summary)}</summary>{body}</details>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and ready-made values; empty ones are left out."""
    return f"<dl>{''.join(f'<dt>{text(n)}</dt><dd>{v}</dd>' for n, v in pairs if v)}</dl>"


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """What lines of these styles are."""
    return " ".join(
        f'<span class="entry"><span class="key {style}"></span>{text(name)}</span>'
        for style, name in entries
    )


def wide_figure(title: str, body: str, caption: str = "") -> str:
    """A framed picture that keeps its width where the screen has less, and is scrolled there."""
    region = f'role="group" aria-label="{text(title)}" tabindex="0"'
    return figure(title, f'<div class="scroll wide" {region}>{body}</div>', caption)


def figure(title: str, body: str, caption: str = "") -> str:
    """A framed picture with its title above and a ready-made caption below."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h4>{text(title)}</h4>{body}{below}</figure>"
