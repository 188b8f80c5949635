"""The style sheet of the report."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{--paper:#fff;--ink:#1d2430;--soft:#5a6675;--rule:#dfe3e8;--card:#f7f8fa;
--made:#b8500f;--real:#1f5fae;--negative:#7a7f87;--good:#1a7f42;--bad:#b3261e;--unknown:#6b7280}
@media (prefers-color-scheme:dark){:root{--paper:#14181e;--ink:#e6e9ee;--soft:#a3adba;--rule:#313944;--card:#1c222a;
--made:#f0954f;--real:#6db1ff;--negative:#9aa1ab;--good:#5cc98a;--bad:#ff8a80;--unknown:#a3adba}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1160px;margin:0 auto;
padding:1em}
h1{font-size:1.5em;line-height:1.25;margin:.4em 0}h2{font-size:1.15em;margin:2em 0 .4em}
p.note{color:var(--soft);margin:.2em 0 .8em}
.summary{font-weight:600;border-left:4px solid;padding:.3em .8em;margin:.6em 0}
.summary.good{border-color:var(--good)}.summary.bad{border-color:var(--bad)}.summary.unknown{border-color:var(--unknown)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;color:var(--soft);margin:.6em 0;font-size:14px}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}
.verdicts{list-style:none;margin:0 0 1em;padding:0;border-top:1px solid var(--rule)}
.verdicts li{display:grid;grid-template-columns:13.5em 8em 1fr;gap:.1em 1em;padding:.45em 0;
border-bottom:1px solid var(--rule)}
.badge{font-weight:600}.good .badge{color:var(--good)}.bad .badge{color:var(--bad)}.unknown .badge{color:var(--unknown)}
.verdicts b,.verdicts .badge{grid-row:1/3}.option{grid-column:3;color:var(--soft);font-size:14px}
.legend{margin:.4em 0;color:var(--soft)}
.key{display:inline-block;width:1.4em;height:.3em;margin:0 .4em .2em 0;border-radius:2px}
.key+.key{margin-left:1em}
.key.made{background:var(--made)}.key.real{background:var(--real);margin-left:.6em}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:12px}
figure{margin:0;padding:10px;background:var(--card);border:1px solid var(--rule);border-radius:8px;min-width:0}
figcaption{font-size:13.5px;font-weight:600;margin-bottom:4px}
svg{display:block;width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
svg .grid{stroke:var(--rule);stroke-width:1}
svg polyline{fill:none;stroke-width:2}
polyline.made{stroke:var(--made)}polyline.real{stroke:var(--real)}
circle.made,rect.made{fill:var(--made)}circle.real,rect.real{fill:var(--real)}rect.negative{fill:var(--negative)}
.two{display:grid;grid-template-columns:1fr 1fr;gap:8px;text-align:center;font-size:13px;color:var(--soft)}
.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:8px;margin-bottom:8px}
.picture{padding:6px}.picture figcaption{font-weight:400;color:var(--soft);margin:4px 0 0}
.picture img{display:block;width:100%;height:auto;image-rendering:pixelated}
@media (max-width:640px){body{padding:.7em}.verdicts li{grid-template-columns:1fr auto}
.verdicts b,.verdicts .badge{grid-row:auto}
.verdicts li span:not(.badge){grid-column:1/-1}dl{grid-template-columns:1fr}dd{margin-bottom:.3em}
.row{grid-template-columns:1fr 1fr}}
"""
