"""The report's looks: one style sheet, light and dark, wide and narrow. Contrast of text is 4.5 to 1 or better."""

CSS = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1a2028;--dim:#56606c;--line:#d5dae0;--good:#0b6b3a;
--good-back:#e3f4ea;--bad:#b3261e;--bad-back:#fdeceb;--dot:#1f5fbf;--limit:#a05a00;--code:#eef0f3;--warn-back:#fdf3e1;
--plum:#8a3a8f;--sea:#006d77;--band:#dfe3e8}
@media (prefers-color-scheme:dark){:root{--page:#101317;--card:#191d23;--text:#e6e9ed;--dim:#a3adb8;--line:#333b45;
--good:#6fd39b;--good-back:#12301f;--bad:#ff8a80;--bad-back:#3a1917;--dot:#7fb2ff;--limit:#f0b45c;--code:#242a32;
--warn-back:#33270f;--plum:#dc9be0;--sea:#5ccfd9;--band:#2c333c}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 12px}
h3{font-size:1rem;margin:20px 0 8px;overflow-wrap:anywhere}
p{margin:0 0 8px}
.sub{color:var(--dim);margin-bottom:16px;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px;margin:16px 0}
.verdict{border-width:0 0 0 8px;font-size:1.05rem;overflow-wrap:anywhere}
.verdict strong{display:block;font-size:1.25rem;margin-bottom:4px}
.verdict.passed{background:var(--good-back);border-color:var(--good)}
.verdict.failed{background:var(--bad-back);border-color:var(--bad)}
.verdict.same{border-color:var(--dot)}
.verdict.warn{background:var(--warn-back);border-color:var(--limit);font-size:1rem}
.verdict.warn strong{font-size:1.05rem}
.passed strong,.ok{color:var(--good)}
.failed strong,.no{color:var(--bad);font-weight:600}
ul{margin:0;padding-left:20px}
li{margin:4px 0;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:minmax(110px,max-content) 1fr;gap:6px 16px;margin:0}
dl+p,dl+ul{margin-top:12px}
dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere}
code{font:0.88em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--code);padding:1px 5px;
border-radius:4px;overflow-wrap:anywhere}
pre{margin:0 0 8px;padding:10px 12px;background:var(--code);border-radius:6px;overflow-x:auto}
pre code{padding:0;background:none;overflow-wrap:normal}
:focus-visible{outline:2px solid var(--dot);outline-offset:2px}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:0.9rem}
caption{text-align:left;color:var(--dim);padding-bottom:6px}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim);white-space:nowrap}
small{color:var(--dim)}
tr.won td{background:var(--good-back)}
td:first-child,th:first-child{padding-left:6px}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
td.t{min-width:110px;max-width:320px;overflow-wrap:anywhere}
td.why{min-width:150px}
.plots{display:flex;flex-wrap:wrap;gap:16px}
.plots>figure{flex:1 1 300px}
figure{margin:0;min-width:0}
figcaption{color:var(--dim);font-size:0.85rem;margin-top:4px;overflow-wrap:anywhere}
svg.plot{display:block;width:100%;min-width:440px;max-width:860px;height:auto}
svg.small{min-width:0;max-width:440px}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--dim)}
svg .name{fill:var(--text)}
svg .grid{stroke:var(--line);stroke-width:1}
svg .frame{fill:none;stroke:var(--line);stroke-width:1}
svg .limit{stroke:var(--limit);stroke-width:2.5}
svg .dot{fill:var(--dot)}
svg.small .dot,svg .bar{fill:var(--dot);fill-opacity:.75}
svg .bad{fill:var(--bad)}
svg .won{fill:var(--good)}
svg .idle{fill:var(--card);stroke:var(--dim);stroke-width:1.8}
svg .one{stroke:var(--dim);stroke-width:1.5}
svg .band,.key.band{fill:var(--band);background:var(--band);stroke:var(--dim);stroke-width:.6}
svg .spread{stroke:var(--dim);stroke-width:1.5}
svg .kept{fill:var(--card);stroke:var(--dot);stroke-width:1.5;stroke-dasharray:4 3}
svg .series{fill:none;stroke-width:2}
svg .series.whole{stroke-dasharray:none;stroke-width:1.5}
svg .s0{--line-of:var(--good)}
svg .s1{--line-of:var(--dot);stroke-dasharray:8 3}
svg .s2{--line-of:var(--limit);stroke-dasharray:3 3}
svg .s3{--line-of:var(--plum);stroke-dasharray:10 3 2 3}
svg .s4{--line-of:var(--sea);stroke-dasharray:1.5 4}
svg .series{stroke:var(--line-of)}
svg .end{fill:var(--line-of);stroke:none}
svg.mark{display:inline-block;width:16px;height:16px;margin:0 4px 0 0;vertical-align:-3px}
.keys{display:flex;flex-wrap:wrap;gap:2px 16px}
.keys span{white-space:nowrap}
.key{display:inline-block;width:11px;height:11px;margin:0 5px 0 0}
.key.round{border-radius:50%;background:var(--dot)}
.key.diamond{background:var(--bad);transform:rotate(45deg) scale(.8)}
.key.tick{width:3px;height:14px;background:var(--limit);vertical-align:-2px}
details{margin-top:12px}
summary{cursor:pointer;color:var(--dim)}
@media (max-width:560px){main{padding:12px 8px 40px}section{padding:14px 12px}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:10px}h1{font-size:1.35rem}svg.plot:not(.small) text{font-size:15px}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
