"""Stored runs in, tables, figures and verdicts out.

`study`: an experiment, its cells and what tuning chooses; `reading`: from run folders to a study.
`quantities`, `verdicts`: the numbers of claims and what they amount to. `answer`: the sentences on
top. `figures/`: pictures. `record`: the whole report as data; `terminal`, `writing`: the record as
people read it, and its files. `compare`: runs side by side. `table`, `foreign`: claims about tables
that others have written. `status`: what is on disk. `words`: numbers as text. Import the module
that is needed: some take a while.
"""
