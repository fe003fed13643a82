"""The report's looks: one style sheet, light and dark, wide and narrow. Contrast of text is 4.5 to 1 or better."""

CSS = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1a2028;--dim:#56606c;--line:#d5dae0;--good:#0b6b3a;
--good-back:#e3f4ea;--bad:#b3261e;--bad-back:#fdeceb;--dot:#1f5fbf;--limit:#a05a00;--code:#eef0f3}
@media (prefers-color-scheme:dark){:root{--page:#101317;--card:#191d23;--text:#e6e9ed;--dim:#a3adb8;--line:#333b45;
--good:#6fd39b;--good-back:#12301f;--bad:#ff8a80;--bad-back:#3a1917;--dot:#7fb2ff;--limit:#f0b45c;--code:#242a32}}
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
.passed strong,.ok{color:var(--good)}
.failed strong,.no{color:var(--bad);font-weight:600}
ul{margin:0;padding-left:20px}
li{margin:4px 0;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:minmax(110px,max-content) 1fr;gap:6px 16px;margin:0}
dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere}
code{font:0.88em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--code);padding:1px 5px;
border-radius:4px;overflow-wrap:anywhere}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:0.9rem}
caption{text-align:left;color:var(--dim);padding-bottom:6px}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim);white-space:nowrap}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
td.t{min-width:110px;max-width:320px;overflow-wrap:anywhere}
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
.keys span{white-space:nowrap}
.key{display:inline-block;width:11px;height:11px;margin:0 4px 0 12px}
.key.round{border-radius:50%;background:var(--dot)}
.key.diamond{background:var(--bad);transform:rotate(45deg) scale(.8)}
.key.tick{width:3px;height:14px;background:var(--limit);vertical-align:-2px}
details{margin-top:12px}
summary{cursor:pointer;color:var(--dim)}
@media (max-width:560px){main{padding:12px 8px 40px}section{padding:14px 12px}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:10px}h1{font-size:1.35rem}svg.plot:not(.small) text{font-size:15px}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
