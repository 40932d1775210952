"""How a page looks: by day and night, on a phone and on paper."""

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #5b636d;
  --line: #d5dae0; --shade: #f4f6f8; --blue: #0072b2; --orange: #d55e00; --green: #00795b; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ed; --soft: #a3acb6;
  --line: #3a424b; --shade: #1d2228; --blue: #56b4e9; --orange: #f0904a; --green: #3cc79d; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .6rem 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .5rem;
  border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
p.soft, figcaption, caption { color: var(--soft); font-size: .875rem; }
nav ul { padding: 0; margin: .6rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem;
  list-style: none; font-size: .9rem; }
a { color: var(--blue); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr));
  gap: .6rem; margin: 1rem 0; }
.tile { background: var(--shade); border: 1px solid var(--line); border-radius: .4rem;
  padding: .5rem .7rem; }
.tile b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
figure { margin: 0; min-width: 0; }
svg { display: block; width: 100%; height: auto; max-width: 34rem; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
svg .axis { stroke: var(--soft); stroke-width: 1; fill: none; }
svg .grid { stroke: var(--line); stroke-width: .6; fill: none; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .a { --c: var(--blue); } svg .b { --c: var(--orange); } svg .c { --c: var(--green); }
svg .d { --c: var(--ink); } svg .e { --c: var(--soft); }
svg .line, svg .mark { stroke: var(--c); }
svg .mark { fill: var(--paper); stroke-width: 1.6; }
svg .dot { fill: var(--c); fill-opacity: .45; }
svg .bar { fill: var(--c); fill-opacity: .55; stroke: var(--c); stroke-width: .8; }
.wide { overflow-x: auto; max-width: 100%; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; position: sticky; left: 0;
  max-width: calc(100vw - 1.8rem); }
th, td { padding: .2rem .5rem; border-bottom: 1px solid var(--line); text-align: right;
  overflow-wrap: normal; white-space: nowrap; }
th { white-space: normal; font-weight: 600; }
th[scope=row] { text-align: left; max-width: 16rem; overflow-wrap: break-word; }
thead th { vertical-align: bottom; }
th.text { text-align: left; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 9rem; max-width: 22rem; }
table.matrix th[scope=row] { position: sticky; left: 0; background: var(--paper); z-index: 1;
  max-width: 9rem; }
table.matrix td { min-width: 2.2rem; border: 1px solid var(--line);
  background: color-mix(in srgb, var(--orange) calc(var(--s) * 60%), transparent); }
table.matrix td.hit { font-weight: 700; outline: 1px solid var(--soft); outline-offset: -2px;
  background: color-mix(in srgb, var(--blue) calc(var(--s) * 30%), transparent); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) minmax(0, 1fr);
  gap: .2rem 1rem; margin: .6rem 0; }
dt { font-weight: 600; } dd { margin: 0; }
.pictures { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); }
.pictures img { width: 100%; image-rendering: pixelated; background: var(--shade); }
.pictures figcaption { color: var(--ink); line-height: 1.35; }
img.mosaic { width: 100%; max-width: 34rem; image-rendering: pixelated; }
ul.warned { padding-left: 1.2rem; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--blue); }
@media (max-width: 30rem) { dl { grid-template-columns: minmax(0, 7.5rem) minmax(0, 1fr); }
  main { padding: .6rem .8rem 2rem; } }
@media print { nav, summary { display: none; } figure, tr { break-inside: avoid; } }
"""
