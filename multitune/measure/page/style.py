"""How the page looks: light and dark by the reader's choice, and on paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --paper: #ffffff; --box: #f6f7f9; --line: #dfe3e8; --heat: 37 99 235;
  --c0: #2563eb; --c1: #c2410c; --c2: #15803d; --c3: #a21caf; --c4: #0e7490; --c5: #b45309; --c6: #be123c; --c7: #475569;
  --info: #2563eb; --warning: #b45309; --error: #b91c1c; --fine: #15803d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b2; --paper: #14171c; --box: #1c2128; --line: #30363f; --heat: 96 165 250;
    --c0: #60a5fa; --c1: #fb923c; --c2: #4ade80; --c3: #e879f9; --c4: #22d3ee; --c5: #fbbf24; --c6: #fb7185; --c7: #a3b0c2;
    --info: #60a5fa; --warning: #fbbf24; --error: #f87171; --fine: #4ade80; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 20px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
    sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 18px 0 6px; font-weight: 600; }
p { margin: 4px 0 10px; }
.soft, .note { color: var(--soft); }
.note { font-size: 13px; max-width: 76ch; }
.facts { display: flex; flex-wrap: wrap; gap: 0 18px; color: var(--soft); font-size: 13px; }
input[name="language"] { position: absolute; opacity: 0; }
label { float: right; margin-left: 4px; padding: 2px 10px; border: 1px solid var(--line); border-radius: 999px; font-size: 13px;
  cursor: pointer; }
#in-en:checked ~ label[for="in-en"], #in-zh:checked ~ label[for="in-zh"] { background: var(--box); border-color: var(--soft); }
#in-en:focus-visible ~ label[for="in-en"], #in-zh:focus-visible ~ label[for="in-zh"] { outline: 2px solid var(--c0); }
#in-en:checked ~ main .zh, #in-zh:checked ~ main .en { display: none; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0 4px; }
.card { background: var(--box); border: 1px solid var(--line); border-radius: 10px; padding: 10px 16px; min-width: 128px; }
.card b { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card small { color: var(--soft); display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; margin: 6px 0 10px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.w { overflow-wrap: anywhere; min-width: 12ch; }
table.heat { font-size: 13px; }
table.heat td, table.heat th { padding: 3px 6px; border: 1px solid var(--paper); text-align: center; }
table.heat th { overflow-wrap: anywhere; max-width: 13ch; color: var(--ink); font-weight: 500; }
table.heat th:first-child { text-align: right; }
table.heat td { background: rgb(var(--heat) / calc(var(--v) * 0.9)); min-width: 34px; font-variant-numeric: tabular-nums; }
table.heat td.deep { color: var(--paper); }
table.heat td.nil { color: var(--soft); opacity: 0.55; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 8px 28px; }
figure { margin: 0; break-inside: avoid; }
figure svg, td svg { display: block; width: 100%; height: auto; }
td svg { width: 150px; }
svg text { fill: var(--soft); font-size: 11px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); } svg .mark { stroke: var(--soft); stroke-dasharray: 2 3; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .interval { stroke: var(--c0); stroke-width: 8; opacity: 0.4; } svg .dot { fill: var(--c0); }
svg .beside { fill: var(--paper); stroke: var(--soft); }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .c6 { stroke: var(--c6); } .c7 { stroke: var(--c7); }
.d1 { stroke-dasharray: 6 3; } .d2 { stroke-dasharray: 2 2; }
svg circle.line { fill: var(--paper); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; color: var(--soft); }
.legend svg { display: inline-block; width: 22px; height: 8px; margin-right: 5px; vertical-align: middle; }
.finding { border-left: 4px solid var(--info); background: var(--box); border-radius: 0 8px 8px 0; padding: 7px 14px; margin: 8px 0;
  break-inside: avoid; }
.finding.warning { border-color: var(--warning); } .finding.error { border-color: var(--error); }
.finding code { color: var(--soft); font-size: 12.5px; }
.rows { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 12px; }
.row { border: 1px solid var(--line); border-radius: 10px; padding: 10px 12px; background: var(--box); break-inside: avoid;
  font-size: 14px; overflow-wrap: anywhere; }
.row img { display: block; width: 112px; height: 112px; object-fit: contain; background: var(--paper); border-radius: 6px; }
.row img.tiny { image-rendering: pixelated; }
.row audio { display: block; width: 100%; height: 32px; margin: 4px 0; }
.row small { color: var(--soft); } .row .wrong { color: var(--error); font-weight: 600; }
.row .fine { color: var(--fine); font-weight: 600; }
details > summary { cursor: pointer; font-weight: 600; margin: 10px 0; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 8px; padding: 12px; font-size: 12px; line-height: 1.4;
  overflow-x: auto; }
@media print {
  body { max-width: none; padding: 0; font-size: 12px; } label, audio { display: none !important; }
  h2 { break-after: avoid; } pre { white-space: pre-wrap; } .scroll { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
