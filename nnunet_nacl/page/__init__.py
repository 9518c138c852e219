"""The page that shows a comparison: `report.html`, one file that needs nothing else.

`reading` takes comparison.json, `findings` says in words what it holds, `pictures` embeds the figures, `gallery` picks
cases and shows them through `cases`, `orientation`, `slices` and `drawing`; `page` puts it together from `templates`.
"""
